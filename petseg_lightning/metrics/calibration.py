"""How far probabilities can be believed: those of pixels by their calibration, those of pictures by a review.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017; Geifman and El-Yaniv, "Selective
Classification for Deep Neural Networks", NeurIPS 2017.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from petseg_lightning.metrics.confusion import IGNORE

NUM_BINS = 15
BAD_MIOU = 0.5  # a picture below it is one that a review should find
_OCTAVES = 4  # from 2**4 to 2**-4, in steps of half of one: where a temperature is looked for
TEMPERATURES = tuple(2 ** (step / 2) for step in range(2 * _OCTAVES, -2 * _OCTAVES - 1, -1))
_GRID = 8  # of an image so many rows and columns, or a little more than half: with 129 of them T is known to 1 %


def temperature_slopes(logits: Tensor, masks: Tensor) -> Tensor:
    """How the cross-entropy of logits / T changes with 1 / T, at each of `TEMPERATURES`.

    It is summed over an even grid of at most 8 x 8 pixels of each image, and never waits for the device.

    Args:
        logits: (B,K,H,W).
        masks: integer (B,H,W), 0..K-1 or 255 (ignored).

    Returns:
        float32 (17,2), first and second derivative; those of many batches and devices may be summed.
    """
    rows, columns = (slice(step // 2, None, step) for step in (-(-size // _GRID) for size in masks.shape[1:]))
    masks, logits = masks[:, rows, columns].long(), logits[:, :, rows, columns].float()
    counted = masks != IGNORE
    logits = logits - logits.gather(1, masks.where(counted, 0)[:, None])  # (B,K,h,w), 0 for the true class
    inverse = torch.linspace(-_OCTAVES, _OCTAVES, len(TEMPERATURES), device=logits.device).exp2()
    probabilities = (logits * inverse[:, None, None, None, None]).softmax(dim=2)  # (17,B,K,h,w)
    mean = (probabilities * logits).sum(dim=2)  # (17,B,h,w)
    variance = (probabilities * (logits - mean[:, :, None]).square()).sum(dim=2)
    return torch.stack([(slope * counted).sum(dim=(1, 2, 3)) for slope in (mean, variance)], dim=1)


def fit_temperature(slopes: Tensor) -> float:
    """The temperature T > 0 with the lowest cross-entropy of logits / T (Guo et al., section 4.2).

    The cross-entropy is convex in 1 / T: its slope is 0 at one point, to be found between the two of `TEMPERATURES`
    where it changes its sign. A model that is always right is the better the lower T is, one that is always wrong the
    higher: they get the ends. Where nothing depends on T, because no pixel or only one class counts, T is 1.

    Args:
        slopes: (17,2), of `temperature_slopes`, summed.

    Returns:
        1/16 to 16, as exact as a cubic between the two points is: to 0.1 %.
    """
    from scipy.interpolate import CubicHermiteSpline
    from scipy.optimize import brentq

    first, second = slopes.double().cpu().numpy().T
    if not second.any():
        return 1.0
    rising = int((first < 0).sum())  # the first of the points at which the slope is not negative
    if rising in (0, len(TEMPERATURES)):
        return TEMPERATURES[max(rising - 1, 0)]
    around = slice(rising - 1, rising + 1)
    inverse = [1 / temperature for temperature in TEMPERATURES[around]]
    return 1 / brentq(CubicHermiteSpline(inverse, first[around], second[around]), *inverse)


def calibration_counts(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Of each image, how sure the prediction of its pixels is and how often it is right.

    Args:
        probabilities: (B,K,H,W), whose sum over K is 1.
        masks: integer (B,H,W), 0..K-1 or 255 (ignored).

    Returns:
        float64 (B,15,3): pixels, sum of their largest probabilities, right ones, over bins of the largest probability
        of equal width from 0 to 1; those of many images may be summed.
    """
    confidences, predictions = probabilities.max(dim=1)  # (B,H,W)
    counted = masks != IGNORE
    image = torch.arange(len(masks), device=masks.device)[:, None, None]
    bins = (image * NUM_BINS + (confidences * NUM_BINS).long().clamp_(max=NUM_BINS - 1))[counted]
    columns = (torch.ones_like(bins), confidences[counted], (predictions == masks)[counted])
    sums = [torch.bincount(bins, column.double(), len(masks) * NUM_BINS) for column in columns]
    return torch.stack(sums, dim=-1).unflatten(0, (-1, NUM_BINS))


