import pytest

from petseg_lightning.data.targets import IGNORE, PET_PARTS, PET_TARGETS, own_target, pet_target, protocols_for
from petseg_lightning.errors import InputError

TRIMAP, SPECIES, BINARY = ("pet", "background", "border"), ("background", "cat", "dog"), ("background", "pet")
# (target, border): the class of background, cat, cat border, dog, dog border; None is ignored
READINGS = {
    ("trimap", None): ("background", "pet", "border", "pet", "border"),
    ("species", None): ("background", "cat", "cat", "dog", "dog"),
    ("species", "pet"): ("background", "cat", "cat", "dog", "dog"),
    ("species", "background"): ("background", "cat", "background", "dog", "background"),
    ("species", "ignore"): ("background", "cat", None, "dog", None),
    ("binary", None): ("background", "pet", "pet", "pet", "pet"),
    ("binary", "pet"): ("background", "pet", "pet", "pet", "pet"),
    ("binary", "background"): ("background", "pet", "background", "pet", "background"),
    ("binary", "ignore"): ("background", "pet", None, "pet", None),
}
BINARY_PROTOCOLS = ("binary_border_pet", "binary_border_background", "binary_border_ignore")


def test_the_parts_of_a_pet_mask():
    assert PET_PARTS == ("background", "cat", "cat border", "dog", "dog border")


@pytest.mark.parametrize(("reading", "classes"), READINGS.items())
def test_the_class_of_every_part_in_every_reading(reading, classes):
    target = pet_target(*reading)
    assert target.class_names == {"trimap": TRIMAP, "species": SPECIES, "binary": BINARY}[reading[0]]
    assert target.part_names == PET_PARTS
    found = tuple(None if c == IGNORE else target.class_names[c] for c in target.part_to_class)
    assert found == classes


def test_targets_are_named_once_each_and_no_border_means_pet():
    assert len({target.name for target in PET_TARGETS}) == len({target.label for target in PET_TARGETS}) == 7
    assert pet_target("species") == pet_target("species", "pet")
    assert pet_target("species").label == "background / cat / dog, border as pet"
    assert pet_target("binary", "ignore").label == "background / pet, border ignored"


@pytest.mark.parametrize("arguments", [("breed", None), ("species", "dog"), ("binary", "none")])
def test_an_unknown_reading_is_refused(arguments):
    with pytest.raises(InputError, match=r"the target is trimap, species or binary; the border is pet, background"):
        pet_target(*arguments)


@pytest.mark.parametrize("border", ["pet", "background", "ignore"])
def test_a_trimap_has_a_border_of_its_own(border):
    with pytest.raises(InputError, match=rf"data\.border={border}.*leave data\.border out"):
        pet_target("trimap", border)


# the protocols of a model's classes on pets, each with the protocol's class of every class of the model
MODELS = {
    TRIMAP: {
        "trimap": TRIMAP,
        "binary_border_pet": ("pet", "background", "pet"),
        "binary_border_background": ("pet", "background", "background"),
        "binary_border_ignore": ("pet", "background", "pet"),
    },
    SPECIES: {
        "species_border_pet": SPECIES,
        "species_border_background": SPECIES,
        "species_border_ignore": SPECIES,
        **dict.fromkeys(BINARY_PROTOCOLS, ("background", "pet", "pet")),
    },
    BINARY: dict.fromkeys(BINARY_PROTOCOLS, BINARY),
    ("pet", "background"): dict.fromkeys(BINARY_PROTOCOLS, ("pet", "background")),  # in another order
}


@pytest.mark.parametrize(("class_names", "expected"), MODELS.items())
def test_the_protocols_of_a_model_on_pets(class_names, expected):
    found = {
        protocol.target.name: tuple(protocol.target.class_names[column] for column in protocol.columns)
        for protocol in protocols_for(class_names, PET_PARTS)
    }
    assert found == expected


@pytest.mark.parametrize(
    ("class_names", "part_names", "columns"),
    [
        (("road", "sky", "tree"), ("road", "sky", "tree"), (0, 1, 2)),
        (("tree", "road", "sky"), ("road", "sky", "tree"), (2, 0, 1)),
        (TRIMAP, BINARY, (1, 0, 1)),
        (SPECIES, BINARY, (0, 1, 1)),
        (SPECIES, SPECIES, (0, 1, 2)),
    ],
)
def test_data_of_own_classes_has_one_protocol(class_names, part_names, columns):
    (protocol,) = protocols_for(class_names, part_names)
    assert protocol.target == own_target(part_names)
    assert protocol.columns == columns


@pytest.mark.parametrize(
    ("class_names", "part_names"),
    [
        (("road", "sky"), PET_PARTS),
        (("background", "cat"), ("background", "cat", "dog")),  # can never predict dog
        (("background", "cat", "dog"), ("background", "cat")),  # predicts what the data does not know
        (BINARY, SPECIES),
    ],
)
def test_a_model_of_other_classes_is_refused(class_names, part_names):
    with pytest.raises(InputError) as error:
        protocols_for(class_names, part_names)
    assert f"predicts {', '.join(class_names)}" in str(error.value)
    assert f"has {', '.join(part_names)}: use the checkpoint with data of its own classes" in str(error.value)
