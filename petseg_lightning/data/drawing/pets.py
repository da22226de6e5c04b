"""Cats and dogs in five poses.

A pet stands on y = 0 and is about 1 unit high; a head is painted in a frame of its own, in which half of its
width is 1.
"""

from collections.abc import Callable

import numpy as np

from petseg_lightning.data.drawing.breeds import WHITE, Breed, Coat
from petseg_lightning.data.drawing.pen import Pen, Pixels, chosen, ellipse, limb, spline, symmetric

COLLARS = ((206, 62, 62), (52, 110, 188), (48, 146, 110), (228, 168, 48), (142, 84, 160))

_INK, _PINK = (42, 36, 38), (236, 160, 158)

# ---- heads -------------------------------------------------------------------------------------------------

_CAT_SKULL = symmetric([(0, -0.8), (0.55, -0.7), (0.92, -0.2), (1.0, 0.32), (0.62, 0.7), (0.25, 0.84)])
_DOG_SKULL = symmetric([(0, -0.88), (0.55, -0.76), (0.84, -0.2), (0.72, 0.42), (0.5, 0.84), (0.2, 0.98)])
_EARS = {
    "pointed": np.array([(0.2, -0.62), (0.5, -1.05), (0.82, -1.42), (0.92, -1.0), (0.95, -0.2)]),
    "tall": spline([(0.16, -0.66), (0.34, -1.2), (0.68, -1.62), (0.88, -1.1), (0.84, -0.4), (0.5, -0.5)]),
    "floppy": spline([(0.4, -0.84), (0.8, -0.78), (1.14, -0.1), (1.1, 0.62), (0.86, 0.7), (0.72, 0.1)]),
}


def _draw_head(pen: Pen, coat: Coat, asleep: bool = False) -> None:
    breed, rng = coat.breed, coat.rng
    ears = [_EARS[breed.ears] * rng.uniform((0.96, 0.9), (1.04, 1.08)) * (side, 1) for side in (-1, 1)]
    if breed.ears != "floppy":
        for ear in ears:
            pen.paint(coat.fluffed(pen, ear, 0.5), coat.or_fur(breed.ear_colour), 0.3)
            base = np.array([0.62 * np.sign(ear[0, 0]), -0.62])
            pen.paint((ear - base) * 0.55 + base, _PINK if breed.is_cat else (150, 110, 98), 0.3)
    skull = pen.paint(coat.fluffed(pen, _CAT_SKULL if breed.is_cat else _DOG_SKULL, 0.7), coat.fur, 0.28)
    face = pen.at(*rng.uniform((-0.17, -0.08), (0.17, 0.08)))
    (_draw_cat_face if breed.is_cat else _draw_dog_face)(face, coat, skull)
    for side in (-1, 1):
        _draw_eye(face.at(0.4 * side, -0.06), breed, asleep)
    if breed.ears == "floppy":
        for ear in ears:
            pen.paint(coat.fluffed(pen, ear, 0.8), coat.or_fur(breed.ear_colour), 0.4)


def _draw_cat_face(face: Pen, coat: Coat, skull: Pixels) -> None:
    muzzle = coat.breed.muzzle
    if muzzle is not None:
        face.glaze(ellipse(0, 0.34, 0.5, 0.5), muzzle, 1.0, 0.22, clip=skull)
        face.paint([ellipse(0.2 * side, 0.4, 0.27, 0.21) for side in (-1, 1)], muzzle, 0.12)
    if coat.breed.pattern == "stripes":
        for x in (-0.26, 0, 0.26):
            face.paint(limb([(x, -0.85, 0.09), (0.7 * x, -0.4, 0.02)]), coat.breed.marks[0], clip=skull)
        for side in (-1, 1):
            for y in (0.12, 0.36):
                face.paint(limb([(side, y, 0.07), (0.64 * side, y, 0.02)]), coat.breed.marks[0], clip=skull)
    for side in (-1, 1):
        face.paint(limb([(0, 0.3, 0.028), (0.08 * side, 0.46, 0.028), (0.25 * side, 0.44, 0.02)]), _INK)
        for y in (0.3, 0.42):
            face.paint(limb([(0.4 * side, 0.36, 0.014), (1.02 * side, y, 0.008)]), WHITE)
    face.paint(spline([(-0.13, 0.17), (0.13, 0.17), (0, 0.32)]), (206, 116, 116), 0.2)


