"""One annotated picture: where it is, and how its files become arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from petseg_lightning.data.picture_file import read_image, read_mask
from petseg_lightning.errors import InputError

_INVALID = 254


@dataclass(frozen=True)
class MaskCode:
    """How a mask file says which part a pixel belongs to.

    `values[i]`, 0..65535 (or, with a palette, an RGB colour), stands for part `parts[i]`; a part of 255 is
    ignored. Any other value in a file is an error.
    """

    values: tuple[int, ...] | tuple[tuple[int, int, int], ...]
    parts: tuple[int, ...]

    @property
    def is_palette(self) -> bool:
        return not isinstance(self.values[0], int)

    @cached_property
    def lookup(self) -> np.ndarray:  # (65536,) uint8
        table = np.full(2**16, _INVALID, np.uint8)
        table[np.array(self.values)] = self.parts
        return table

    def decode(self, mask: Image.Image, path: Path) -> np.ndarray:
        """Parts, uint8 (H,W), of an opened mask. Raises InputError naming a value that has no meaning."""
        if self.is_palette:
            pixels = np.asarray(mask.convert("RGB"))
            parts = np.full(pixels.shape[:2], _INVALID, np.uint8)
            for colour, part in zip(self.values, self.parts, strict=True):
                parts[(pixels == colour).all(-1)] = part
        else:
            pixels = np.asarray(mask)
            if pixels.ndim != 2 or pixels.dtype.kind == "f":
                raise InputError(
                    f"{path}: a mask has one channel of class values, this one is {mask.mode}; "
                    "save it as greyscale or palette PNG, or give data.palette"
                )
            parts = self.lookup[pixels.clip(0, 2**16 - 1).astype(np.uint16)]
            if pixels.dtype.itemsize > 2:  # of 32 bits
                parts[(pixels < 0) | (pixels >= 2**16)] = _INVALID
        if (parts == _INVALID).any():
            found = pixels[parts == _INVALID][0].tolist()
            raise InputError(
                f"{path}: the mask holds {tuple(found) if self.is_palette else found}, but its values are "
                f"{', '.join(map(str, self.values))}; repair or remove the file"
            )
        return parts


@dataclass(frozen=True)
class Sample:
    """A picture and its mask. `species` is cat, dog or empty; `breed` may be empty."""

    name: str
    image: Path
    mask: Path
    code: MaskCode
    breed: str = ""
    species: str = ""


def read_parts(sample: Sample) -> np.ndarray:
    """The mask of a sample in parts, uint8 (H,W), at its own resolution."""
    return sample.code.decode(read_mask(sample.mask), sample.mask)


def read_resized(sample: Sample, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A sample squeezed to a square: image uint8 (size,size,3), bilinear; parts uint8 (size,size), nearest.

    Raises InputError where a file cannot be read or the mask has another size than its picture.
    """
    image, parts = read_image(sample.image), read_parts(sample)
    if image.size != parts.shape[::-1]:
        raise InputError(
            f"{sample.mask}: the mask is {parts.shape[1]}x{parts.shape[0]} pixels and its picture "
            f"{image.width}x{image.height}; they must be of one size"
        )
    return (
        squeezed(image, size),
        np.asarray(Image.fromarray(parts).resize((size, size), Image.Resampling.NEAREST)),
    )


def squeezed(image: Image.Image, size: int) -> np.ndarray:
    """A picture as networks take it, uint8 (size,size,3), bilinear: whatever its shape was, it is a square then."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def require_files(samples: Sequence[Sample]) -> None:
    """Raise InputError naming the listed files that do not exist."""
    missing = (path for sample in samples for path in (sample.image, sample.mask) if not path.is_file())
    if first := list(islice(missing, 3)):
        others = sum(1 for _ in missing)
        more = f" and {others} more" if others else ""
        raise InputError(
            f"listed but missing: {', '.join(map(str, first))}{more}; restore them, or leave their pictures out"
        )
