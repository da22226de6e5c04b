"""From predictions to counts of pixels: the one state that all scores are computed from."""

import torch
from torch import Tensor
from torchmetrics import Metric

from petseg_lightning.errors import InputError

IGNORE = 255  # value in a mask that is no class and does not count


def confusion_counts(predictions: Tensor, masks: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """How many pixels of each true class were predicted as each class, image by image.

    On CUDA it waits for the device once or twice, as `torch.bincount` does, so it belongs into evaluation.

    Args:
        predictions: integer (B, H, W), 0..C-1.
        masks: integer (B, H, W), 0..R-1 or IGNORE.
        num_rows: R, classes of the truth.
        num_columns: C, classes of the prediction.

    Returns:
        int64 (B, R, C).

    Raises:
        InputError: a mask holds another value, or a pixel that counts is predicted as no class.
    """
    batch = len(masks)
    images = torch.arange(batch, device=masks.device).view(-1, 1, 1)
    cells = (images * num_rows + masks) * num_columns + predictions  # (B, H, W)
    counted = (masks >= 0) & (masks < num_rows) & (predictions >= 0) & (predictions < num_columns)
    left_out = batch * num_rows * num_columns
    counts = torch.bincount(cells.where(counted, left_out).flatten(), minlength=left_out + 1)
    if counts[-1] != (masks == IGNORE).sum():
        wrong = ~counted & (masks != IGNORE)
        raise InputError(
            f"masks hold {masks[wrong].unique().tolist()} where {predictions[wrong].unique().tolist()} is "
            f"predicted: true classes are 0..{num_rows - 1} or {IGNORE} (ignored), predicted ones "
            f"0..{num_columns - 1}; correct the masks or the number of classes"
        )
    return counts[:-1].view(batch, num_rows, num_columns)


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
