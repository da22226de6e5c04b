"""Pictures at the model's size: decoded once, on disk or in memory, or at every access."""

from typing import Protocol

import numpy as np

from petseg_lightning.data.parallel import in_threads
from petseg_lightning.data.picture_file import picture_size
from petseg_lightning.data.sample_table import Samples
from petseg_lightning.data.samples import read_resized


class Arrays(Protocol):
    """Decoded pictures: images uint8 (N,S,S,3), parts uint8 (N,S,S)."""

    images: np.ndarray
    parts: np.ndarray


class Pictures:
    """`pictures[i]` is (image uint8 (S,S,3), parts uint8 (S,S)) of sample i, for S = image_size.

    Args:
        samples: N of them.
        image_size: S, in pixels.
        arrays: where they are decoded already; None: the files are read at every access.
        rows: of each sample in the arrays, integers (N,).
    """

    def __init__(
        self, samples: Samples, image_size: int, arrays: Arrays | None = None, rows: np.ndarray | None = None
    ) -> None:
        self.samples, self.image_size, self.arrays, self.rows = samples, image_size, arrays, rows

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Raises InputError for a file that cannot be used, where it was not decoded before."""
        if self.arrays is None or self.rows is None:
            return read_resized(self.samples[index], self.image_size)
        row = self.rows[index]
        return self.arrays.images[row], self.arrays.parts[row]


def require_heads(samples: Samples) -> None:
    """Raise InputError for a file whose head says that it cannot be used; the pixels are not decoded."""

    def look(index: int) -> None:
        picture_size(samples[index].image)
        picture_size(samples[index].mask)

    in_threads(look, len(samples), "Looking at the heads of the files")


class MemoryArrays:
    """Every picture of `samples` once, decoded at once into memory that forked workers share.

    Raises InputError for the first file that cannot be used.
    """

    def __init__(self, samples: Samples, image_size: int) -> None:
        self.images = np.empty((len(samples), image_size, image_size, 3), np.uint8)
        self.parts = np.empty(self.images.shape[:3], np.uint8)

        def read(index: int) -> None:
            self.images[index], self.parts[index] = read_resized(samples[index], image_size)

        in_threads(read, len(samples), f"Decoding pictures to {image_size} x {image_size}")
