import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassConfusionMatrix

from petseg_lightning.errors import InputError
from petseg_lightning.metrics.confusion import IGNORE, confusion_counts
from petseg_lightning.metrics.confusion_matrix import ConfusionMatrix


def batch(rows: int, columns: int, dtype=torch.int64) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and masks (3, 7, 9); the last image is ignored altogether."""
    generator = torch.Generator().manual_seed(rows * 10 + columns)
    masks = torch.randint(0, rows, (3, 7, 9), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORE
    masks[2] = IGNORE
    return torch.randint(0, columns, (3, 7, 9), generator=generator).to(dtype), masks.to(dtype)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4), (4, 2), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_counts_are_those_of_a_loop_over_pixels(rows, columns, dtype):
    predictions, masks = batch(rows, columns, dtype)
    expected = np.zeros((3, rows, columns), dtype=np.int64)
    for image, y, x in np.ndindex(masks.shape):
        if masks[image, y, x] != IGNORE:
            expected[image, masks[image, y, x], predictions[image, y, x]] += 1
    counts = confusion_counts(predictions, masks, rows, columns)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts.numpy(), expected)


def test_counts_are_those_of_torchmetrics_and_sklearn():
    predictions, masks = batch(4, 4)
    metric = ConfusionMatrix(4, 4)
    metric.update(confusion_counts(predictions, masks, 4, 4))
    valid = masks != IGNORE
    assert torch.equal(metric.compute(), MulticlassConfusionMatrix(4, ignore_index=IGNORE)(predictions, masks))
    np.testing.assert_array_equal(
        metric.compute().numpy(), confusion_matrix(masks[valid], predictions[valid], labels=range(4))
    )


def test_many_small_classes_do_not_overflow_narrow_integers():
    masks = torch.full((300, 1, 2), 19, dtype=torch.uint8)
    counts = confusion_counts(masks, masks, 20, 20)
    assert counts[299, 19, 19] == 2
    assert counts.sum() == 600


def test_empty_batch_has_no_counts():
    empty = torch.zeros(0, 4, 4, dtype=torch.int64)
    assert confusion_counts(empty, empty, 3, 3).shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (0, 7, r"masks hold \[7\] .*: true classes are 0..2 or 255"),
        (0, -1, r"masks hold \[-1\]"),
        (3, 1, r"masks hold \[1\] where \[3\] is predicted: .* predicted ones 0..2"),
        (-1, 0, r"\[-1\] is predicted"),
    ],
)
def test_value_that_is_no_class_is_refused_and_not_counted_elsewhere(prediction, truth, message):
    predictions, masks = batch(3, 3)
    predictions[1, 2, 3], masks[1, 2, 3] = prediction, truth
    with pytest.raises(InputError, match=message):
        confusion_counts(predictions, masks, 3, 3)


def test_any_prediction_is_welcome_where_the_truth_is_ignored():
    predictions, masks = batch(3, 3)
    expected = confusion_counts(predictions, masks, 3, 3)
    predictions[masks == IGNORE] = 99
    assert torch.equal(confusion_counts(predictions, masks, 3, 3), expected)


def test_metric_sums_images_and_batches_until_reset():
    metric = ConfusionMatrix(2, 3)
    first, second = torch.arange(12).view(2, 2, 3), torch.arange(6).view(1, 2, 3) * 100
    metric.update(first)
    metric.update(second)
    assert torch.equal(metric.compute(), first[0] + first[1] + second[0])
    metric.reset()
    metric.update(second)
    assert torch.equal(metric.compute(), second[0])


def test_metric_is_exact_where_float32_is_not():
    metric, many = ConfusionMatrix(2, 2), 2**24
    metric.update(torch.full((1, 2, 2), many))
    metric.update(torch.ones(1, 2, 2, dtype=torch.int64))
    assert metric.compute().tolist() == [[many + 1] * 2] * 2
    assert torch.tensor(many + 1, dtype=torch.float32) == many  # what a float32 sum would have said


def test_metric_adds_up_devices():
    assert ConfusionMatrix(2, 2)._reductions["matrix"](torch.ones(3, 2, 2)).tolist() == [[3, 3], [3, 3]]
