"""What can be measured of one image about why its segmentation fails (PAPER.md 22)."""

import cv2
import numpy as np

from petseg_lightning.metrics.confusion import IGNORE

NEAR_BOUNDARY = 3  # pixels


def edge_contrast(image: np.ndarray, foreground: np.ndarray, window: int = 9) -> float:
    """How much the two sides of the foreground's outline differ in colour.

    At each pixel of the outline, the distance in CIELAB between the mean colours of foreground and background
    in a window around it; the mean over the outline, divided by 100 (black to white).

    Args:
        image: RGB uint8 (H,W,3).
        foreground: bool (H,W).
        window: side of the window, in pixels.

    Returns:
        0 or more, 1 for black against white; NaN where there is no outline.
    """
    outline = _boundary(foreground)
    if not outline.any():
        return float("nan")
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    means = []
    for side in (foreground, ~foreground):
        weight = side.astype(np.float32)
        near = cv2.blur(weight, (window, window))
        means.append(cv2.blur(lab * weight[..., None], (window, window)) / np.maximum(near, 1e-6)[..., None])
    return float(np.linalg.norm(means[0] - means[1], axis=-1)[outline].mean() / 100)


def boundary_error_share(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The share of the wrong pixels that lie within 3 pixels of a boundary between true labels, 255 included.

    Args:
        truth: integer (H,W), 0..K-1 or 255 (ignored).
        prediction: integer (H,W), 0..K-1.

    Returns:
        0..1; NaN where nothing is wrong.
    """
    wrong = (truth != prediction) & (truth != IGNORE)
    if not wrong.any():
        return float("nan")
    boundary = _boundary(truth)
    if not boundary.any():
        return 0.0
    distance = cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[wrong] <= NEAR_BOUNDARY).mean())


def _boundary(labels: np.ndarray) -> np.ndarray:
    """Pixels that differ from a 4-neighbour: bool (H,W)."""
    boundary = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels.astype(np.int16), axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        boundary[tuple(before)] |= differs
        boundary[tuple(after)] |= differs
    return boundary
