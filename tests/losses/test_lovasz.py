from itertools import pairwise

import numpy as np
import pytest
import torch
from segmentation_models_pytorch import losses
from sklearn.metrics import jaccard_score

from petseg_lightning.losses.lovasz import LovaszLoss, jaccard_gradient


def batch(num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of five classes, of which the first picture has three and the second two; some pixels are ignored."""
    generator = torch.Generator().manual_seed(4)
    masks = torch.randint(0, 3, (2, 6, 5), generator=generator)
    masks[1] %= 2
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return 2 * torch.randn(2, num_classes, 6, 5, generator=generator), masks


def extension(errors: np.ndarray, truth: np.ndarray) -> float:
    """The Lovasz extension by definition: the Jaccard loss of the pixels whose error is above t, integrated over t."""
    steps = np.unique(np.concatenate([[0.0], errors]))
    total = 0.0
    for low, high in pairwise(steps):
        wrong = errors > low
        total += (high - low) * wrong.sum() / (truth | wrong).sum()
    return total


def brute_force(logits, masks) -> float:
    """Of all pictures as one, in float64."""
    counts = (masks != 255).numpy()
    labels = masks.numpy()[counts]
    probabilities = logits.double().softmax(1).movedim(1, -1).numpy()[counts]
    found = [
        extension(np.abs((labels == label) - probabilities[:, label]), labels == label) for label in np.unique(labels)
    ]
    return float(np.mean(found)) if found else 0.0


def test_loss_is_the_extension_by_definition():
    logits, masks = batch()
    assert LovaszLoss()(logits, masks).item() == pytest.approx(brute_force(logits, masks), rel=1e-5)


def test_loss_per_image_is_the_mean_over_the_images_in_which_something_counts():
    logits, masks = batch()
    expected = np.mean([brute_force(logits[i : i + 1], masks[i : i + 1]) for i in range(2)])
    assert LovaszLoss(per_image=True)(logits, masks).item() == pytest.approx(expected, rel=1e-5)
    with_nothing = torch.cat((logits, logits[:1])), torch.cat((masks, torch.full_like(masks[:1], 255)))
    assert LovaszLoss(per_image=True)(*with_nothing).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("ignored", [255, 1])
def test_loss_and_gradient_are_those_of_the_library(per_image, ignored):
    logits, masks = batch()
    logits.requires_grad_()
    masks[masks == 255] = ignored
    theirs = losses.LovaszLoss("multiclass", per_image=per_image, ignore_index=ignored)(logits, masks)
    mine = LovaszLoss(per_image, ignored)(logits, masks)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (mine, theirs)))


def test_loss_of_hard_predictions_is_1_minus_the_iou():
    logits, masks = batch(num_classes=3)
    predictions, counts = logits.argmax(1), masks != 255
    hard = 200 * torch.nn.functional.one_hot(predictions, 3).movedim(-1, 1).float()
    expected = 1 - jaccard_score(masks[counts], predictions[counts], average="macro")
    assert LovaszLoss()(hard, masks).item() == pytest.approx(expected, rel=1e-6)


def test_gradients_are_as_exact_where_there_are_many_pixels():
    generator = torch.Generator().manual_seed(5)
    errors, truth = torch.rand(200_000, generator=generator), torch.rand(200_000, generator=generator) < 0.3
    order = np.argsort(-errors.numpy(), kind="stable")
    missed = np.cumsum(truth.numpy()[order].astype(float))
    jaccard = 1 - (missed[-1] - missed) / (missed[-1] + np.arange(1, 200_001) - missed)
    expected = np.empty_like(jaccard)
    expected[order] = np.diff(jaccard, prepend=0)
    np.testing.assert_allclose(jaccard_gradient(errors, truth).numpy(), expected, rtol=1e-5)
