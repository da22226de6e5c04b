import numpy as np
import pytest
import torch

from petseg_lightning.metrics.protocols import merge_counts

# rows: the class of each of five parts; columns: the class of each class that the model predicts; classes
CASES = [
    ((1, 0, 2, 0, 2), (0, 1, 2), 3),
    ((0, 1, 255, 2, 255), (0, 1, 2), 3),
    ((0, 1, 1, 1, 1), (0, 1, 1), 2),
    ((0, 1, 0, 1, 0), (1, 0, 0), 2),
    ((0, 1, 255, 1, 255), (1, 0), 2),
    ((255, 255, 255, 255, 255), (0, 1), 2),
]


@pytest.mark.parametrize(("rows", "columns", "num_classes"), CASES)
def test_merging_counts_is_counting_relabelled_pixels(rows, columns, num_classes):
    rng = np.random.default_rng(0)
    counts = torch.zeros(4, 5, len(columns), dtype=torch.int64)
    expected = np.zeros((4, num_classes, num_classes), np.int64)
    for image in range(4):
        for part, predicted in zip(rng.integers(0, 5, 300), rng.integers(0, len(columns), 300), strict=True):
            counts[image, part, predicted] += 1
            if rows[part] != 255:
                expected[image, rows[part], columns[predicted]] += 1
    merged = merge_counts(counts, rows, columns, num_classes)
    assert merged.dtype == torch.int64
    np.testing.assert_array_equal(merged.numpy(), expected)
    np.testing.assert_array_equal(merge_counts(counts.sum(0), rows, columns, num_classes), expected.sum(0))


def test_counts_beyond_float_precision_stay_exact():
    counts = torch.tensor([[2**53 + 1, 0], [0, 1]])
    assert merge_counts(counts, (0, 1), (0, 1), 2)[0, 0] == 2**53 + 1
