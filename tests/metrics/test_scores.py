import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification as torchmetrics

from petseg_lightning.metrics.scores import scores

PER_CLASS = ("iou", "dice", "precision", "recall")


def pixels(num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of 2000 pixels, right in a good half of them."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, num_classes, 2000)
    predicted = np.where(generator.random(2000) < 0.6, true, generator.integers(0, num_classes, 2000))
    return true, predicted


def matrix_of(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> torch.Tensor:
    return torch.from_numpy(sklearn_metrics.confusion_matrix(true, predicted, labels=range(num_classes)))


def brute_force(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """All scores from sets of pixels, without a matrix; 0 / 0 is NaN."""

    def ratio(numerator: float, denominator: float) -> float:
        return numerator / denominator if denominator else math.nan

    def mean(values: list[float]) -> float:
        present = [value for value in values if not math.isnan(value)]
        return ratio(sum(present), len(present))

    result: dict = {name: [] for name in PER_CLASS}
    for label in range(num_classes):
        truth, prediction = set(np.flatnonzero(true == label)), set(np.flatnonzero(predicted == label))
        both = len(truth & prediction)
        result["iou"].append(ratio(both, len(truth | prediction)))
        result["dice"].append(ratio(2 * both, len(truth) + len(prediction)))
        result["precision"].append(ratio(both, len(prediction)))
        result["recall"].append(ratio(both, len(truth)))
    result["accuracy"] = ratio(int((true == predicted).sum()), len(true))
    result["miou"], result["mean_dice"] = mean(result["iou"]), mean(result["dice"])
    return result


def assert_scores(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> None:
    actual = scores(matrix_of(true, predicted, num_classes))
    expected = brute_force(true, predicted, num_classes)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_scores_are_those_of_sets_of_pixels(num_classes):
    assert_scores(*pixels(num_classes), num_classes)


def test_scores_are_those_of_sklearn():
    true, predicted = pixels(3)
    actual = scores(matrix_of(true, predicted, 3))
    per_class = {
        "iou": sklearn_metrics.jaccard_score,
        "dice": sklearn_metrics.f1_score,
        "precision": sklearn_metrics.precision_score,
        "recall": sklearn_metrics.recall_score,
    }
    for name, function in per_class.items():
        np.testing.assert_allclose(actual[name], function(true, predicted, average=None), err_msg=name)
    assert actual["accuracy"].item() == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
    assert actual["miou"].item() == pytest.approx(sklearn_metrics.jaccard_score(true, predicted, average="macro"))
    assert actual["mean_dice"].item() == pytest.approx(sklearn_metrics.f1_score(true, predicted, average="macro"))


def test_scores_are_those_of_torchmetrics():
    true, predicted = pixels(4)
    actual = scores(matrix_of(true, predicted, 4))
    arguments = (torch.from_numpy(predicted), torch.from_numpy(true), 4)
    for name, function in {
        "iou": torchmetrics.multiclass_jaccard_index,
        "dice": torchmetrics.multiclass_f1_score,
        "precision": torchmetrics.multiclass_precision,
        "recall": torchmetrics.multiclass_recall,
    }.items():
        expected = function(*arguments, average="none").double()
        torch.testing.assert_close(actual[name], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        actual["accuracy"].float(), torchmetrics.multiclass_accuracy(*arguments, average="micro")
    )


def test_absent_class_is_nan_and_left_out_of_the_means():
    true, predicted = pixels(3)
    assert_scores(true, predicted, 5)
    with_absent, without = scores(matrix_of(true, predicted, 5)), scores(matrix_of(true, predicted, 3))
    for name in PER_CLASS:
        assert with_absent[name][3:].isnan().all()
        assert torch.equal(with_absent[name][:3], without[name])
    for name in ("accuracy", "miou", "mean_dice"):
        assert with_absent[name] == without[name]


def test_missed_class_counts_as_zero_and_has_no_precision():
    actual = scores(torch.tensor([[6, 0], [4, 0]]))
    assert actual["iou"].tolist() == [0.6, 0.0]
    assert actual["miou"] == 0.3
    assert actual["recall"].tolist() == [1.0, 0.0]
    assert actual["precision"][0] == 0.6
    assert actual["precision"][1].isnan()


def test_invented_class_counts_as_zero_and_has_no_recall():
    actual = scores(torch.tensor([[6, 4], [0, 0]]))
    assert actual["iou"].tolist() == [0.6, 0.0]
    assert actual["precision"].tolist() == [1.0, 0.0]
    assert actual["recall"][1].isnan()


def test_empty_matrix_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = scores(torch.zeros(3, 3, dtype=torch.int64))
    assert all(value.isnan().all() for value in actual.values())


def test_many_matrices_at_once_are_each_on_its_own():
    matrices = torch.stack([matrix_of(*pixels(3, seed), 3) for seed in range(6)]).view(2, 3, 3, 3)
    together = scores(matrices)
    for name, value in together.items():
        assert value.shape == ((2, 3, 3) if name in PER_CLASS else (2, 3))
        torch.testing.assert_close(value[1, 2], scores(matrices[1, 2])[name], rtol=0, atol=0)


def test_one_pixel_in_more_than_float32_can_count_is_seen():
    accuracy = scores(torch.tensor([[2**24, 1], [0, 0]]))["accuracy"]
    assert 1 - accuracy.item() == pytest.approx(2**-24, rel=1e-6)
