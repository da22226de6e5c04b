import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from petseg_lightning.losses.boundary import BoundaryLoss, signed_distances


def masks() -> np.ndarray:
    """(3, 9, 12): three classes and ignored pixels, two classes, one class."""
    masks = np.zeros((3, 9, 12), np.int64)
    masks[0, 2:6, 3:8], masks[0, 0, 11], masks[0, 4, 4:12], masks[1, :, 7:] = 1, 2, 255, 1
    return masks


def distances_by_hand(masks: np.ndarray, num_classes: int) -> np.ndarray:
    """To the nearest pixel on the other side, less the half pixel from there to the boundary."""
    result = np.zeros((len(masks), num_classes, *masks.shape[1:]))
    for b, label, y, x in np.ndindex(result.shape):
        mask, here = masks[b], masks[b, y, x]
        other_side = (mask != label) & (mask != 255) if here == label else mask == label
        if here == 255 or not other_side.any() or not (mask == label).any():
            continue
        away = min(np.hypot(y - v, x - u) for v, u in np.argwhere(other_side))
        result[b, label, y, x] = (0.5 - away) if here == label else (away - 0.5)
    return result


def test_signed_distances_are_those_of_a_search_by_hand():
    found = signed_distances(masks(), 4, 255)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, distances_by_hand(masks(), 4), atol=1e-6)
    assert not found[2].any()  # of one class only
    assert not found[:, 3].any()  # a class that no picture has


def test_signed_distances_of_a_picture_are_those_of_scipy():
    inside = np.hypot(*np.mgrid[-40:60, -50:70]) < 30
    expected = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    outer, inner = signed_distances(inside[None].astype(np.int64), 2, 255)[0]
    np.testing.assert_allclose(inner, expected, atol=1e-4)
    np.testing.assert_allclose(outer, -inner, atol=1e-4)


def test_loss_is_the_distance_of_the_wrong_pixels():
    truth = torch.zeros(1, 8, 16, dtype=torch.long)
    truth[..., 6:] = 1  # the boundary is at x = 5.5
    truth[0, 7] = 255
    predicted = truth.where(truth != 255, 0)
    predicted[0, 3, 15] = 0  # 9.5 away
    predicted[0, 2, 4] = 1  # 1.5 away
    logits = 200 * torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1).float()
    wrong = 2 * (9.5 + 1.5)  # each in two classes
    assert BoundaryLoss()(logits, truth).item() == pytest.approx(wrong / 16 / (7 * 16), rel=1e-6)


def test_loss_does_not_depend_on_the_resolution():
    truth, shifted = torch.zeros(1, 64, 64, dtype=torch.long), torch.zeros(1, 64, 64, dtype=torch.long)
    truth[:, 16:40, 16:40], shifted[:, 24:48, 16:40] = 1, 1
    logits = 200 * torch.nn.functional.one_hot(shifted, 2).movedim(-1, 1).float()
    large = (
        logits.repeat_interleave(2, 2).repeat_interleave(2, 3),
        truth.repeat_interleave(2, 1).repeat_interleave(2, 2),
    )
    assert BoundaryLoss()(*large).item() == pytest.approx(BoundaryLoss()(logits, truth).item(), rel=0.02)


def test_gradient_is_the_signed_distance():
    truth = torch.from_numpy(masks())
    logits = torch.zeros(3, 3, 9, 12, requires_grad=True)
    BoundaryLoss()(logits, truth).backward()
    phi = torch.from_numpy(distances_by_hand(masks(), 3)) / 12 / (truth != 255).sum()
    expected = (phi - phi.mean(1, keepdim=True)) / 3  # through the softmax of three equal logits
    torch.testing.assert_close(logits.grad, expected.float(), rtol=1e-4, atol=1e-8)