def _draw_dog_face(face: Pen, coat: Coat, skull: Pixels) -> None:
    breed = coat.breed
    if breed.muzzle == WHITE:
        face.paint(limb([(0, -0.95, 0.1), (0, -0.3, 0.12), (0, 0.3, 0.3)]), WHITE, clip=skull)
    if coat.rng.random() < 0.5:
        face.paint(limb([(0.03, 0.7, 0.15), (0.05, 1.0, 0.15)]), (226, 108, 120), 0.2)
    face.paint(coat.fluffed(face, ellipse(0, 0.46, 0.5, 0.4), 0.5), coat.or_fur(breed.muzzle), 0.22)
    for side in (-1, 1):
        face.paint(limb([(0, 0.4, 0.03), (0.1 * side, 0.66, 0.03), (0.3 * side, 0.64, 0.02)]), _INK)
    face.paint(symmetric([(0, 0.14), (0.17, 0.14), (0.2, 0.26), (0.06, 0.4)]), _INK, 0.2)
    face.paint(ellipse(-0.06, 0.2, 0.06, 0.03), (150, 140, 144))


def _draw_eye(pen: Pen, breed: Breed, asleep: bool) -> None:
    if asleep:
        pen.paint(limb([(-0.18, -0.02, 0.025), (0, 0.08, 0.035), (0.18, -0.02, 0.025)]), _INK)
    elif breed.is_cat:
        pen.paint(ellipse(0, 0, 0.22, 0.23), _INK)
        pen.paint(ellipse(0, 0, 0.19, 0.2), breed.eyes)
        pen.paint(ellipse(0, 0, 0.09, 0.18), (24, 22, 26))
        pen.paint(ellipse(-0.07, -0.08, 0.05, 0.05), WHITE)
    else:
        pen.paint(ellipse(0, -0.04, 0.16, 0.17), (28, 22, 22))
        pen.paint(ellipse(0.01, -0.02, 0.12, 0.12), breed.eyes)
        pen.paint(ellipse(0.01, -0.02, 0.07, 0.07), (20, 16, 18))
        pen.paint(ellipse(-0.05, -0.1, 0.045, 0.045), WHITE)


# ---- bodies ------------------------------------------------------------------------------------------------


def _draw_leg(pen: Pen, coat: Coat, hip: tuple[float, float], foot: tuple[float, float], far: bool) -> None:
    """A leg with its paw, in the coat's paw colour as far up as a sock."""
    fur = coat.far_fur if far else coat.fur
    knee = ((hip[0] + foot[0]) / 2 - 0.02, (hip[1] + foot[1]) / 2)
    shape = limb([(*hip, 0.085), (*knee, 0.062), (*foot, 0.048)])
    leg = pen.paint(shape, fur, 0.3)
    sock = np.multiply(fur if coat.breed.paws is None else coat.breed.paws, 0.8 if far else 1.0)
    pen.paint(ellipse(*foot, 0.1, 0.1), sock, 0.2, clip=leg)
    pen.paint(ellipse(foot[0] + 0.02, foot[1] + 0.02, 0.075, 0.042), sock, 0.3)


