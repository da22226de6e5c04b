"""From predictions to counts of pixels: the one state that all scores are computed from."""

import torch
from torch import Tensor
from torchmetrics import Metric

from petseg_lightning.errors import InputError

IGNORE = 255  # value in a mask that is no class and does not count


def confusion_counts(predictions: Tensor, masks: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """How many pixels of each true class were predicted as each class, image by image.

    It never waits for the device.

    Args:
        predictions: integer (B, H, W), 0..C-1.
        masks: integer (B, H, W), 0..R-1 or IGNORE.
        num_rows: R, classes of the truth.
        num_columns: C, classes of the prediction.

    Returns:
        int64 (B, R, C).

    Raises:
        InputError: a mask holds another value, or a pixel that counts is predicted as no class. On a GPU this is found
            by the device, at a later moment, as an AssertionError of CUDA.
    """
    batch, cells = len(masks), num_rows * num_columns  # the cell behind the last is for pixels that do not count
    bytes_suffice = masks.dtype == predictions.dtype == torch.uint8 and cells < 256
    dtype = torch.uint8 if bytes_suffice else torch.int32
    true, predicted = masks.to(dtype), predictions.to(dtype)  # (B, H, W)
    counted = (true < num_rows) & (predicted < num_columns)
    if not bytes_suffice:
        counted &= (true >= 0) & (predicted >= 0)
    cell = (true * num_columns + predicted).where(counted, cells)
    images = torch.arange(batch, device=masks.device, dtype=torch.int32).view(-1, 1, 1)
    flat = (images * (cells + 1) + cell).flatten()
    counts = _bincount(flat, batch * (cells + 1)).view(batch, cells + 1)
    only_ignored = counts[:, -1].sum() == (masks == IGNORE).sum()
    if masks.is_cuda:
        torch._assert_async(only_ignored, "a true or predicted class is out of range")
    elif not only_ignored:
        wrong = ~counted & (masks != IGNORE)
        raise InputError(
            f"masks hold {masks[wrong].unique().tolist()} where {predictions[wrong].unique().tolist()} is "
            f"predicted: true classes are 0..{num_rows - 1} or {IGNORE} (ignored), predicted ones "
            f"0..{num_columns - 1}; correct the masks or the number of classes"
        )
    return counts[:, :-1].reshape(batch, num_rows, num_columns)


def _bincount(values: Tensor, length: int) -> Tensor:
    """How often each of 0..length-1 is in int32 (N,), as int64 (length,)."""
    if not values.is_cuda:
        return torch.bincount(values, minlength=length)
    counts = torch.zeros(length, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, values.long(), torch.ones_like(values, dtype=torch.int64))  # bincount would wait


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
