"""How far from the true boundaries the wrong pixels are."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BoundaryLoss(nn.Module):
    """Probability at the wrong place times its distance to the class's true boundary, mean over pixels.

    Kervadec et al. 2019, https://arxiv.org/abs/1812.07032, for each class: the sum of phi * (s - g), with the
    probability s, the truth g and the signed distance phi, negative inside. The paper drops the constant phi * g;
    with it a perfect prediction costs 0. Distances are in lengths of the picture's longer side, so that the loss
    does not depend on the resolution.

    It says nothing about a class that a picture does not have or that fills it, and little about pixels at a boundary:
    add a loss of regions, as the paper does.

    Distances are computed by OpenCV on the CPU: masks on a GPU are copied to the host at each call.

    Args:
        ignore_index: value in the masks that does not count; such pixels are no part of any boundary.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mean over the pixels that are not ignored of the sum over classes, in float32; 0 where no pixel counts.

        Args:
            logits: float (B, K, H, W).
            masks: int64 (B, H, W), 0..K-1 or `ignore_index`.

        Returns:
            Scalar >= 0.
        """
        num_classes, valid = logits.shape[1], masks != self.ignore_index
        distances = signed_distances(masks.cpu().numpy(), num_classes, self.ignore_index)
        phi = torch.from_numpy(distances).to(logits.device) / max(masks.shape[1:])  # (B, K, H, W)
        truth = F.one_hot(masks.where(valid, 0), num_classes).movedim(-1, 1)  # (B, K, H, W)
        return (phi * (logits.float().softmax(1) - truth)).sum() / valid.sum().clamp(min=1)


def signed_distances(masks: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Distance of each pixel's centre to the boundary of each class in its picture, negative inside of the class.

    The boundary runs half-way between the pixels of the class and those of other classes.

    Args:
        masks: whole numbers (B, H, W), 0..num_classes-1 or `ignore_index`.

    Returns:
        float32 (B, num_classes, H, W), in pixels; 0 where the pixel is ignored, and where the picture has no such
        class or no other one.
    """
    distances = np.zeros((len(masks), num_classes, *masks.shape[1:]), np.float32)
    for mask, of_classes in zip(masks, distances, strict=True):
        valid = mask != ignore_index
        for label in np.unique(mask[valid]):
            inside = mask == label
            outside = valid & ~inside
            if outside.any():
                of_classes[label] = (_to(inside) - 0.5) * outside - (_to(outside) - 0.5) * inside
    return distances


def _to(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one of a region, in pixels."""
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