def expected_calibration_error(counts: Tensor) -> Tensor:
    """The mean distance between how sure a prediction is and how often it is right (Guo et al., equation 3).

    Args:
        counts: (...,15,3), see `calibration_counts`.

    Returns:
        float64 (...,), 0..1; NaN over nothing.
    """
    pixels, confidence, right = counts.double().unbind(dim=-1)
    return (right - confidence).abs().sum(dim=-1) / pixels.sum(dim=-1)


def expected_miou(probabilities: Tensor) -> Tensor:
    """The mean IoU of each image that its probabilities promise.

    Of a predicted class, the expected intersection is the sum of its probability over the pixels predicted so, and
    the expected union those pixels and the sum of its probability over all others. A class that is predicted nowhere
    would have an IoU of 0 if it was there, and counts as much as its highest probability anywhere.

    Args:
        probabilities: (B,K,H,W), whose sum over K is 1.

    Returns:
        (B,), 0..1.
    """
    return ExpectedOverlap.of(probabilities).miou()


class ExpectedOverlap(NamedTuple):
    """What `expected_miou` needs of each class, (B,K) each; that of a large picture is added up from its parts."""

    pixels: Tensor  # predicted as the class
    both: Tensor  # sum of its probability over these
    total: Tensor  # and over all pixels
    highest: Tensor  # probability anywhere

    @classmethod
    def of(cls, probabilities: Tensor) -> Self:
        """Of probabilities (B,K,H,W)."""
        predictions = probabilities.max(dim=1).indices  # (B,H,W)
        columns = []
        for label in range(probabilities.shape[1]):
            predicted, probability = predictions == label, probabilities[:, label]  # (B,H,W)
            pixels, both = predicted.sum(dim=(1, 2)), (probability * predicted).sum(dim=(1, 2))  # (B,)
            columns.append((pixels, both, probability.sum(dim=(1, 2)), probability.amax(dim=(1, 2))))
        pixels, both, total, highest = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
        return cls(pixels, both, total, highest)

    def with_part(self, other: Self) -> Self:
        """Of both parts of a picture."""
        pixels, both, total = self.pixels + other.pixels, self.both + other.both, self.total + other.total
        return type(self)(pixels, both, total, torch.maximum(self.highest, other.highest))

    def miou(self) -> Tensor:
        union = self.pixels + self.total - self.both
        promised = self.both / union.where(union > 0, 1)
        return promised.sum(1) / self.highest.where(self.pixels == 0, 1).sum(1)


def review_curve(confidences: Tensor, mious: Tensor) -> Tensor:
    """What is found by looking at pictures, the least sure first, and how good those are that nobody looks at.

    Args:
        confidences: (N,), higher for surer.
        mious: (N,), of the same pictures, without NaN.

    Returns:
        float64 (N+1,3), after 0, 1, ... N pictures: share looked at; share found of those with a mean IoU under 0.5,
        NaN where there are none; mean IoU of the rest, NaN for none.
    """
    mious = mious.double()[confidences.argsort(stable=True)]
    found = torch.cat([mious.new_zeros(1), (mious < BAD_MIOU).double().cumsum(0)])
    rest = torch.cat([mious.flip(0).cumsum(0).flip(0), mious.new_zeros(1)]) / torch.arange(len(mious), -1, -1)
    return torch.stack([torch.linspace(0, 1, len(mious) + 1, dtype=torch.float64), found / found[-1], rest], dim=-1)


def share_to_look_at(curve: Tensor, found: float) -> float:
    """The share of pictures to look at to find a share of the bad ones; NaN where there are none.

    Args:
        curve: (N+1,3), see `review_curve`.
        found: 0..1.
    """
    enough = curve[curve[:, 1] >= found, 0]
    return float(enough[0]) if len(enough) else float("nan")