def _draw_tail(pen: Pen, coat: Coat, root: tuple[float, float], lift: float) -> None:
    """A tail that leaves `root` to the left and rises by `lift` (heights of the pet)."""
    x, y = root
    curl = coat.rng.uniform(-0.1, 0.12)
    widths = {
        "thin": (0.045, 0.04, 0.034, 0.028),
        "bushy": (0.05, 0.085, 0.08, 0.03),
        "plume": (0.05, 0.1, 0.12, 0.04),
    }
    path = [(x, y), (x - 0.17, y - 0.1 * lift), (x - 0.24, y - 0.6 * lift), (x - 0.16 + curl, y - lift)]
    joints = [(*point, width) for point, width in zip(path, widths[coat.breed.tail], strict=True)]
    pen.paint(coat.fluffed(pen, limb(joints), 1.2), coat.or_fur(coat.breed.tail_colour), 0.3)


def _draw_collar(pen: Pen, coat: Coat, joints: list[tuple[float, float, float]]) -> None:
    if coat.rng.random() < 0.45:
        pen.paint(limb(joints), chosen(coat.rng, COLLARS), 0.3)
        x, y, radius = joints[1]
        pen.paint(ellipse(x, y + 1.8 * radius, 1.3 * radius, 1.3 * radius), (236, 196, 84), 0.3)


def _sit(pen: Pen, coat: Coat) -> None:
    rng, breed = coat.rng, coat.breed
    _draw_tail(pen, coat, (-0.18, -0.07), rng.uniform(0.1, 0.45))
    body = symmetric([(0, -0.74), (0.15, -0.68), (0.2, -0.45), (0.3, -0.2), (0.3, -0.03), (0.12, 0)])
    torso = pen.paint(coat.fluffed(pen, body), coat.fur, 0.3)
    for side in (-1, 1):
        pen.paint(coat.fluffed(pen, ellipse(0.22 * side, -0.13, 0.125, 0.145), 0.5), coat.fur, 0.3)
        pen.paint(ellipse(0.25 * side, -0.005, 0.11, 0.042), coat.or_fur(breed.paws), 0.3)
    if breed.chest is not None:
        chest = symmetric([(0, -0.7), (0.12, -0.58), (0.12, -0.4), (0.03, -0.2)])
        pen.paint(coat.fluffed(pen, chest), breed.chest, 0.15, clip=torso)
    for side in (-1, 1):
        _draw_leg(pen, coat, (0.1 * side, -0.4), (0.085 * side, -0.01), far=False)
    _draw_collar(pen, coat, [(-0.15, -0.62, 0.024), (0, -0.57, 0.026), (0.15, -0.62, 0.024)])
    _draw_head(pen.at(rng.uniform(-0.04, 0.04), -0.8, 0.245, rng.normal(0, 0.12)), coat)


def _stand(pen: Pen, coat: Coat) -> None:
    rng, breed = coat.rng, coat.breed
    hips = 0.28 * breed.leg - 0.28
    step = rng.uniform(-0.09, 0.09)
    upper = pen.at(0, -hips)
    _draw_tail(upper, coat, (-0.38, -0.52), rng.uniform(-0.15, 0.4))
    for x, forward in ((-0.28, step), (0.26, -step)):
        _draw_leg(pen, coat, (x, -0.36 - hips), (x + 0.06 + forward, -0.035), far=True)
    body = spline(
        [(-0.44, -0.5), (-0.3, -0.62), (0, -0.59), (0.28, -0.68), (0.44, -0.6), (0.42, -0.38), (0.2, -0.27),
         (-0.1, -0.31), (-0.36, -0.3)]
    )  # fmt: skip
    torso = upper.paint(coat.fluffed(pen, body), coat.fur, 0.3)
    if breed.chest is not None:
        upper.paint(coat.fluffed(pen, ellipse(0.4, -0.46, 0.1, 0.16)), breed.chest, 0.15, clip=torso)
    for x, forward in ((-0.33, -step), (0.3, step)):
        _draw_leg(pen, coat, (x, -0.36 - hips), (x + forward, -0.01), far=False)
    neck = coat.fluffed(pen, limb([(0.28, -0.52, 0.16), (0.42, -0.7, 0.13)]))
    upper.paint(neck, coat.fur, 0.15)
    _draw_collar(upper, coat, [(0.27, -0.66, 0.022), (0.41, -0.6, 0.024), (0.5, -0.62, 0.022)])
    _draw_head(upper.at(0.46, -0.82, 0.215, rng.normal(0.05, 0.12)), coat)


