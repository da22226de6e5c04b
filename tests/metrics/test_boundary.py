import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from petseg_lightning.metrics.boundary import band_pixels, boundary_counts, boundary_scores, tolerance_pixels

IGNORE = 255
NAMES = ("true", "matched_true", "predicted", "matched_predicted", "both", "either")


def maps(seed: int, height: int = 13, width: int = 17, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Truth with an ignored blob and ignored specks, and a prediction like it; the last class is in neither."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes - 1, (height // 3 + 1, width // 3 + 1))
    truth = np.kron(coarse, np.ones((3, 3), int))[:height, :width].astype(np.uint8)
    prediction = np.roll(truth, rng.integers(-1, 2, 2), (0, 1))
    noise = rng.random((2, height, width))
    prediction = np.where(noise[0] < 0.05, rng.integers(0, num_classes - 1, truth.shape), prediction).astype(np.uint8)
    truth[noise[1] < 0.04] = IGNORE
    top, left = rng.integers(0, height - 4), rng.integers(0, width - 5)
    truth[top : top + 4, left : left + 5] = IGNORE
    return truth, prediction


def brute_force(truth, prediction, num_classes: int, tolerance: int, band: int) -> list[list[int]]:
    """Sets of pixels and the distances of all pairs, from the definitions."""
    height, width = truth.shape
    counted = {at for at in np.ndindex(truth.shape) if truth[at] != IGNORE}
    frame = set(np.ndindex(height + 2, width + 2)) - {(y + 1, x + 1) for y, x in np.ndindex(truth.shape)}

    def outline(mask: set) -> set:
        others, steps = counted - mask, ((0, 1), (0, -1), (1, 0), (-1, 0))
        return {(y, x) for y, x in mask if any((y + a, x + b) in others for a, b in steps)}

    def band_of(mask: set) -> set:
        others = [*(counted - mask), *((y - 1, x - 1) for y, x in frame)]
        return {(y, x) for y, x in mask if any(max(abs(y - a), abs(x - b)) <= band for a, b in others)}

    def matched(one: set, other: set) -> set:
        return {(y, x) for y, x in one if any((y - a) ** 2 + (x - b) ** 2 <= tolerance**2 for a, b in other)}

    rows = []
    for label in range(num_classes):
        masks = [{at for at in counted if labels[at] == label} for labels in (truth, prediction)]
        (true, predicted), (one, other) = map(outline, masks), map(band_of, masks)
        sets = (true, matched(true, predicted), predicted, matched(predicted, true), one & other, one | other)
        rows.append([len(pixels) for pixels in sets])
    return rows


def named(counts: np.ndarray, label: int) -> dict[str, int]:
    return dict(zip(NAMES, counts[label].tolist(), strict=True))


def scores_of(truth, prediction, num_classes: int = 2, **shares) -> dict[str, torch.Tensor]:
    return boundary_scores(torch.from_numpy(boundary_counts(truth, prediction, num_classes, **shares)))


def square(shift: int = 0, size: int = 128) -> np.ndarray:
    """A square of 20 pixels, on background: the outline of each side has 76 pixels, and 80."""
    mask = np.zeros((size, size), np.uint8)
    mask[50:70, 50 + shift : 70 + shift] = 1
    return mask


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("tolerance", "band"), [(1, 1), (2, 3), (4, 2)])
def test_counts_are_those_of_all_pairs_of_pixels(seed, tolerance, band):
    truth, prediction = maps(seed)
    diagonal = math.hypot(*truth.shape)
    counts = boundary_counts(truth, prediction, 4, tolerance=tolerance / diagonal - 1e-9, band=band / diagonal)
    assert counts.dtype == np.int64
    assert counts.tolist() == brute_force(truth, prediction, 4, tolerance, band)
    assert counts[3].tolist() == [0] * 6
    assert counts[:3, :2].all()


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_scipy(seed):
    """Distance transforms and the erosion of the paper's own program, at a real size."""
    truth, prediction = (labels.repeat(8, 0).repeat(8, 1) for labels in maps(seed, 16, 20))
    prediction = np.roll(prediction, 2, 1)
    truth[truth == IGNORE] = 0
    size = truth.shape
    for label, row in enumerate(boundary_counts(truth, prediction, 3)):
        masks = [labels == label for labels in (truth, prediction)]
        outlines = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in masks]
        near = [ndimage.distance_transform_edt(~outline) <= tolerance_pixels(*size) for outline in outlines]
        steps = {"structure": np.ones((3, 3)), "iterations": band_pixels(*size), "border_value": 0}
        one, other = (mask & ~ndimage.binary_erosion(mask, **steps) for mask in masks)
        (true, predicted), (near_true, near_predicted) = outlines, near
        pixels = (true, true & near_predicted, predicted, predicted & near_true, one & other, one | other)
        assert row.tolist() == [np.count_nonzero(mask) for mask in pixels]


@pytest.mark.parametrize(("size", "tolerance", "band"), [(32, 1, 1), (128, 2, 4), (256, 3, 7), (512, 6, 14)])
def test_near_is_a_share_of_the_diagonal(size, tolerance, band):
    assert (tolerance_pixels(size, size), band_pixels(size, size)) == (tolerance, band)
    assert (tolerance_pixels(3 * size, 4 * size), band_pixels(30, 40)) == (math.ceil(0.04 * size), 1)


