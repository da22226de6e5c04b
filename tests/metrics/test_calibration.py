"""Temperature, calibration error, expected mean IoU and review, against other libraries and counts by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from petseg_lightning.metrics.calibration import (
    TEMPERATURES,
    ExpectedOverlap,
    calibration_counts,
    expected_calibration_error,
    expected_miou,
    fit_temperature,
    review_curve,
    share_to_look_at,
    temperature_slopes,
)
from petseg_lightning.metrics.confusion import IGNORE


def drawn(probabilities: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Masks (B,H,W) drawn from probabilities (B,K,H,W)."""
    generator = torch.Generator().manual_seed(seed)
    batch, classes, height, width = probabilities.shape
    flat = probabilities.permute(0, 2, 3, 1).reshape(-1, classes)
    return torch.multinomial(flat, 1, generator=generator).view(batch, height, width)


def random_logits(*shape: int, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * scale


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.7])
def test_the_temperature_of_logits_that_were_scaled(factor):
    logits = random_logits(256, 3, 8, 8)
    masks = drawn(logits.softmax(1))
    slopes = sum(
        temperature_slopes(factor * part, mask) for part, mask in zip(logits.split(64), masks.split(64), strict=True)
    )
    assert fit_temperature(slopes) == pytest.approx(factor, rel=0.03)  # of 16,384 drawn pixels


def test_the_temperature_minimizes_the_cross_entropy():
    logits = random_logits(32, 4, 8, 8)
    masks = drawn((logits / 2.3 + random_logits(32, 4, 1, 1)).softmax(1))
    masks[:, :2] = IGNORE
    fitted = fit_temperature(temperature_slopes(logits, masks))
    nearby = [fitted * step for step in (0.98, 1.0, 1.02)]
    low, best, high = (torch.nn.functional.cross_entropy(logits / t, masks, ignore_index=IGNORE) for t in nearby)
    assert best < low
    assert best < high


def test_an_even_grid_of_a_large_image_is_enough():
    logits = random_logits(4, 3, 1, 1).expand(4, 3, 160, 130) + random_logits(4, 3, 160, 130)
    masks = drawn(logits.softmax(1))
    assert fit_temperature(temperature_slopes(2 * logits, masks)) == pytest.approx(2, rel=0.2)


def test_temperatures_at_the_ends():
    masks = torch.randint(3, (2, 16, 16))
    right = 5 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert fit_temperature(temperature_slopes(right, masks)) == TEMPERATURES[-1]
    assert fit_temperature(temperature_slopes(-right, masks)) == TEMPERATURES[0]
    assert fit_temperature(temperature_slopes(right, torch.full_like(masks, IGNORE))) == 1
    assert fit_temperature(temperature_slopes(right[:, :1], torch.zeros_like(masks))) == 1


def test_calibration_error_as_torchmetrics_has_it():
    probabilities = random_logits(6, 4, 20, 30).softmax(1)
    masks = torch.randint(4, (6, 20, 30))
    masks[:, :, :4] = IGNORE
    oracle = MulticlassCalibrationError(4, n_bins=15, norm="l1", ignore_index=IGNORE)
    flat = probabilities.permute(0, 2, 3, 1).reshape(-1, 4)
    counts = calibration_counts(probabilities, masks)
    assert counts.shape == (6, 15, 3)
    assert float(expected_calibration_error(counts.sum(0))) == pytest.approx(
        float(oracle(flat, masks.flatten())), abs=1e-5
    )
    for image in range(6):
        one = calibration_counts(probabilities[image : image + 1], masks[image : image + 1])
        torch.testing.assert_close(one[0], counts[image])
    assert counts[..., 0].sum() == (masks != IGNORE).sum()


def test_certain_pixels_are_in_the_last_bin_and_nothing_has_no_error():
    counts = calibration_counts(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))
    assert counts[0, 14].tolist() == [1, 1, 1]
    assert expected_calibration_error(counts.sum(0)) == 0
    assert expected_calibration_error(torch.zeros(15, 3)).isnan()


def test_the_expected_miou_is_what_drawn_masks_give():
    probabilities = (3 * random_logits(1, 3, 8, 8)).softmax(1).repeat_interleave(20, 2).repeat_interleave(20, 3)
    predictions, found = probabilities.argmax(1), []
    for seed in range(20):
        masks = drawn(probabilities, seed)
        pairs = [((predictions == k) & (masks == k), (predictions == k) | (masks == k)) for k in range(3)]
        found.append(np.mean([float(both.sum() / either.sum()) for both, either in pairs]))
    assert float(expected_miou(probabilities)[0]) == pytest.approx(np.mean(found), abs=0.005)


def test_a_sure_picture_is_sure_whatever_its_classes():
    one = torch.zeros(2, 3, 4, 4)
    one[0, 1] = 1
    one[1, :, :2] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    one[1, :, 2:] = torch.tensor([0, 0, 1.0]).view(3, 1, 1)
    assert expected_miou(one).tolist() == [1, 1]
    assert expected_miou(torch.full((1, 3, 4, 4), 1 / 3))[0] < 0.4


def test_the_review_by_hand():
    mious = torch.tensor([0.9, 0.2, 0.6, 0.4])
    confidences = torch.tensor([0.8, 0.3, 0.1, 0.5])  # looked at: 0.6, 0.2, 0.4, 0.9
    curve = review_curve(confidences, mious)
    assert curve[:, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve[:, 1].tolist() == [0, 0, 0.5, 1, 1]
    torch.testing.assert_close(curve[:4, 2], torch.tensor([0.525, 0.5, 0.65, 0.9], dtype=torch.float64))
    assert curve[4, 2].isnan()
    assert [share_to_look_at(curve, found) for found in (0.5, 0.8, 1.0)] == [0.5, 0.75, 0.75]
    assert np.isnan(share_to_look_at(review_curve(confidences, torch.ones(4)), 0.5))


def test_the_expected_overlap_of_a_picture_is_that_of_its_parts():
    probabilities = torch.randn(2, 4, 20, 30, generator=torch.Generator().manual_seed(0)).mul(3).softmax(1)
    first, second = (ExpectedOverlap.of(part) for part in probabilities.split((7, 13), dim=2))
    torch.testing.assert_close(first.with_part(second).miou(), expected_miou(probabilities))
