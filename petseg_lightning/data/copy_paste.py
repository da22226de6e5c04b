"""Pets of other training pictures, pasted."""

from typing import Any

import cv2
import numpy as np

from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import A


class CopyPaste(A.DualTransform):
    """The pet of another picture pasted onto this one (Ghiasi et al., "Simple Copy-Paste", CVPR 2021).

    Pasted is all of the other picture that is neither part 0, the background, nor ignored: a pet with its border. It
    is scaled, flipped half of the time, put anywhere, yet inside the picture where it fits, and hides what was there.
    The other picture is any of `pictures` but that of `index`, which `Augmentation` hands over.

    Args:
        scale: from and to which factor of its own size.
        p: how often.
    """

    def __init__(self, scale: tuple[float, float], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.scale = scale

    @property
    def targets_as_params(self) -> list[str]:
        return ["pictures", "index"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The other picture, moved, uint8 (H,W,3), and its parts, uint8 (H,W), with 0 where nothing is pasted."""
        rng, pictures = self.random_generator, data["pictures"]
        other = (data["index"] + 1 + rng.integers(max(len(pictures) - 1, 1))) % len(pictures)
        image, parts = pictures[other]
        pet = np.where(parts == IGNORE, 0, parts).astype(np.uint8)
        height, width = pet.shape
        x, y, w, h = cv2.boundingRect(pet)
        scale, flip = rng.uniform(*self.scale), rng.random() < 0.5
        left, top = rng.random(2) * (width - scale * w, height - scale * h)  # below 0 where it does not fit
        x_scale, x_origin = (-scale, x + w - 1) if flip else (scale, x)
        # to whole pixels, so that a pet of its own size keeps its own pixels
        matrix = np.array([[x_scale, 0, np.rint(left - x_scale * x_origin)], [0, scale, np.rint(top - scale * y)]])
        return {
            "pasted_image": cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR),
            "pasted_parts": cv2.warpAffine(pet, matrix, (width, height), flags=cv2.INTER_NEAREST),
        }

    def apply(self, img: np.ndarray, pasted_image: np.ndarray, pasted_parts: np.ndarray, **_: Any) -> np.ndarray:
        return np.where(pasted_parts[..., None] > 0, pasted_image, img)

    def apply_to_mask(self, mask: np.ndarray, pasted_parts: np.ndarray, **_: Any) -> np.ndarray:
        return np.where(pasted_parts > 0, pasted_parts, mask)
