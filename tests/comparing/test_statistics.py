"""The statistics against known answers, SciPy's own resampling, and simulated settings that are equal."""

import numpy as np
import pytest
from scipy import stats

from petseg_lightning.comparing.statistics import (
    compare_scores,
    holm,
    mean_iou,
    resampled_scores,
    spread,
    swap_test,
)

PIXELS, CLASSES = 4096, 3


def simulate(
    rng: np.random.Generator, runs: int, pictures: int, *, seed_noise: float, picture_noise: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions (S,N,K) of runs of one setting: pictures have a difficulty that all runs share."""
    sizes = rng.dirichlet([5, 4, 1], pictures) * PIXELS  # (N,K)
    difficulty = rng.normal(-2, 0.8, (1, pictures, 1))
    of_run = rng.normal(0, seed_noise, (runs, 1, 1))
    of_both = rng.normal(0, picture_noise, (runs, pictures, CLASSES))
    wrong = 1 / (1 + np.exp(-(difficulty + of_run + of_both)))
    return np.round(sizes * (1 - wrong)), np.round(sizes * (1 + wrong))


def compared(intersections, unions, split, resamples, rng, confidence=0.95):
    resampled = resampled_scores(intersections, unions, resamples, rng)
    observed = mean_iou(intersections.sum(1), unions.sum(1))
    halves = (observed[:split], observed[split:]), (resampled[:, :split], resampled[:, split:])
    return compare_scores(*halves, intersections.shape[1], confidence)


def share_that_covers_zero(trials: int, resamples: int, pictures: int, seeds: int, seed_noise: float) -> float:
    covered = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, seeds, pictures])
        intersections, unions = simulate(rng, 2 * seeds, pictures, seed_noise=seed_noise)
        _, _, _, low, high, p = compared(intersections, unions, seeds, resamples, rng)
        assert (p < 0.05) == (low > 0 or high < 0)
        covered += low <= 0 <= high
    return covered / trials


@pytest.mark.parametrize(("seeds", "seed_noise"), [(3, 0.1), (3, 0.01), (2, 0.02), (5, 0.02), (1, 0.0)])
def test_intervals_of_equal_settings_contain_zero(seeds, seed_noise):
    assert 0.9 <= share_that_covers_zero(200, 200, 60, seeds, seed_noise) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed_noise", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_equal_settings_contain_zero_in_95_percent(seeds, seed_noise):
    assert 0.93 <= share_that_covers_zero(1000, 300, 200, seeds, seed_noise) <= 0.985


def test_an_interval_of_pictures_alone_misses_that_seeds_differ():
    """Why seeds are resampled: one network against another of the same setting."""
    missed = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        intersections, unions = simulate(rng, 2, 200, seed_noise=0.1)
        _, _, _, low, high, _ = compared(intersections, unions, 1, 200, rng)
        missed += low > 0 or high < 0
    assert missed > 50


def test_more_seeds_and_more_pictures_make_an_interval_narrower():
    def width(seeds, pictures):
        rng = np.random.default_rng(3)
        counts = simulate(rng, 2 * seeds, pictures, seed_noise=0.03)
        _, error, *_ = compared(*counts, seeds, 400, rng)
        return error

    assert width(40, 400) < width(10, 400) / 1.5
    assert width(1, 1600) < width(1, 100) / 2.5


def test_the_bootstrap_of_pictures_is_that_of_scipy():
    intersections, unions = simulate(np.random.default_rng(0), 2, 80, seed_noise=0.05)

    def difference(index, axis=-1):
        scores = mean_iou(intersections[:, index].sum(-2), unions[:, index].sum(-2))
        return scores[0] - scores[1]

    expected = stats.bootstrap((np.arange(80),), difference, n_resamples=4000, vectorized=True, rng=1)
    scores = resampled_scores(intersections, unions, 4000, np.random.default_rng(2))
    own = scores[:, 0] - scores[:, 1]
    assert own.std(ddof=1) == pytest.approx(expected.standard_error, rel=0.05)
    assert own.mean() == pytest.approx(expected.bootstrap_distribution.mean(), abs=0.1 * expected.standard_error)


def test_the_runs_are_resampled_together():
    intersections, unions = simulate(np.random.default_rng(0), 1, 50, seed_noise=0)
    scores = resampled_scores(np.repeat(intersections, 2, 0), np.repeat(unions, 2, 0), 2500, np.random.default_rng(0))
    assert scores.shape == (2500, 2)
    assert np.array_equal(scores[:, 0], scores[:, 1])
    assert scores[:, 0].std() > 0


def test_the_interval_is_that_of_welch_where_only_seeds_vary():
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.7, 0.01, 4), rng.normal(0.6, 0.02, 6)
    resampled = np.tile(first, (50, 1)), np.tile(second, (50, 1))
    difference, error, freedom, low, high, p = compare_scores((first, second), resampled, 100, 0.9)
    welch = stats.ttest_ind(first, second, equal_var=False)
    interval = welch.confidence_interval(0.9)
    assert difference == pytest.approx(first.mean() - second.mean())
    assert error == pytest.approx(difference / welch.statistic)
    assert (freedom, p) == pytest.approx((welch.df, welch.pvalue))
    assert (low, high) == pytest.approx((interval.low, interval.high))


def test_an_interval_of_a_difference_is_cut_where_none_can_be():
    first, second = np.array([0.2, 0.9]), np.array([0.1, 0.8])
    *_, low, high, p = compare_scores((first, second), (np.tile(first, (50, 1)), np.tile(second, (50, 1))), 100, 0.95)
    assert (low, high) == (-1, 1)
    assert p > 0.05


def test_the_variance_is_that_of_many_trials():
    """Trials draw pictures and seeds anew; each estimates from its own runs how far the trials lie apart."""
    values, errors = [], []
    for trial in range(400):
        rng = np.random.default_rng(trial)
        value, error, *_ = compared(*simulate(rng, 6, 100, seed_noise=0.03), 3, 200, rng)
        values.append(value)
        errors.append(error)
    assert np.mean(np.square(errors)) == pytest.approx(np.var(values), rel=0.2)


def test_equal_runs_differ_by_nothing():
    scores = np.full((100, 1), 0.5), np.full((100, 1), 0.5)
    observed = np.array([0.5]), np.array([0.5])
    assert compare_scores(observed, scores, 20, 0.95) == (0, 0, float("inf"), 0, 0, 1)


def test_the_swap_test_is_that_of_scipy():
    (first, second), (union_1, union_2) = simulate(np.random.default_rng(1), 2, 8, seed_noise=0.5)
    table = np.concatenate([np.stack([first, union_1], -1), np.stack([second, union_2], -1)])  # (16,K,2)

    def difference(one, other, axis=-1):
        return np.subtract(*(mean_iou(*np.moveaxis(table[i.astype(int)].sum(-3), -1, 0)) for i in (one, other)))

    pairs = np.arange(8), np.arange(8, 16)
    exact = stats.permutation_test(pairs, difference, permutation_type="samples", vectorized=True, n_resamples=np.inf)
    own = swap_test((first, union_1), (second, union_2), 20000, np.random.default_rng(0))
    assert 0.05 < exact.pvalue < 0.95
    assert own == pytest.approx(exact.pvalue, abs=0.015)


def test_the_swap_test_has_the_level_that_it_says_where_networks_are_equal():
    p = []
    for trial in range(300):
        rng = np.random.default_rng(trial)
        counts = simulate(rng, 2, 50, seed_noise=0)
        p.append(swap_test(*zip(*counts, strict=True), 199, rng))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert min(p) >= 1 / 200


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # statsmodels gives these too
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_class_that_is_nowhere_is_left_out_of_the_mean():
    assert mean_iou(np.array([1.0, 0, 3]), np.array([2.0, 0, 4])) == pytest.approx((0.5 + 0.75) / 2)
    assert np.isnan(mean_iou(np.zeros(2), np.zeros(2)))


def test_spread_by_hand():
    result = spread([0.5, 0.6, 0.7], 0.95)
    assert result.mean == pytest.approx(0.6)
    assert result.deviation == pytest.approx(0.1)
    assert result.high - result.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)  # t of 2 degrees of freedom
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    assert (spread([0.5, 0.9], 0.95).low, spread([0.5, 0.9], 0.95).high) == (0, 1)
    assert np.isnan([spread([0.5], 0.95).deviation, spread([0.5], 0.95).low]).all()
