import cv2
import numpy as np
import pytest

from petseg_lightning.metrics.image_measures import boundary_error_share, edge_contrast

LEFT = np.zeros((16, 20), bool)
LEFT[:, :10] = True


def two_colours(inside, outside, foreground=LEFT):
    return np.where(foreground[..., None], np.uint8(inside), np.uint8(outside)).astype(np.uint8)


@pytest.mark.parametrize(
    ("inside", "outside", "contrast"),
    [
        ((0, 0, 0), (255, 255, 255), 1.0),
        ((80, 80, 80), (80, 80, 80), 0.0),
        ((119, 119, 119), (0, 0, 0), 0.5),  # L* of sRGB 119 is 50.0
        ((255, 0, 0), (0, 0, 255), 1.763),  # CIELAB (53.24, 80.09, 67.20) and (32.30, 79.19, -107.86)
    ],
)
def test_edge_contrast_of_two_plain_sides(inside, outside, contrast):
    assert edge_contrast(two_colours(inside, outside), LEFT) == pytest.approx(contrast, abs=2e-3)
    assert edge_contrast(two_colours(outside, inside), LEFT) == pytest.approx(contrast, abs=2e-3)


def test_edge_contrast_looks_at_the_outline_only():
    image = two_colours((255, 255, 255), (255, 255, 255))
    image[:, :5] = image[:, 15:] = 0  # further than half a window from columns 9 and 10
    assert edge_contrast(image, LEFT) == pytest.approx(0, abs=1e-6)
    assert edge_contrast(image, LEFT, window=11) > 0.05


def test_edge_contrast_against_its_definition():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (15, 18, 3), np.uint8)
    foreground = np.zeros((15, 18), bool)
    foreground[4:10, 0:9] = foreground[8:13, 6:12] = True
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    padded, inside = np.pad(lab, ((2, 2), (2, 2), (0, 0)), "reflect"), np.pad(foreground, 2, "reflect")
    distances = []
    for y, x in np.ndindex(foreground.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        around = [(a, b) for a, b in around if 0 <= a < 15 and 0 <= b < 18]
        if any(foreground[a, b] != foreground[y, x] for a, b in around):
            colours, side = padded[y : y + 5, x : x + 5], inside[y : y + 5, x : x + 5]
            distances.append(np.linalg.norm(colours[side].mean(0) - colours[~side].mean(0)))
    assert edge_contrast(image, foreground, window=5) == pytest.approx(np.mean(distances) / 100, rel=1e-4)


@pytest.mark.parametrize("foreground", [np.zeros((8, 8), bool), np.ones((8, 8), bool)])
def test_edge_contrast_without_an_outline(foreground):
    assert np.isnan(edge_contrast(np.zeros((8, 8, 3), np.uint8), foreground))


@pytest.mark.parametrize(
    ("wrong_columns", "share"),
    [([9], 1.0), ([6], 1.0), ([5], 0.0), ([13], 1.0), ([14], 0.0), ([5, 6], 0.5), ([0, 1, 2, 13], 0.25)],
)
def test_errors_within_three_pixels_of_a_true_boundary(wrong_columns, share):
    truth = (~LEFT).astype(np.uint8)  # the boundary is between columns 9 and 10
    prediction = truth.copy()
    prediction[:, wrong_columns] = 2
    assert boundary_error_share(truth, prediction) == pytest.approx(share)
    assert boundary_error_share(truth.T, prediction.T) == pytest.approx(share)


def test_the_distance_to_a_boundary_is_euclidean():
    truth = np.zeros((20, 20), np.uint8)
    truth[10, 10] = 1  # its 4-neighbours lie on the boundary, too
    for (y, x), near in {(13, 11): 1, (12, 12): 1, (14, 10): 1, (15, 10): 0, (13, 13): 0, (12, 13): 1}.items():
        prediction = truth.copy()
        prediction[y, x] = 1
        assert boundary_error_share(truth, prediction) == near, (y, x)


def test_ignored_pixels_are_never_wrong():
    truth = np.zeros((16, 20), np.uint8)
    truth[:, 10:] = 255
    prediction = np.ones_like(truth)
    prediction[:, 5:10] = 0
    assert boundary_error_share(truth, prediction) == 0
    prediction[:, :10] = 0
    assert np.isnan(boundary_error_share(truth, prediction))


def test_errors_in_a_picture_of_one_class_are_at_no_boundary():
    truth = np.ones((9, 9), np.uint8)
    assert boundary_error_share(truth, 0 * truth) == 0
