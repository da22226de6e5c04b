"""What confidences foretell, against the model that drew the pictures and counts by hand."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import linregress, norm

from petseg_lightning.metrics.forecast import FEWEST, bad_risks, fit_forecast, number_to_look_at


def drawn(number: int, seed: int, slope: float = 1.4, intercept: float = -0.3, spread: float = 0.6):
    """Confidences and mean IoUs of pictures of a model that is too modest or too sure, by a line."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.4, 0.9, number)
    return confidences, expit(intercept + slope * logit(confidences) + spread * rng.standard_normal(number))


def test_the_risk_is_that_of_the_model_that_drew_the_pictures():
    forecast = fit_forecast(*drawn(20_000, 0))
    confidences = np.array([0.35, 0.5, 0.6, 0.7, 0.9])
    expected = norm.cdf((0.3 - 1.4 * logit(confidences)) / 0.6)
    assert bad_risks(forecast, confidences) == pytest.approx(expected, abs=0.01)


def test_the_number_of_bad_pictures_of_others():
    forecast = fit_forecast(*drawn(700, 0))
    confidences, mious = drawn(20_000, 1)
    assert bad_risks(forecast, confidences).sum() == pytest.approx((mious < 0.5).sum(), rel=0.1)


def test_a_few_pictures_by_hand():
    """The line is SciPy's; the risk is the share of errors that lead below 0.5, between two of them in proportion."""
    confidences, mious = drawn(FEWEST, 3)
    forecast = fit_forecast(confidences.astype(np.float32), mious)
    line = linregress(logit(confidences), logit(mious))
    assert (forecast["pictures"], len(forecast["errors"])) == (FEWEST, FEWEST)
    assert (forecast["slope"], forecast["intercept"]) == pytest.approx((line.slope, line.intercept), abs=1e-4)
    errors = np.sort(logit(mious) - line.intercept - line.slope * logit(confidences))
    assert forecast["errors"] == pytest.approx(errors, abs=1e-4)
    for below in (0, 4, 11, FEWEST - 1):  # confidences at which this many errors are bad
        confidence = expit((-errors[below] - line.intercept) / line.slope)
        assert bad_risks(forecast, np.array([confidence]))[0] == pytest.approx(below / (FEWEST - 1), abs=2e-3)


def test_surer_is_never_worse():
    confidences, mious = drawn(300, 0)
    risks = bad_risks(fit_forecast(confidences, mious), np.linspace(0, 1, 50))
    assert (np.diff(risks) <= 0).all()
    assert risks[0] == 1
    assert risks[-1] == 0
    for confused in (1 - confidences, np.full(300, 0.7)):
        risks = bad_risks(fit_forecast(confused, mious), np.array([0.3, 0.9]))
        assert risks[0] == pytest.approx(risks[1])
        assert risks[0] == pytest.approx((mious < 0.5).mean(), abs=0.02)


def test_perfect_hopeless_and_uncounted_pictures():
    confidences, mious = np.tile([0.01, 0.99], 15), np.tile([0.0, 1.0], 15)
    assert bad_risks(fit_forecast(confidences, mious), np.array([0.0, 1.0])).tolist() == [1, 0]
    mious[: 30 - FEWEST] = np.nan
    assert fit_forecast(confidences, mious)["pictures"] == FEWEST
    mious[-1] = np.nan
    assert fit_forecast(confidences, mious) is None


def test_how_many_to_look_at():
    assert number_to_look_at(np.array([0.9, 0.5, 0.3, 0.2, 0.1]), 0.8) == 3  # 1.7 of 2.0, 1.4 are too few
    rng = np.random.default_rng(0)
    for number in (1, 2, 7, 40):
        risks = np.sort(rng.uniform(0, 1, number))[::-1]
        enough = [n for n in range(number + 1) if sum(risks[:n]) >= 0.8 * sum(risks)]
        assert number_to_look_at(risks, 0.8) == enough[0]
    assert number_to_look_at(np.full(10, 0.1), 0.8) == 8
