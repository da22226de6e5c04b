from functools import cache

import cv2
import numpy as np
import pytest

from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose, plain
from petseg_lightning.data.strength import at_strength
from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import A, Augmentation
from petseg_lightning.errors import InputError
from petseg_lightning.training import build_transforms

SIZE, PARTS = 48, (0, 2, 4)
OPTIONS = options("augmentation")


def config(option: str, *overrides: str):
    return compose("train", [f"augmentation={option}", f"data.image_size={SIZE}", *overrides]).augmentation


@cache
def described(option: str, strength: float = 1.0) -> list[dict]:
    return at_strength(**plain(config(option, f"augmentation.strength={strength}")))


def augmentation(option: str, seed: int = 0) -> Augmentation:
    return Augmentation(build(described(option)), seed)


@pytest.fixture(scope="module")
def pictures():
    """Textured pictures, and blobs of three parts, between whose numbers there are others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    parts = np.kron(rng.choice(PARTS, (4, 4, 4)), np.ones((1, 12, 12))).astype(np.uint8)
    return list(zip(images, parts, strict=True))


@pytest.fixture(scope="module")
def picture(pictures):
    return pictures[0]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_types_sizes_and_values_stay_and_the_originals_too(option, picture, pictures):
    image, parts = (array.copy() for array in picture)
    augment = augmentation(option)
    values = set()
    for index in range(60):
        new_image, new_parts = augment(image, parts, 0, index, pictures)
        assert new_image.dtype == new_parts.dtype == np.uint8
        assert (new_image.shape, new_parts.shape) == (image.shape, parts.shape)
        values |= set(np.unique(new_parts).tolist())
        assert same((image, parts), picture)  # the cache's arrays
    assert values <= {*PARTS, IGNORE}


@pytest.mark.parametrize("option", [option for option in OPTIONS if described(option)])
def test_a_draw_depends_on_seed_epoch_and_index_alone(option, picture, pictures):
    augment, again = augmentation(option), augmentation(option)
    keys = [(epoch, index) for epoch in range(3) for index in range(12)]
    draws = {key: augment(*picture, *key, pictures) for key in keys}
    for key in reversed(keys):
        assert same(again(*picture, *key, pictures), draws[key])
    assert same(augment(*picture, *keys[5], pictures), draws[keys[5]])
    other = augmentation(option, seed=1)
    unlike = sum(not same(other(*picture, *key, pictures), draws[key]) for key in keys)
    assert unlike > len(keys) / 2
    distinct = {image.tobytes() for image, _ in draws.values()}
    assert len(distinct) > len(keys) / 2
    for fixed in range(3):  # the epochs of one index, as the indices of one epoch
        assert len({draws[epoch, fixed][0].tobytes() for epoch in range(3)}) > 1


def test_no_augmentation_changes_nothing(picture):
    assert same(augmentation("none")(*picture, 3, 4), picture)


GEOMETRY = ("HorizontalFlip", "Affine", "RandomResizedCrop")
MOVES = [
    pytest.param(option, i, id=f"{option}-{node['_target_'].rpartition('.')[2]}")
    for option in OPTIONS
    for i, node in enumerate(described(option))
    if node["_target_"].endswith(GEOMETRY)
]


@pytest.mark.parametrize(("option", "position"), MOVES)
@pytest.mark.parametrize(("strength", "nested"), [(1, False), (1, True), (0.5, False), (2, False)])
def test_picture_and_mask_move_together(option, position, strength, nested):
    """The picture shows its mask, so it must show the moved mask afterwards: in place, but for blurred edges."""
    parts = np.zeros((SIZE, SIZE), np.uint8)
    parts[20:, 20:] = 1  # edges to the left and above only: a mask that is moved gains or loses area
    transform = build({**described(option, strength)[position], "p": 1.0})
    augment = Augmentation([A.OneOf([transform], p=1.0)] if nested else [transform], seed=0)
    moved_masks, shifts = set(), []
    for index in range(40):
        image, moved = augment(np.stack([parts * 200] * 3, -1), parts, 0, index)
        assert ((image[..., 0] > 100) == (moved == 1)).mean() > 0.97
        moved_masks.add(moved.tobytes())
        shifts.append((image[..., 0].sum() / 200 - moved.sum()) / (2 * SIZE))
    assert moved_masks != {parts.tobytes()}
    assert len(moved_masks) == 1 if isinstance(transform, A.HorizontalFlip) else len(moved_masks) > 25
    assert abs(np.mean(shifts)) < 0.1  # pixels


def test_what_a_hole_hides_is_ignored(picture):
    (hole,) = [node for node in described("strong") if node["_target_"].endswith("CoarseDropout")]
    image, parts = np.maximum(picture[0], 1), picture[1]
    new_image, new_parts = Augmentation([build({**hole, "p": 1.0})], seed=0)(image, parts, 0, 0)
    hidden = (new_image == 0).all(-1)
    assert 0 < hidden.mean() < 0.5
    np.testing.assert_array_equal(new_parts, np.where(hidden, IGNORE, parts))
    np.testing.assert_array_equal(new_image[~hidden], image[~hidden])


def test_transforms_are_drawn_independently_of_each_other():
    """Two transforms of probability 1/2 meet in a quarter of the pictures: one seed for both would make it a half."""
    image = np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)
    parts = np.zeros((SIZE, SIZE), np.uint8)
    augment = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], seed=0)
    results = [augment(image, parts, 0, index)[0] for index in range(800)]
    for expected in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]):
        assert 0.19 < np.mean([np.array_equal(result, expected) for result in results]) < 0.31


@pytest.mark.parametrize("option", OPTIONS)
def test_at_strength_0_there_is_no_augmentation_and_at_1_it_is_what_is_written(option):
    pasting = "augmentation.copy_paste.p=0.3"
    assert build_transforms(config(option, "augmentation.strength=0", pasting)) == []
    written = config(option, "augmentation.copy_paste.p=0")
    assert at_strength(**plain(written)) == plain(written)["transforms"]
    pasting_first = config(option, pasting)
    assert at_strength(**plain(pasting_first)) == [
        {"_target_": "petseg_lightning.data.copy_paste.CopyPaste", "scale": [0.5, 1.0], "p": 0.3},
        *plain(written)["transforms"],
    ]
    assert at_strength([*written.transforms]) == written.transforms  # a YAML of one's own that says no more


@pytest.mark.parametrize("option", [option for option in OPTIONS if described(option)])
def test_the_stronger_the_further_from_the_picture(option):
    rng = np.random.default_rng(0)
    smooth = [cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (SIZE, SIZE)) for _ in range(4)]
    pictures = [(image, (image[..., 0] > 128).astype(np.uint8)) for image in smooth]
    changes = []
    for strength in (0.1, 0.3, 0.6, 1.0, 1.5, 2.0):
        augment = Augmentation(build(described(option, strength)), seed=0)
        made = [augment(*pictures[0], epoch, 0, pictures)[0] for epoch in range(300)]
        changes.append(np.mean([np.abs(image.astype(int) - pictures[0][0]).mean() for image in made]))
    assert changes == sorted(changes)
    assert changes[0] < 0.15 * changes[3]
    assert changes[-1] > 1.15 * changes[3]


def test_factors_amounts_and_probabilities_have_their_own_way_of_growing():
    node = {
        "_target_": "x.X",
        "scale": {"x": [0.25, 4], "y": 1.0},
        "rotate": [-20, 20],
        "shear": None,
        "translate_percent": True,
        "blur_limit": [3, 5],
        "p": 0.4,
    }
    nested = {"_target_": "x.OneOf", "transforms": [{"_target_": "x.Y", "rotate": 10.0, "p": 0.7}], "p": 1.0}
    settings = {"factors": ["scale"], "amounts": ["rotate", "shear", "translate_percent"]}
    half, double = (at_strength([node, nested], strength, **settings) for strength in (0.5, 2))
    assert half[0] == {**node, "scale": {"x": [0.5, 2.0], "y": 1.0}, "rotate": [-10.0, 10.0], "p": 0.2}
    assert double[0] == {**node, "scale": {"x": [0.0625, 16], "y": 1.0}, "rotate": [-40, 40]}
    assert half[1] == {**nested, "transforms": [{"_target_": "x.Y", "rotate": 5.0, "p": 0.7}], "p": 0.5}
    assert double[1] == {**nested, "transforms": [{"_target_": "x.Y", "rotate": 20.0, "p": 0.7}]}


def test_a_transform_whose_probability_is_not_written_has_one_strength():
    node = {"_target_": "albumentations.ToGray"}
    assert at_strength([node]) == [node]
    with pytest.raises(InputError, match=r"^augmentation.strength=0.5 needs the p of albumentations.ToGray: write it "):
        at_strength([node], 0.5)
