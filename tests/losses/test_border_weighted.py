import numpy as np
import pytest
import torch

from petseg_lightning.errors import InputError
from petseg_lightning.losses.border_weighted import BorderWeightedLoss, near_border
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss

WEIGHTS = [0.5, 2.0, 0.0]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures (9, 12) with rectangles of three classes, holes of ignored pixels, and a class 2 of one pixel."""
    masks = torch.zeros(2, 9, 12, dtype=torch.long)
    masks[0, 2:6, 3:8], masks[0, 0, 11], masks[0, 4, 4:12], masks[1, :, 7:] = 1, 2, 255, 1
    return 4 * torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(6)), masks


def near_by_hand(masks: np.ndarray, width: int) -> np.ndarray:
    near = np.zeros(masks.shape, bool)
    for b, y, x in np.ndindex(masks.shape):
        window = masks[b, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
        near[b, y, x] = len(set(window.ravel().tolist()) - {255}) > 1
    return near


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_a_pixel_is_near_if_its_window_has_two_classes(width):
    _, masks = batch()
    expected = near_by_hand(masks.numpy(), width)
    assert np.array_equal(near_border(masks, width, 255).numpy(), expected)
    assert expected.any()


def test_without_a_second_class_nothing_is_near():
    masks = torch.full((1, 5, 5), 2)
    masks[0, 1:3] = 255
    assert not near_border(masks, 2, 255).any()
    assert not near_border(masks.fill_(255), 2, 255).any()


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_loss_is_that_of_a_count_by_hand(class_weights):
    logits, masks = batch()
    near, total, weight_sum = near_by_hand(masks.numpy(), 2), 0.0, 0.0
    log_probabilities = logits.double().log_softmax(1).numpy()
    for b, y, x in np.ndindex(masks.shape):
        label = int(masks[b, y, x])
        if label != 255:
            weight = (class_weights or [1, 1, 1])[label] * (5 if near[b, y, x] else 1)
            total -= weight * log_probabilities[b, label, y, x]
            weight_sum += weight
    loss = BorderWeightedLoss(border_weight=4, border_width=2, class_weights=class_weights)
    assert loss(logits, masks).item() == pytest.approx(total / weight_sum, rel=1e-5)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_no_weight_of_the_border_is_the_cross_entropy(class_weights):
    expected = CrossEntropyLoss(class_weights)(*batch())
    torch.testing.assert_close(BorderWeightedLoss(0, 3, class_weights)(*batch()), expected)


def test_wrong_number_of_weights_is_refused():
    with pytest.raises(InputError, match="has 2 weights for 3 classes; give one"):
        BorderWeightedLoss(class_weights=[1, 1])(*batch())
