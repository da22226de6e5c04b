"""How sure a difference is: two-level bootstrap, permutation test, Holm's correction; NumPy and SciPy alone.

Two things are chance: the pictures, on which all runs are scored (so they are paired), and the runs of a setting, its
seeds (and folds), which are its own (so they are not). The pictures are resampled. Resampling n - 1 of n runs as well
(Rao and Wu, JASA 1988) would add the variance of the runs over n, which is taken without drawing; and what is left of
it after the luck that each network has with these pictures, as a bootstrap of both levels counts that luck three times
(Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CHUNK = 1000  # resamples at a time


@dataclass(frozen=True)
class Spread:
    """Mean over the runs of a setting, its standard deviation and interval; those are NaN for a single run."""

    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference of mean IoU between two settings, with interval and p values.

    `p_seeds` asks whether the settings differ when pictures and seeds are drawn again, `p_pictures` whether these
    networks differ on their pictures. Where a setting has one run, `p_seeds` and the interval know of the pictures
    alone.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float
    low: float
    high: float
    p_seeds: float
    p_pictures: float

    @property
    def p(self) -> float:
        """The larger one: it is valid for the claim that the settings do not differ."""
        return max(self.p_seeds, self.p_pictures)


def spread(values: Sequence[float], confidence: float) -> Spread:
    """Mean, standard deviation (n - 1) and t interval, cut at 0 and 1, of a score over runs."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Spread(mean, *[float("nan")] * 3)
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / count**0.5
    return Spread(mean, deviation, max(mean - half, 0.0), min(mean + half, 1.0))


def mean_iou(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    """Mean over the classes (the last axis) of intersection / union, without classes whose union is empty."""
    present = unions > 0
    ratios = np.divide(intersections, unions, out=np.zeros_like(unions), where=present)
    with np.errstate(invalid="ignore"):
        return ratios.sum(-1) / present.sum(-1)


def resampled_scores(
    intersections: np.ndarray, unions: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """The mean IoU of every run on resampled pictures, the same ones for all runs.

    Args:
        intersections: (S,N,K) of S runs, N pictures, K classes.
        unions: likewise.
        resamples: R.
        rng: draws the pictures.

    Returns:
        float64 (R,S).
    """
    runs, pictures, classes = intersections.shape
    table = np.stack([intersections, unions]).transpose(2, 0, 1, 3).reshape(pictures, -1)  # (N, 2*S*K)
    scores = []
    for start in range(0, resamples, CHUNK):
        drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), min(CHUNK, resamples - start))  # (r,N)
        sums = (drawn.astype(np.float64) @ table).reshape(-1, 2, runs, classes)
        scores.append(mean_iou(sums[:, 0], sums[:, 1]))
    return np.concatenate(scores)


def compare_scores(
    observed: tuple[np.ndarray, np.ndarray],
    resampled: tuple[np.ndarray, np.ndarray],
    pictures: int,
    confidence: float,
) -> tuple[float, float, float, float, float, float]:
    """The difference of two settings' means over seeds, and how sure it is if pictures and seeds are drawn again.

    Its variance is that of the difference on resampled pictures, and for each setting of n > 1 seeds (s^2 - t^2) / n:
    s^2 is the variance of its runs, t^2 that of a run's own deviation on resampled pictures, which the first part
    holds already. Quantiles of few seeds would be too narrow, so the interval is Student's with Satterthwaite's
    degrees of freedom: few where seeds are what makes the difference uncertain, many where pictures are. It is cut at
    -1 and 1.

    Args:
        observed: mean IoU of the runs of each setting, (n,) and (m,).
        resampled: the same runs on resampled pictures, (R,n) and (R,m).
        pictures: N.
        confidence: of the interval, 0..1.

    Returns:
        Difference, standard error, degrees of freedom, both ends of the interval, two-sided p.
    """
    difference = float(observed[0].mean() - observed[1].mean())
    of_pictures = float(np.var(resampled[0].mean(1) - resampled[1].mean(1), ddof=1))
    variance, uncertainty = of_pictures, of_pictures**2 / (pictures - 1)
    for scores, on_resamples in zip(observed, resampled, strict=True):
        if (seeds := len(scores)) > 1:
            of_runs = float(np.var(scores, ddof=1))
            luck = np.var(on_resamples - on_resamples.mean(1, keepdims=True), axis=0, ddof=1).sum() / (seeds - 1)
            variance += max(of_runs - float(luck), 0.0) / seeds
            uncertainty += (of_runs / seeds) ** 2 / (seeds - 1)
    if variance == 0:
        return difference, 0.0, float("inf"), difference, difference, float(difference == 0)
    error, freedom = variance**0.5, variance**2 / uncertainty
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return difference, error, freedom, max(difference - half, -1.0), min(difference + half, 1.0), p


def swap_test(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    resamples: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of a permutation test that swaps the settings' labels picture by picture.

    If two networks are equally good at every picture, which of them a picture's counts came from is exchangeable,
    within the picture; pictures are not, among each other. Where the settings have several seeds, the counts of a
    picture are their means over these. It says nothing on training again: two seeds of one setting are two networks,
    and may differ.

    Args:
        first: intersections and unions, (N,K) each.
        second: likewise.
        resamples: R random swaps; p is at least 1 / (R + 1).
        rng: swaps.
    """
    one, other = (np.concatenate(pair, axis=-1) for pair in (first, second))  # (N, 2*K)
    middle, half = (one + other).sum(0) / 2, (one - other) / 2

    def difference(signs: np.ndarray) -> np.ndarray:
        swing = signs @ half
        return np.subtract(*(mean_iou(*np.split(sums, 2, axis=-1)) for sums in (middle + swing, middle - swing)))

    observed = abs(difference(np.ones((1, len(one))))[0])
    extreme = 0
    for start in range(0, resamples, CHUNK):
        signs = rng.choice(np.array([-1.0, 1.0]), (min(CHUNK, resamples - start), len(one)))
        extreme += int((abs(difference(signs)) >= observed - 1e-12).sum())
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for their number (Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()
