"""What losses that are a weighted mean over pixels have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from petseg_lightning.errors import InputError


class PixelLoss(nn.Module):
    """Weights of classes, and which pixels do not count.

    Args:
        class_weights: one weight per class, finite and >= 0, not all 0; None: all 1.
        ignore_index: value in the masks that does not count.

    Raises:
        InputError: weights that break these rules.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None, ignore_index: int = 255) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        if weights is not None and not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
            raise InputError(
                f"loss.class_weights={weights.tolist()}: weights must be finite, at least 0 and not all 0; "
                "give one such number per class"
            )
        self.register_buffer("class_weights", weights, persistent=False)
        self.ignore_index = ignore_index

    def checked_weights(self, num_classes: int) -> Tensor | None:
        """The class weights (K,).

        Raises:
            InputError: there are not `num_classes` of them.
        """
        weights = self.class_weights
        if weights is not None and len(weights) != num_classes:
            raise InputError(
                f"loss.class_weights={weights.tolist()} has {len(weights)} weights for {num_classes} "
                "classes; give one number per class"
            )
        return weights

    def pixel_weights(self, masks: Tensor) -> Tensor:
        """The weight of each pixel's class, 0 where it is ignored; bool where all classes weigh 1: (B, H, W)."""
        valid = masks != self.ignore_index
        return valid if self.class_weights is None else self.class_weights[masks.where(valid, 0)].where(valid, 0)


def mean_by_weight(total: Tensor, weights: Tensor) -> Tensor:
    """A sum of weighted losses / the sum of the weights; 0, and its gradient too, where nothing has a weight."""
    weight = weights.sum()
    return total / weight.where(weight > 0, torch.inf)
