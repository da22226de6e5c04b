import numpy as np
import pytest
import torch
from segmentation_models_pytorch import losses
from sklearn.metrics import f1_score, jaccard_score

from petseg_lightning.config import build, compose
from petseg_lightning.losses.tversky import TverskyLoss

DICE, JACCARD, OTHER = (0.5, 0.5), (1, 1), (0.3, 0.7)  # weights of false and of missed pixels


def batch(num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of five classes, of which the masks have three; a fifth of the pixels is ignored."""
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(0, 3, (3, 6, 5), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return 2 * torch.randn(3, num_classes, 6, 5, generator=generator), masks


def brute_force(logits, masks, alpha, beta, smooth) -> float:
    """Pixel by pixel in float64."""
    logits, masks = logits.double().numpy(), masks.numpy()
    losses = np.zeros(logits.shape[1])
    for label in range(logits.shape[1]):
        right = false = missed = pixels = 0.0
        for b, y, x in np.ndindex(masks.shape):
            if masks[b, y, x] == 255:
                continue
            p = np.exp(logits[b, label, y, x]) / np.exp(logits[b, :, y, x]).sum()
            if masks[b, y, x] == label:
                right, missed, pixels = right + p, missed + 1 - p, pixels + 1
            else:
                false += p
        if pixels:
            losses[label] = 1 - (right + smooth) / (right + alpha * false + beta * missed + smooth)
    return losses.mean()


@pytest.mark.parametrize("weights", [DICE, JACCARD, OTHER])
@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_loss_is_that_of_a_count_by_hand(weights, smooth):
    loss = TverskyLoss(*weights, smooth)(*batch())
    assert loss.item() == pytest.approx(brute_force(*batch(), *weights, smooth), rel=1e-5)


@pytest.mark.parametrize(("weights", "score"), [(DICE, f1_score), (JACCARD, jaccard_score)])
def test_loss_of_hard_predictions_is_1_minus_the_score(weights, score):
    logits, masks = batch(num_classes=3)
    predictions, counts = logits.argmax(1), masks != 255
    hard = 200 * torch.nn.functional.one_hot(predictions, 3).movedim(-1, 1).float()
    expected = 1 - score(masks[counts], predictions[counts], average="macro")
    assert TverskyLoss(*weights)(hard, masks).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "library"), [("dice", losses.DiceLoss), ("jaccard", losses.JaccardLoss)])
def test_dice_and_jaccard_are_those_of_the_library_with_the_same_gradient(name, library):
    logits, masks = batch()
    logits.requires_grad_()
    mine = build(compose("train", [f"loss={name}"]).loss)(logits, masks)
    theirs = library("multiclass", ignore_index=255)(logits, masks)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (mine, theirs)))


@pytest.mark.parametrize("certainty", [13, 15, 17, 40])
@pytest.mark.parametrize("weights", [DICE, JACCARD, OTHER, (0, 1), (1, 0)])
def test_no_rounding_makes_a_loss_negative(weights, certainty):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        masks = torch.randint(0, 2, (2, 131, 129), generator=generator)
        noise = torch.rand(2, 2, 131, 129, generator=generator)
        logits = certainty * torch.nn.functional.one_hot(masks, 2).movedim(-1, 1) + noise
        assert TverskyLoss(*weights)(logits, masks) >= 0
