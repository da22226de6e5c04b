import numpy as np
import pytest
import torch

from petseg_lightning.errors import InputError
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss

WEIGHTS = [0.5, 2.0, 0.0]


def batch(ignored: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 5), large ones among them, and masks with a fifth of the pixels ignored."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, 3, (2, 4, 5), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = ignored
    return 20 * torch.randn(2, 3, 4, 5, generator=generator), masks


def brute_force(logits, masks, weights, ignored=255, smoothing=0.0) -> tuple[float, np.ndarray]:
    """Loss and its gradient, pixel by pixel in float64; smoothing weighs each class's share by its own weight."""
    logits, masks = logits.double().numpy(), masks.numpy()
    total, weight_sum, gradient = 0.0, 0.0, np.zeros_like(logits)
    for b, y, x in np.ndindex(masks.shape):
        label = masks[b, y, x]
        if label == ignored:
            continue
        shifted = logits[b, :, y, x] - logits[b, :, y, x].max()
        probabilities = np.exp(shifted) / np.exp(shifted).sum()
        truth = np.array(weights) * ((1 - smoothing) * np.eye(3)[label] + smoothing / 3)
        total += truth @ (np.log(np.exp(shifted).sum()) - shifted)
        weight_sum += weights[label]
        gradient[b, :, y, x] = truth.sum() * probabilities - truth
    return total / weight_sum, gradient / weight_sum


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignored", [255, -1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_a_count_by_hand(weights, ignored, smoothing):
    logits, masks = batch(ignored)
    logits.requires_grad_()
    loss = CrossEntropyLoss(weights, smoothing, ignore_index=ignored)(logits, masks)
    loss.backward()
    expected, gradient = brute_force(logits.detach(), masks, weights or [1, 1, 1], ignored, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_torch(weights, smoothing):
    logits, masks = batch()
    torch_weights = None if weights is None else torch.tensor(weights)
    expected = torch.nn.CrossEntropyLoss(torch_weights, ignore_index=255, label_smoothing=smoothing)(logits, masks)
    torch.testing.assert_close(CrossEntropyLoss(weights, smoothing)(logits, masks), expected)


@pytest.mark.parametrize(("weights", "value"), [(None, 255), (WEIGHTS, 255), (WEIGHTS, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_batch_in_which_nothing_counts_has_loss_and_gradient_zero(weights, value, smoothing):
    logits, masks = batch()
    logits.requires_grad_()
    loss = CrossEntropyLoss(weights, smoothing)(logits, masks.fill_(value))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_logits_are_scored_in_float32(autocast):
    logits, masks = batch()
    logits = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = CrossEntropyLoss()(logits, masks)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CrossEntropyLoss()(logits.float(), masks), rtol=1e-6, atol=0)


def test_weights_stay_out_of_the_state_dict_but_move_with_the_module():
    loss = CrossEntropyLoss(WEIGHTS)
    assert loss.state_dict() == {}
    assert loss.to("meta").class_weights.is_meta


@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_weights_is_refused(count):
    logits, masks = batch()
    with pytest.raises(InputError, match=rf"class_weights=\[1.0, .* has {count} weights for 3 classes; give one"):
        CrossEntropyLoss([1] * count)(logits, masks)


@pytest.mark.parametrize("weights", [[1, -1], [1, float("nan")], [1, float("inf")], [0, 0], []])
def test_weights_that_are_no_weights_are_refused(weights):
    with pytest.raises(InputError, match=r"class_weights=\[.*finite, at least 0 and not all 0; give"):
        CrossEntropyLoss(weights)
