import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from petseg_lightning.errors import InputError
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.losses.focal import FocalLoss

WEIGHTS = [0.5, 2.0, 0.0]


def batch(num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    masks = torch.randint(0, num_classes, (2, 4, 5), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return 4 * torch.randn(2, num_classes, 4, 5, generator=generator), masks


def brute_force(logits, masks, gamma, weights) -> float:
    """Pixel by pixel in float64."""
    logits, masks = logits.double().numpy(), masks.numpy()
    total, weight_sum = 0.0, 0.0
    for b, y, x in np.ndindex(masks.shape):
        label = masks[b, y, x]
        if label == 255:
            continue
        p = np.exp(logits[b, label, y, x]) / np.exp(logits[b, :, y, x]).sum()
        total += weights[label] * (1 - p) ** gamma * -np.log(p)
        weight_sum += weights[label]
    return total / weight_sum


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0, 0.5, 2, 5.0])
def test_loss_is_that_of_a_count_by_hand(gamma, weights):
    logits, masks = batch()
    expected = brute_force(logits, masks, gamma, weights or [1, 1, 1])
    assert FocalLoss(gamma, weights)(logits, masks).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_loss_and_gradient_of_two_classes_are_those_of_torchvision(gamma):
    logits, masks = batch(2)
    logits.requires_grad_()
    counts = masks != 255
    difference = (logits[:, 1] - logits[:, 0])[counts]  # softmax of two logits is the sigmoid of their difference
    expected = sigmoid_focal_loss(difference, masks[counts].float(), alpha=-1, gamma=gamma, reduction="mean")
    loss = FocalLoss(gamma)(logits, masks)
    torch.testing.assert_close(loss, expected)
    mine, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_gamma_0_is_the_cross_entropy(weights):
    torch.testing.assert_close(FocalLoss(0, weights)(*batch()), CrossEntropyLoss(weights)(*batch()))


@pytest.mark.parametrize("gamma", [0, 0.1, 0.5, 1, 2])
def test_a_pixel_that_is_surely_right_has_a_finite_gradient(gamma):
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    loss = FocalLoss(gamma)(logits, torch.zeros(1, 1, 1, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-30)
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_batch_of_classes_of_weight_0_has_loss_and_gradient_zero():
    logits, masks = batch()
    logits.requires_grad_()
    loss = FocalLoss(class_weights=WEIGHTS)(logits, masks.fill_(2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_wrong_number_of_weights_is_refused():
    with pytest.raises(InputError, match="has 2 weights for 3 classes; give one"):
        FocalLoss(class_weights=[1, 1])(*batch())
