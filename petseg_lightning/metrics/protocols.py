"""One table of counts, scored under several definitions of the classes."""

from collections.abc import Sequence

from torch import Tensor

from petseg_lightning.metrics.confusion import IGNORE


def merge_counts(counts: Tensor, rows: Sequence[int], columns: Sequence[int], num_classes: int) -> Tensor:
    """Merge the parts of the truth and the classes of the model into the classes of a protocol.

    Args:
        counts: integer (..., R, C), row = part of the truth, column = class of the model.
        rows: the protocol's class of each of the R parts; 255: not counted.
        columns: the protocol's class of each of the C classes.
        num_classes: K of the protocol.

    Returns:
        Integer (..., K, K).
    """
    merged = counts.new_zeros(*counts.shape[:-2], num_classes, num_classes)
    for row, true in enumerate(rows):
        for column, predicted in enumerate(columns):
            if true != IGNORE:
                merged[..., true, predicted] += counts[..., row, column]
    return merged
