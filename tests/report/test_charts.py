import re

import pytest

from petseg_lightning.report.charts import BOTTOM, LEFT, RIGHT, TOP, Axis, Series, line_chart, scatter


def test_axis_maps_its_ends_to_its_pixels():
    axis = Axis("", 2, 4, 100, 50)
    assert [axis.pixel(value) for value in (2, 3, 4)] == [100, 75, 50]


def test_ticks_are_round_and_within_the_axis():
    assert Axis("", 0, 1, 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis("", 0.31, 0.94, 0, 1).ticks() == pytest.approx([0.4, 0.6, 0.8])
    assert Axis("", 0, 3, 0, 1).ticks(integer=True) == [0, 1, 2, 3]


def test_line_joins_the_finite_points_and_marks_the_best_epoch():
    middle = (LEFT + RIGHT) / 2
    curve = Series("validation", [0, 1, 2], [0.0, float("nan"), 1.0], "red")
    chart = line_chart("Loss", "falls", [curve], y_limits=(0, 1), best=1)
    assert f'points="{LEFT:.1f},{BOTTOM:.1f} {RIGHT:.1f},{TOP:.1f}"' in chart.svg
    assert f'x1="{middle}" x2="{middle}"' in chart.svg
    assert "best epoch 1<" in chart.svg
    assert chart.legend == []


def test_single_epoch_has_a_chart():
    chart = line_chart("Loss", "", [Series("a", [0], [0.5], "red"), Series("b", [0], [0.5], "blue")])
    assert chart.svg.count(f'points="{(LEFT + RIGHT) / 2},{(TOP + BOTTOM) / 2}"') == 2
    assert chart.legend == [("a", "red"), ("b", "blue")]


def test_lines_of_shares_keep_to_their_limits():
    curve = Series("bins", [0.5, 1.0], [0.5, 1.0], "red")
    chart = line_chart("t", "d", [curve], (0, 1), labels=("probability", "right"), x_limits=(0, 1))
    assert f'points="{(LEFT + RIGHT) / 2},{(TOP + BOTTOM) / 2} {RIGHT:.1f},{TOP:.1f}"' in chart.svg
    assert ">probability<" in chart.svg
    assert ">right<" in chart.svg
    assert ">0.2<" in chart.svg


def test_points_stand_at_their_values_under_their_escaped_names():
    points = Series("cat", [0.0, 1.0, 0.5], [1.0, 0.0, float("nan")], "red", ["a", "<b>", "c"])
    svg = scatter("t", "d", [points], ("x & y", "y")).svg
    assert re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3"><title>(.*?)</title>', svg) == [
        (f"{LEFT:.1f}", f"{TOP:.1f}", "a"),
        (f"{RIGHT:.1f}", f"{BOTTOM:.1f}", "&lt;b&gt;"),
    ]
    assert "x &amp; y" in svg