def _lie(pen: Pen, coat: Coat) -> None:
    rng, breed = coat.rng, coat.breed
    _draw_tail(pen, coat, (-0.42, -0.06), rng.uniform(0, 0.25))
    _draw_leg(pen, coat, (0.28, -0.1), (0.6, -0.05), far=True)
    body = spline(
        [(-0.52, -0.16), (-0.36, -0.34), (-0.05, -0.33), (0.22, -0.42), (0.42, -0.36), (0.44, -0.1), (0.3, 0),
         (-0.3, 0.01), (-0.5, -0.03)]
    )  # fmt: skip
    torso = pen.paint(coat.fluffed(pen, body), coat.fur, 0.3)
    if breed.chest is not None:
        pen.paint(coat.fluffed(pen, ellipse(0.4, -0.2, 0.11, 0.15)), breed.chest, 0.15, clip=torso)
    pen.paint(coat.fluffed(pen, ellipse(-0.3, -0.14, 0.18, 0.155), 0.6), coat.fur, 0.3)
    pen.paint(ellipse(-0.2, -0.005, 0.13, 0.04), coat.or_fur(breed.paws), 0.3)
    _draw_leg(pen, coat, (0.24, -0.1), (0.54, -0.01), far=False)
    _draw_collar(pen, coat, [(0.24, -0.4, 0.022), (0.38, -0.31, 0.024), (0.5, -0.38, 0.022)])
    _draw_head(pen.at(0.4, -0.5, 0.225, rng.normal(0.05, 0.14)), coat)


def _sleep(pen: Pen, coat: Coat) -> None:
    rng = coat.rng
    pen.paint(coat.fluffed(pen, ellipse(0, -0.24, 0.48, 0.27)), coat.fur, 0.32)
    pen.paint(coat.fluffed(pen, ellipse(-0.2, -0.2, 0.24, 0.19), 0.6), coat.fur, 0.28)
    _draw_head(pen.at(0.26, -0.22, 0.215, rng.normal(0.35, 0.12)), coat, asleep=True)
    width = 0.045 if coat.breed.tail == "thin" else 0.075
    tail = limb([(-0.44, -0.14, width), (-0.25, -0.03, width), (0.02, -0.015, width), (0.2, -0.03, 0.6 * width)])
    pen.paint(coat.fluffed(pen, tail), coat.or_fur(coat.breed.tail_colour), 0.32)


def _portrait(pen: Pen, coat: Coat) -> None:
    rng, breed = coat.rng, coat.breed
    shoulders = symmetric([(0, -0.5), (0.24, -0.46), (0.42, -0.2), (0.5, 0.2), (0.5, 0.7), (0.2, 0.8)])
    torso = pen.paint(coat.fluffed(pen, shoulders), coat.fur, 0.3)
    if breed.chest is not None:
        chest = symmetric([(0, -0.4), (0.2, -0.25), (0.2, 0.1), (0.08, 0.5)])
        pen.paint(coat.fluffed(pen, chest), breed.chest, 0.15, clip=torso)
    _draw_collar(pen, coat, [(-0.28, -0.3, 0.035), (0, -0.2, 0.04), (0.28, -0.3, 0.035)])
    _draw_head(pen.at(0, -0.6, 0.36, rng.normal(0, 0.14)), coat)


POSES: dict[str, Callable[[Pen, Coat], None]] = {
    "sitting": _sit,
    "standing": _stand,
    "lying": _lie,
    "sleeping": _sleep,
    "portrait": _portrait,
}
