"""The sum of those counts: the one state that all scores are computed from."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ConfusionMatrix(Metric):
    """Confusion matrix of all images since the last reset, summed over devices.

    Its integers are exact for any number of pixels, unlike torchmetrics' float32 sums above 2**24.

    Args:
        num_rows: R, classes of the truth.
        num_columns: C, classes of the prediction.
    """

    full_state_update = False
    is_differentiable = False
    matrix: Tensor

    def __init__(self, num_rows: int, num_columns: int) -> None:
        super().__init__()
        self.add_state("matrix", torch.zeros(num_rows, num_columns, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Add the int64 (B, R, C) counts of a batch."""
        self.matrix += counts.sum(dim=0)

    def compute(self) -> Tensor:
        """The matrix, int64 (R, C): row = truth, column = prediction."""
        return self.matrix
