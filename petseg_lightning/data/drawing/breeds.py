"""Eight breeds, and the coats of their animals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg_lightning.data.drawing.pen import Pen, Pixels, Shape, blended, fluffed, noise

Colour = tuple[int, int, int]

WHITE, CREAM = (247, 243, 236), (236, 219, 192)


@dataclass(frozen=True)
class Breed:
    """How the pets of one breed look. A colour of None is the coat's own.

    Attributes:
        name: as in file names; like those of Oxford-IIIT Pet, a cat's starts with a capital.
        coat: main colour.
        pattern: stripes, spots, patches, saddle or plain, in the colours `marks`.
        ears: pointed, tall or floppy.
        tail: thin, bushy or plume.
        leg: length of the legs as a share of the usual one.
        fluff: length of the tufts along the outline, in heights of the pet.
    """

    name: str
    coat: Colour
    pattern: str = "plain"
    marks: tuple[Colour, ...] = ()
    ears: str = "pointed"
    tail: str = "thin"
    leg: float = 1.0
    fluff: float = 0.0
    ear_colour: Colour | None = None
    muzzle: Colour | None = None
    chest: Colour | None = None
    paws: Colour | None = None
    tail_colour: Colour | None = None
    eyes: Colour = (70, 44, 30)

    @property
    def is_cat(self) -> bool:
        """Whether it is a cat, else a dog."""
        return self.name[0].isupper()


BREEDS = (
    Breed(
        "Calico", WHITE, "patches", ((222, 138, 62), (62, 52, 50)),
        ear_colour=(206, 124, 58), muzzle=WHITE, paws=WHITE, eyes=(150, 164, 62),
    ),
    Breed("golden_fluff", (222, 170, 100), ears="floppy", tail="plume", fluff=0.035,
          ear_colour=(188, 130, 66), muzzle=(240, 206, 150), chest=(244, 216, 168)),
    Breed("Mackerel_Tabby", (176, 138, 98), "stripes", ((98, 70, 48),), muzzle=CREAM, chest=CREAM,
          eyes=(122, 164, 74)),
    Breed("saddle_shepherd", (196, 144, 88), "saddle", ((62, 52, 46),), ears="tall", tail="bushy",
          fluff=0.016, ear_colour=(92, 70, 54), muzzle=(74, 60, 52), chest=(226, 188, 138)),
    Breed("Siamese_Blue", (228, 220, 208), ear_colour=(106, 108, 124), muzzle=(122, 124, 140),
          paws=(116, 118, 134), tail_colour=(106, 108, 124), eyes=(82, 150, 214)),
    Breed("spotted_hound", (240, 236, 228), "spots", ((66, 52, 46),), ears="floppy",
          ear_colour=(88, 62, 48), muzzle=WHITE),
    Breed("stumpy_corgi", (220, 142, 72), ears="tall", tail="bushy", leg=0.45, fluff=0.012,
          muzzle=WHITE, chest=WHITE, paws=WHITE),
    Breed("Tuxedo", (58, 56, 64), muzzle=WHITE, chest=WHITE, paws=WHITE, eyes=(206, 186, 66)),
)  # fmt: skip


@dataclass(frozen=True)
class Coat:
    """One animal's colours.

    Attributes:
        breed: whose coat it is.
        fur: texture (H, W, 3) of the canvas's size.
        far_fur: the same, darker, for what lies behind.
        colour: its main colour, RGB.
        unit: pixels per height of the pet.
        rng: draws the tufts and the animal's manner.
    """

    breed: Breed
    fur: Pixels
    far_fur: Pixels
    colour: NDArray[np.float64]
    unit: float
    rng: np.random.Generator

    def fluffed(self, pen: Pen, shape: Shape, length: float = 1.0) -> Shape:
        """The shape, given in the pen's units, with `length` times the breed's tufts."""
        tuft = length * self.breed.fluff * self.unit / pen.scale
        return fluffed(shape, tuft, 1.7 * tuft, self.rng) if tuft else shape

    def or_fur(self, colour: Colour | None) -> Colour | Pixels:
        """The colour, or the fur where the breed has none of its own."""
        return self.fur if colour is None else colour


def make_coat(pen: Pen, breed: Breed, rng: np.random.Generator) -> Coat:
    """One animal's colours: those of its breed, a little lighter, warmer or denser than the next one's."""
    x, y = pen.coordinates()
    tint = rng.normal(0, 3, 3) + rng.normal(0, 9)
    wobble = noise(rng, x.shape, 0.25 * pen.scale, octaves=2)
    colour = np.clip(np.add(breed.coat, tint), 0, 255)
    fur = np.broadcast_to(colour, (*x.shape, 3))
    for index, mark in enumerate(breed.marks):
        if breed.pattern == "stripes":
            level = 2.5 * (np.sin((x + 0.25 * y + 0.07 * wobble) * 2 * np.pi / 0.13) - 0.1)
        elif breed.pattern == "spots":
            level = 12 * (noise(rng, x.shape, 0.075 * pen.scale) - 0.28)
        elif breed.pattern == "patches":
            level = 14 * (noise(rng, x.shape, 0.3 * pen.scale, octaves=2) - 0.08 - 0.14 * index)
        else:
            level = 9 * (-0.42 - y + 0.12 * wobble)
        fur = blended(fur, np.clip(np.add(mark, tint), 0, 255), np.clip(0.5 + level, 0, 1))
    grain = 0.05 * noise(rng, x.shape, 0.03 * pen.scale) + 0.035 * wobble
    fur = np.clip(fur * (1 + grain[..., None]), 0, 255)
    return Coat(breed, fur.astype(np.uint8), (fur * 0.76).astype(np.uint8), colour, pen.scale, rng)
