"""Pixel-wise cross-entropy."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.errors import InputError


class CrossEntropyLoss(nn.Module):
    """Mean cross-entropy over the pixels that are not ignored, weighted by the class of the pixel.

    Differs from `torch.nn.CrossEntropyLoss` in two ways: a batch without any weight (all pixels ignored, or
    of classes of weight 0) has loss 0 and gradient 0 instead of NaN, and it is deterministic on CUDA.

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

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Sum of weighted negative log-likelihoods / sum of weights, in float32.

        Args:
            logits: float (B, K, H, W).
            masks: int64 (B, H, W), 0..K-1 or `ignore_index`.

        Returns:
            Scalar >= 0.

        Raises:
            InputError: there are not K class weights.
        """
        weights, num_classes = self.class_weights, logits.shape[1]
        if weights is not None and len(weights) != num_classes:
            raise InputError(
                f"loss.class_weights={weights.tolist()} has {len(weights)} weights for {num_classes} "
                "classes; give one number per class"
            )
        reduction = "none" if logits.is_cuda else "sum"  # faster, but not deterministic on CUDA
        losses = F.cross_entropy(logits.float(), masks, weights, ignore_index=self.ignore_index, reduction=reduction)
        valid = masks != self.ignore_index
        counted = valid if weights is None else weights[masks.where(valid, 0)].where(valid, 0)
        return losses.sum() / counted.sum().clamp(min=torch.finfo(torch.float32).tiny)
