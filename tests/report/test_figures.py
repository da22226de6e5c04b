import re

import pandas as pd
import pytest

from petseg_lightning.report.charts import BOTTOM, LEFT, RIGHT, TOP
from petseg_lightning.report.figures import confidence_charts, learning_curves, picture_scatters
from petseg_lightning.report.run_folder import RunFolder


@pytest.fixture
def table():
    """Twenty pictures whose IoU falls from 0.95 to 0 as the pet grows from 0 to 95 %; accuracy is 0.52."""
    share = [0.05 * i for i in range(20)]
    miou = [0.05 * i for i in reversed(range(20))]
    species = ["cat", "dog"] * 10
    columns = {"name": [f"p{i}" for i in range(20)], "miou": miou, "accuracy": 0.52, "pet_fraction": share}
    return pd.DataFrame(columns | {"species": species})


def test_scatter_says_how_often_accuracy_is_higher_and_which_picture_is_lowest(table):
    accuracy, _ = picture_scatters(table)
    assert "In 55.0% of 20 pictures the accuracy is higher" in accuracy.description
    assert "The lowest is p19, with an IoU of 0.000." in accuracy.description
    assert f'points="{LEFT:.1f},{BOTTOM:.1f} {RIGHT:.1f},{TOP:.1f}"' in accuracy.svg  # the diagonal
    assert accuracy.svg.count("<circle") == 20
    assert "<title>p3: IoU 0.800, accuracy 0.520</title>" in accuracy.svg
    assert [label for label, _ in accuracy.legend] == ["cat", "dog", "accuracy = IoU"]


def test_trend_joins_the_medians_of_tenths(table):
    _, size = picture_scatters(table)
    assert "10 groups of equal size: IoU 0.925 where the pet is smallest" in size.description
    assert "0.925 at best, 0.025 where it is largest" in size.description


def test_pictures_without_pets_or_species_have_the_first_chart_only(table):
    table["pet_fraction"] = float("nan")
    table["species"] = pd.Series([None] * 20, dtype=str)
    (accuracy,) = picture_scatters(table)
    assert [label for label, _ in accuracy.legend] == ["picture", "accuracy = IoU"]
    assert picture_scatters(pd.DataFrame()) == []


def test_empty_bins_are_not_drawn(run_folder):
    reliability, review = confidence_charts(RunFolder.read(run_folder).metrics["splits"]["test"]["calibration"])
    assert [len(points.split()) for points in re.findall(r' points="(.*?)"', reliability.svg)] == [2, 3, 3]
    assert [len(points.split()) for points in re.findall(r' points="(.*?)"', review.svg)] == [5, 4]
    assert [label for label, _ in review.legend] == ["found of those under 0.5", "mean IoU of the rest"]


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (0.0164, " It takes the expected calibration error from 0.016 to 0.012."),
        (0.0121, " The expected calibration error is 0.012 with it and without."),
        (None, ""),
    ],
)
def test_what_the_temperature_does_to_the_calibration_error(run_folder, before, sentence):
    calibration = RunFolder.read(run_folder).metrics["splits"]["test"]["calibration"]
    calibration["before"]["expected_calibration_error"] = before
    calibration["after"]["expected_calibration_error"] = before and 0.0123
    reliability, _ = confidence_charts(calibration)
    assert reliability.description.endswith(f"fitted on validation pictures, is 1.28.{sentence}")


def test_curves_show_what_was_logged(run_folder):
    run = RunFolder.read(run_folder)
    loss, scores, classes = learning_curves(run, run.metrics["colors"])
    last = run.epochs.iloc[-1]
    assert loss.description == (
        f"After the last epoch: training {last['train/loss']:.3f}, validation {last['val/loss']:.3f}."
    )
    assert scores.legend == [("accuracy", "var(--first)"), ("mean IoU", "var(--second)")]
    assert classes.legend == list(run.metrics["colors"].items())
    assert all("best epoch 18" in chart.svg for chart in (loss, scores, classes))
    (loss,) = learning_curves(RunFolder(**vars(run) | {"epochs": run.epochs[["val/loss"]]}), run.metrics["colors"])
    assert loss.legend == []
