"""How well the outline of each class is met: boundary F-score and Boundary IoU, from counts of pixels.

Two label maps are compared, one class at a time. Where the truth is ignored (255) so is the prediction: such a pixel
lies on no outline, is in no band, and makes no outline or band beside it. Where all of a contour is ignored, as with
pets whose border is not scored, there is nothing to meet.
"""

import math

import cv2
import numpy as np
from torch import Tensor

from petseg_lightning.metrics.confusion import IGNORE

TOLERANCE = 0.008  # of the diagonal, as in DAVIS (Perazzi et al. 2016)
BAND = 0.02  # of the diagonal, as in Cheng et al. 2021
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def tolerance_pixels(height: int, width: int, tolerance: float = TOLERANCE) -> int:
    """A share of an image's diagonal in pixels, rounded up."""
    return math.ceil(tolerance * math.hypot(height, width))


def band_pixels(height: int, width: int, band: float = BAND) -> int:
    """A share of an image's diagonal in pixels, rounded, at least 1."""
    return max(1, round(band * math.hypot(height, width)))


def boundary_counts(
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    *,
    tolerance: float = TOLERANCE,
    band: float = BAND,
) -> np.ndarray:
    """Of one image and each class, the pixels on the outlines and in the bands along them.

    Outline: the pixels of the class with a 4-neighbour of another class. The edge of the image is no outline, and one
    pixel matches another within the tolerance, in Euclidean distance (Csurka, Larlus, Perronnin, "What is a good
    evaluation measure for semantic segmentation?", BMVC 2013; Perazzi et al., "A benchmark dataset and evaluation
    methodology for video object segmentation", CVPR 2016).

    Band: the pixels of the class with one of another class at most so many rows and columns away. What lies outside
    the image is of another class (Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU", CVPR 2021, and their code).

    Args:
        truth: integer (H,W), 0..K-1 or 255 (ignored).
        prediction: integer (H,W), 0..K-1.
        num_classes: K, at most 255.
        tolerance: share of the diagonal, see `tolerance_pixels`.
        band: share of the diagonal, see `band_pixels`.

    Returns:
        int64 (K,6): pixels on the true outline, of these matched by the predicted one; pixels on the predicted
        outline, of these matched by the true one; pixels in both bands, in either.
    """
    ignored = truth == IGNORE
    maps = [np.where(ignored, IGNORE, labels).astype(np.uint8) for labels in (truth, prediction)]
    outlines = [_outlines(labels) for labels in maps]
    height, width = truth.shape
    disc = _disc(tolerance_pixels(height, width, tolerance))
    square = np.ones([2 * band_pixels(height, width, band) + 1] * 2, np.uint8)
    counts = np.zeros((num_classes, 6), np.int64)
    for label in range(num_classes):
        masks = [labels == label for labels in maps]
        true, predicted = (mask & outline for mask, outline in zip(masks, outlines, strict=True))
        true_band, predicted_band = (_band(mask, ignored, square) for mask in masks)
        pixels = (
            *(true, true & _dilated(predicted, disc)),
            *(predicted, predicted & _dilated(true, disc)),
            *(true_band & predicted_band, true_band | predicted_band),
        )
        counts[label] = [np.count_nonzero(one) for one in pixels]
    return counts


def boundary_scores(counts: Tensor) -> dict[str, Tensor]:
    """Boundary F-score and Boundary IoU of one table of counts, or of many at once; all lie in 0..1.

    Precision and recall are the matched shares of the predicted and of the true outline, the F-score their harmonic
    mean: 0 where only one of the two outlines exists or nothing matches, NaN where neither exists. Boundary IoU
    (pixels in both bands / in either) is NaN for a class that is neither true nor predicted. Means leave NaN out.

    Args:
        counts: (..., K, 6), see `boundary_counts`; those of many images may be summed.

    Returns:
        float64 "precision", "recall", "f_score", "iou" (..., K) and "mean_f_score", "mean_iou" (...,).
    """
    true, matched_true, predicted, matched_predicted, both, either = counts.double().unbind(-1)  # (..., K)
    precision, recall = matched_predicted / predicted, matched_true / true
    harmonic = 2 * precision * recall / (precision + recall)
    f_score = harmonic.nan_to_num(0).where(true + predicted > 0, math.nan)
    iou = both / either
    return {
        "precision": precision,
        "recall": recall,
        "f_score": f_score,
        "iou": iou,
        "mean_f_score": f_score.nanmean(dim=-1),
        "mean_iou": iou.nanmean(dim=-1),
    }


def _outlines(labels: np.ndarray) -> np.ndarray:
    """Pixels with a 4-neighbour of another label that is not ignored: uint8 (H,W) -> bool (H,W)."""
    highest = cv2.dilate(np.where(labels == IGNORE, 0, labels).astype(np.uint8), CROSS)
    lowest = cv2.erode(labels, CROSS)  # IGNORE is higher than every label
    return (highest > labels) | (lowest < labels)


def _disc(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x**2 + y**2 <= radius**2).astype(np.uint8)


def _dilated(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.view(np.uint8), kernel).view(bool)


def _band(mask: np.ndarray, ignored: np.ndarray, square: np.ndarray) -> np.ndarray:
    inside = (mask | ignored).view(np.uint8)
    return mask & ~cv2.erode(inside, square, borderType=cv2.BORDER_CONSTANT, borderValue=0).view(bool)
