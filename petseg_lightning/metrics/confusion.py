"""From predictions to counts of pixels, image by image."""

import torch
from torch import Tensor

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
    width, cells = num_columns + 1, (num_rows + 1) * (num_columns + 1)  # the last row and column: what is no class
    bytes_suffice = masks.dtype == predictions.dtype == torch.uint8 and cells <= 256
    dtype = torch.uint8 if bytes_suffice else torch.int32
    true, predicted = _clipped(masks.to(dtype), num_rows), _clipped(predictions.to(dtype), num_columns)  # (B, H, W)
    table = _bincount((true * width + predicted).flatten(1), cells).unflatten(1, (num_rows + 1, width))
    counts = table[:, :num_rows, :num_columns]
    only_ignored = table.sum() - counts.sum() == (masks == IGNORE).count_nonzero()
    if masks.is_cuda:
        torch._assert_async(only_ignored, "a true or predicted class is out of range")
    elif not only_ignored:
        wrong = (masks != IGNORE) & ((true == num_rows) | (predicted == num_columns))
        raise InputError(
            f"masks hold {masks[wrong].unique().tolist()} where {predictions[wrong].unique().tolist()} is "
            f"predicted: true classes are 0..{num_rows - 1} or {IGNORE} (ignored), predicted ones "
            f"0..{num_columns - 1}; correct the masks or the number of classes"
        )
    return counts


def _clipped(values: Tensor, number: int) -> Tensor:
    """Integers, with `number` for every one that is not in 0..number-1."""
    if values.dtype != torch.uint8:
        values = values.where(values >= 0, number)
    return values.clamp(max=number)


def _bincount(values: Tensor, length: int) -> Tensor:
    """How often each of 0..length-1 is in each row of integers (B,N), as int64 (B,length)."""
    counts = torch.zeros(len(values), length, dtype=torch.int64, device=values.device)
    if values.is_cuda:  # where bincount would wait
        indices = values.long()
        return counts.scatter_add_(1, indices, torch.ones_like(indices))
    for image, row in enumerate(values):
        counts[image] = torch.bincount(row, minlength=length)
    return counts