@pytest.mark.parametrize(("shift", "matched"), [(0, 76), (1, 76), (2, 76), (3, 42)])
def test_a_shifted_square_matches_up_to_the_tolerance(shift, matched):
    """Shifted by 3, beyond the tolerance of 2, a column is missed, and the other but for three pixels at each end."""
    row = named(boundary_counts(square(), square(shift), 2), 1)
    assert [row[name] for name in NAMES[:4]] == [76, matched, 76, matched]
    assert scores_of(square(), square(shift))["f_score"][1] == pytest.approx(matched / 76)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_boundary_iou_of_a_shifted_square(shift):
    """Bands of 4 pixels within squares of 20: 400 - 144 each; both hold what lies in neither inner square."""
    both = 20 * (20 - shift) - 12 * (12 + shift)
    iou = both / (2 * (400 - 144) - both)
    assert scores_of(square(), square(shift))["iou"][1] == pytest.approx(iou)


def test_the_edge_of_the_image_bounds_a_band_and_is_no_outline():
    """A half and its neighbour: the band of 4 pixels runs along all four sides, the outline along one."""
    truth, prediction = np.zeros((2, 128, 128), np.uint8)
    truth[:, 64:] = prediction[:, 66:] = 1
    row = named(boundary_counts(truth, prediction, 2), 0)
    both = 128 * 64 - 120 * 58
    assert row == {
        "true": 128, "matched_true": 128, "predicted": 128, "matched_predicted": 128,
        "both": both, "either": (128 * 64 - 120 * 56) + (128 * 66 - 120 * 58) - both,
    }  # fmt: skip


def test_equal_maps_score_one_and_absent_classes_nothing():
    truth, _ = maps(0)
    for at_ignored in (1, 3):  # whatever is predicted there
        result = scores_of(truth, np.where(truth == IGNORE, at_ignored, truth), 4)
        for name in ("precision", "recall", "f_score", "iou"):
            assert result[name][:3].tolist() == [1, 1, 1]
            assert result[name][3].isnan()
        assert result["mean_f_score"] == result["mean_iou"] == 1


def test_nothing_beside_an_ignored_region_is_an_outline_or_a_band():
    """An ignored strip between two classes: no outline is left, and the band ends where the other class is too far."""
    truth = np.zeros((128, 128), np.uint8)
    truth[:, 64:] = 1
    truth[:, 62:66] = IGNORE
    counts = boundary_counts(truth, (truth == 1).astype(np.uint8), 2)
    assert counts[:, :4].tolist() == [[0] * 4] * 2
    assert counts[0, 5] == 128 * 62 - 120 * (62 - 4)  # along the edges of the image; class 1 is 5 columns away
    truth[:, 64] = 1
    assert boundary_counts(truth, truth, 2)[0, 5] == 128 * 62 - 120 * (62 - 4 - 2)  # now 3 away


def test_everything_ignored_scores_nothing():
    result = scores_of(np.full((9, 9), IGNORE, np.uint8), np.zeros((9, 9), np.uint8))
    assert all(value.isnan().all() for value in result.values())


def test_an_invented_or_missed_class_scores_zero():
    empty = np.zeros_like(square())
    missed, invented = scores_of(square(), empty), scores_of(empty, square())
    for result, absent, present in ((missed, "precision", "recall"), (invented, "recall", "precision")):
        assert result["f_score"].tolist() == [0, 0]  # the background, too, has an outline on one side only
        assert result["iou"][1] == 0
        assert result[absent].isnan().all()
        assert result[present].tolist() == [0, 0]
    far = scores_of(square(), np.roll(square(), 40, 0))
    assert far["f_score"].tolist() == [0, 0]


def test_one_class_everywhere_has_no_outline_and_a_band_along_the_edge():
    result = scores_of(np.ones((64, 64), np.uint8), np.ones((64, 64), np.uint8))
    assert result["f_score"].isnan().all()
    assert result["mean_f_score"].isnan()
    assert result["iou"][0].isnan()
    assert result["iou"][1] == 1


@pytest.mark.parametrize("seed", range(4))
def test_flips_transposes_and_renamed_classes_change_nothing(seed):
    truth, prediction = maps(seed, 40, 56)
    shares = {"tolerance": 0.05, "band": 0.05}
    counts = boundary_counts(truth, prediction, 4, **shares)
    for turn in (np.flipud, np.fliplr, np.transpose, np.rot90):
        assert np.array_equal(boundary_counts(turn(truth), turn(prediction), 4, **shares), counts)
    new_label = np.array([2, 3, 0, 1, *range(4, 256)], np.uint8)
    renamed = boundary_counts(new_label[truth], new_label[prediction], 4, **shares)
    assert np.array_equal(renamed[new_label[:4]], counts)
    prediction[truth == IGNORE] = IGNORE
    assert np.array_equal(boundary_counts(prediction, truth, 4, **shares), counts[:, [2, 3, 0, 1, 4, 5]])


def test_scores_of_counts_by_hand_and_of_many_at_once():
    counts = torch.tensor([[[40, 30, 50, 20, 3, 4], [10, 0, 0, 0, 0, 6], [0, 0, 0, 0, 0, 0]]]).repeat(5, 1, 1)
    result = boundary_scores(counts)
    assert all(value.dtype == torch.float64 for value in result.values())
    assert result["f_score"].shape == (5, 3)
    assert result["mean_iou"].shape == (5,)
    assert result["precision"][4, 0] == 0.4
    assert result["recall"][4, 0] == 0.75
    assert result["f_score"][4, 0].item() == pytest.approx(2 * 0.4 * 0.75 / 1.15)
    assert result["mean_f_score"][4].item() == pytest.approx(0.4 * 0.75 / 1.15)  # of two classes
    assert result["mean_iou"][4].item() == 0.375
    summed = boundary_scores(counts.sum(0))  # as many images of the same counts
    torch.testing.assert_close(summed["f_score"], result["f_score"][0], equal_nan=True)
