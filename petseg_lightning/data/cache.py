"""Pictures at the model's size: decoded once and kept, or decoded at every access."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from petseg_lightning.data.samples import Sample, read_resized

log = logging.getLogger(__name__)


class Pictures:
    """`pictures[i]` is (image uint8 (S,S,3), parts uint8 (S,S)) of sample i, for S = image_size.

    `in_memory` decodes everything at once, in threads, into two arrays that forked workers share.
    Raises InputError for a file that cannot be used, in_memory for the first of all, else when it is met.
    """

    def __init__(self, samples: Sequence[Sample], image_size: int, *, in_memory: bool) -> None:
        self.samples, self.image_size = samples, image_size
        self._arrays = self._read_all() if in_memory else None

    def _read_all(self) -> tuple[np.ndarray, np.ndarray]:
        log.info("Decoding %s pictures to %d x %d", f"{len(self):,}", self.image_size, self.image_size)
        images = np.empty((len(self), self.image_size, self.image_size, 3), np.uint8)
        parts = np.empty(images.shape[:3], np.uint8)

        def read(index: int) -> None:
            images[index], parts[index] = read_resized(self.samples[index], self.image_size)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, range(len(self))))
        return images, parts

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._arrays is None:
            return read_resized(self.samples[index], self.image_size)
        images, parts = self._arrays
        return images[index], parts[index]
