"""How likely a prediction is bad, foretold from its confidence as validation pictures had it.

The true mean IoU of a picture is its confidence, recalibrated by a line, and an error; both on the scale of logits, on
which the errors of sure and of unsure pictures are about as wide.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import logit

from petseg_lightning.metrics.calibration import BAD_MIOU

FEWEST = 20  # pictures from which anything is foretold
_QUANTILES = 101
_EDGE = 0.01  # mean IoUs nearer to 0 or 1 count as this: their logits are infinite


def fit_forecast(confidences: np.ndarray, mious: np.ndarray) -> dict[str, Any] | None:
    """What the confidence of pictures says about their true mean IoU, as plain values.

    Args:
        confidences: (N,), 0..1, of pictures that the model was not trained on.
        mious: (N,), 0..1, of the same; NaN, where nothing counts, is left out.

    Returns:
        "pictures", and of the line and the errors around it "slope", "intercept" and "errors", their quantiles from
        the least to the largest; None where there are too few pictures.
    """
    known = ~np.isnan(mious)
    if known.sum() < FEWEST:
        return None
    confidence, miou = _logits(confidences[known]), _logits(mious[known])
    centred = confidence - confidence.mean()
    slope = max(0.0, float(centred @ miou / max(centred @ centred, 1e-12)))  # surer is never worse
    intercept = float(miou.mean() - slope * confidence.mean())
    errors = np.quantile(miou - intercept - slope * confidence, np.linspace(0, 1, min(len(miou), _QUANTILES)))
    return {
        "pictures": len(miou),
        "slope": round(slope, 4),
        "intercept": round(intercept, 4),
        "errors": [round(float(error), 4) for error in errors],
    }


def bad_risks(forecast: Mapping[str, Any], confidences: np.ndarray) -> np.ndarray:
    """The probability (N,) of pictures that their mean IoU is below 0.5, from their confidences (N,)."""
    errors = forecast["errors"]
    expected = forecast["intercept"] + forecast["slope"] * _logits(confidences)
    return np.interp(logit(BAD_MIOU) - expected, errors, np.linspace(0, 1, len(errors)))


def number_to_look_at(risks: np.ndarray, found: float) -> int:
    """How many of the first pictures hold a share of the bad ones that are expected among all.

    Args:
        risks: (N,), in the order of looking, their sum above 0.
        found: the share, 0..1.
    """
    return int(np.searchsorted(risks.cumsum(), found * risks.sum() - 1e-9)) + 1


def _logits(shares: np.ndarray) -> np.ndarray:
    return logit(np.asarray(shares, np.float64).clip(_EDGE, 1 - _EDGE))
