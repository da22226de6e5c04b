"""What the classes are: parts of a picture as annotated, and the ways of merging them into classes.

Every mask is kept in *parts*, the finest division that the annotation knows. A `Target` merges parts into
classes, so one stored mask, and one table of counts (parts x predicted classes), serves every way of scoring.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from petseg_lightning.errors import InputError
from petseg_lightning.metrics.confusion import IGNORE

PET_PARTS = ("background", "cat", "cat border", "dog", "dog border")


@dataclass(frozen=True)
class Target:
    """Classes, and the class of each part (255: ignored)."""

    name: str
    label: str
    class_names: tuple[str, ...]
    part_names: tuple[str, ...]
    part_to_class: tuple[int, ...]


@dataclass(frozen=True)
class Protocol:
    """A target to score against, and the target's class for each class of the model."""

    target: Target
    columns: tuple[int, ...]


def pet_target(target: str, border: str | None = None) -> Target:
    """The pet data's target: `trimap`, or `species` / `binary` with the border as given (None: pet).

    Raises InputError for an unknown reading, and for a border given to `trimap`, where it is a class.
    """
    if target == "trimap":
        if border is not None:
            raise InputError(
                f"data.border={border}: in data.target=trimap the border is a class of its own; "
                "leave data.border out, or use data.target=binary"
            )
        names = ("pet", "background", "border")
        return Target("trimap", " / ".join(names), names, PET_PARTS, (1, 0, 2, 0, 2))
    border = border or "pet"
    class_names = {"species": ("background", "cat", "dog"), "binary": ("background", "pet")}.get(target)
    if class_names is None or border not in ("pet", "background", "ignore"):
        raise InputError(
            f"data.target={target} data.border={border}: the target is trimap, species or binary; "
            "the border is pet, background or ignore"
        )
    cat, dog = (1, 2) if target == "species" else (1, 1)
    cat_border, dog_border = {"pet": (cat, dog), "background": (0, 0), "ignore": (IGNORE, IGNORE)}[border]
    return Target(
        f"{target}_border_{border}",
        f"{' / '.join(class_names)}, border {'ignored' if border == 'ignore' else f'as {border}'}",
        class_names,
        PET_PARTS,
        (0, cat, cat_border, dog, dog_border),
    )


def own_target(class_names: Sequence[str]) -> Target:
    """The target of data whose masks hold the classes themselves."""
    names = tuple(class_names)
    return Target("own", " / ".join(names), names, names, tuple(range(len(names))))


PET_TARGETS = (
    pet_target("trimap"),
    *(pet_target(reading, border) for reading in ("species", "binary") for border in ("pet", "background", "ignore")),
)


def protocols_for(class_names: Sequence[str], part_names: Sequence[str]) -> list[Protocol]:
    """Every protocol that a model's classes can be merged into, on data with these parts.

    A class that a protocol does not know is merged: cat and dog into pet; a predicted border into the
    background where the protocol counts the true border so, else into pet. A protocol with a class that the
    model can never predict is left out.

    Raises InputError where no protocol is left: the model's classes are not those of the data.
    """
    targets = PET_TARGETS if tuple(part_names) == PET_PARTS else (own_target(part_names),)
    protocols = []
    for target in targets:
        border = "background" if target.name.endswith("border_background") else "pet"
        merged = {"cat": "pet", "dog": "pet", "border": border}
        names = [name if name in target.class_names else merged.get(name) for name in class_names]
        if set(names) == set(target.class_names):
            protocols.append(Protocol(target, tuple(target.class_names.index(str(name)) for name in names)))
    if not protocols:
        raise InputError(
            f"the checkpoint predicts {', '.join(class_names)}, but the data has {', '.join(part_names)}: "
            "use the checkpoint with data of its own classes"
        )
    return protocols
