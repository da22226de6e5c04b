"""Augmentation on the CPU, with albumentations."""

import random
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from petseg_lightning.data.cache import Pictures
from petseg_lightning.errors import InputError

with warnings.catch_warnings(action="ignore"):  # a library that it imports wants yet another one in notebooks
    import albumentations as A

cv2.setNumThreads(1)  # the workers of a loader are its threads; OpenCV's own in each of them are too many


class Augmentation:
    """A pipeline of albumentations transforms whose draw depends on (seed, epoch, index) alone.

    So neither the number of workers nor the order of the pictures changes what a picture becomes. Geometry
    moves picture and mask together; masks are resampled nearest.
    """

    def __init__(self, transforms: Sequence[Any], seed: int) -> None:
        self.seed = seed
        self.pipeline = A.Compose(list(transforms), mask_interpolation=cv2.INTER_NEAREST, save_applied_params=False)
        _keep_resized_masks_in_place(self.pipeline)

    def __call__(
        self, image: np.ndarray, parts: np.ndarray, epoch: int, index: int, pictures: Pictures | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) and parts uint8 (H,W), number `index` of `pictures`, to the same, augmented."""
        generator = np.random.default_rng([self.seed, epoch, index])
        # one state for all: set_random_seed would seed every transform alike, and so correlate what they draw
        self.pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        try:
            augmented = self.pipeline(image=image, mask=parts, index=index, pictures=pictures)
        except (InputError, OSError):  # of the picture that is pasted
            raise
        except Exception as error:
            raise InputError(f"augmentation.transforms do not fit the pictures: {error}") from error
        if np.shape(augmented["image"]) != image.shape or np.shape(augmented["mask"]) != parts.shape:
            shape = "x".join(map(str, np.shape(augmented["image"])))
            raise InputError(f"augmentation.transforms make {shape} of a picture, which must stay as large as it was")
        return augmented["image"], augmented["mask"]


def _keep_resized_masks_in_place(transforms: Iterable[Any]) -> None:
    """INTER_NEAREST moves what it enlarges by up to half a pixel; its exact form is for resizing alone."""
    for transform in transforms:
        if isinstance(transform, A.BaseCompose):
            _keep_resized_masks_in_place(transform)
        elif isinstance(transform, A.RandomResizedCrop | A.RandomSizedCrop | A.Resize):
            transform.mask_interpolation = cv2.INTER_NEAREST_EXACT
