"""Shapes, noise, and what a pen leaves on the canvas."""

import numpy as np
import pytest

from petseg_lightning.data.drawing.pen import Canvas, Pen, box, ellipse, fluffed, limb, noise, spline


@pytest.fixture
def pen() -> Pen:
    canvas = Canvas(np.full((200, 300, 3), 100, dtype=np.uint8))
    canvas.mark = 1
    return Pen(canvas, np.array([[100.0, 0, 0], [0, 100, 0]]))


def area(shape: np.ndarray) -> float:
    x, y = shape.T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def test_the_labels_are_marked_where_the_picture_is_painted(pen: Pen) -> None:
    mask = pen.paint(ellipse(1.5, 1, 0.8, 0.5), (250, 0, 0))
    painted = np.all(pen.canvas.image == (250, 0, 0), axis=2)
    np.testing.assert_array_equal(painted, pen.canvas.labels == 1)
    np.testing.assert_array_equal(painted, mask == 255)
    assert painted.sum() == pytest.approx(np.pi * 80 * 50, rel=0.02)


def test_what_is_painted_in_front_cuts_the_label(pen: Pen) -> None:
    pen.paint(box(0.5, 0.5, 1.5, 1.5), (250, 0, 0))
    pen.canvas.mark = 0
    pen.paint(box(1.0, 0.0, 3.0, 2.0), (0, 250, 0))
    expected = np.zeros((200, 300), dtype=np.uint8)
    expected[50:151, 50:100] = 1
    np.testing.assert_array_equal(pen.canvas.labels, expected)


def test_a_clip_bounds_the_paint(pen: Pen) -> None:
    outer = pen.paint(box(0, 0, 1, 1), (250, 0, 0))
    pen.canvas.mark = 2
    pen.paint(ellipse(1, 1, 0.7, 0.7), (0, 250, 0), clip=outer)
    assert not pen.canvas.labels[outer == 0].any()
    assert (pen.canvas.labels == 2).sum() == pytest.approx(np.pi * 70**2 / 4, rel=0.05)


def test_a_glaze_tints_softly_and_leaves_no_label(pen: Pen) -> None:
    pen.glaze(ellipse(1.5, 1, 0.5, 0.5), (0, 0, 0), opacity=0.5, blur=0.2)
    assert not pen.canvas.labels.any()
    assert pen.canvas.image[100, 150, 0] == pytest.approx(50, abs=1)
    assert 50 < pen.canvas.image[100, 200, 0] < 100
    assert pen.canvas.image[100, 290, 0] == 100


def test_shade_darkens_away_from_the_light(pen: Pen) -> None:
    pen.paint(ellipse(1.5, 1, 0.8, 0.8), (200, 200, 200), shade=0.5)
    upper_left, lower_right = pen.canvas.image[55, 105, 0], pen.canvas.image[145, 195, 0]
    assert 190 < upper_left <= 200
    assert 100 <= lower_right < 170


def test_frames_nest(pen: Pen) -> None:
    inner = pen.at(1, 1, scale=0.5, angle=np.pi / 2).at(1, 0, flip=True)
    np.testing.assert_allclose(inner.matrix @ (0, 0, 1), (100, 150))
    np.testing.assert_allclose(inner.matrix @ (1, 0, 1), (100, 100))
    assert inner.scale == pytest.approx(50)
    x, y = inner.coordinates()
    assert (x[100, 100], y[100, 100]) == pytest.approx((1, 0), abs=1e-5)


def test_a_shape_outside_of_the_canvas_paints_nothing(pen: Pen) -> None:
    pen.paint([box(-2, -2, -1, -1), box(5, 5, 6, 6)], (250, 0, 0), shade=0.3)
    pen.glaze(box(5, 5, 6, 6), (0, 0, 0), 0.5, 0.1)
    assert (pen.canvas.image == 100).all()


def test_a_spline_runs_through_its_points() -> None:
    points = np.array([(0, 0), (2, 1), (3, 4), (-1, 2)])
    np.testing.assert_allclose(spline(points)[::8], points)
    np.testing.assert_allclose(spline(points, closed=False)[[0, 8, 16, -1]], points, atol=1e-12)


def test_a_straight_limb_is_a_capsule() -> None:
    assert area(limb([(0, 0, 0.5), (3, 0, 0.5)])) == pytest.approx(3 + np.pi / 4, rel=0.02)


def test_tufts_stand_on_the_outline() -> None:
    circle = ellipse(0, 0, 1, 1)
    for outline in (circle, circle[::-1]):
        radius = np.linalg.norm(fluffed(outline, 0.1, 0.2, np.random.default_rng(0)), axis=1)
        assert radius.min() == pytest.approx(1, abs=0.02)
        assert 1.05 < radius.max() < 1.2


def test_noise_has_its_shape_range_and_grain() -> None:
    coarse, fine = (noise(np.random.default_rng(0), (100, 150), cell) for cell in (40, 4))
    assert coarse.shape == (100, 150)
    assert 0.5 < np.abs(fine).max() < 1.5
    assert np.abs(np.diff(coarse)).mean() < 0.3 * np.abs(np.diff(fine)).mean()
