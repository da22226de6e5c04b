"""Losses of regions: how much each class overlaps with the truth, over all pixels of a batch."""

from segmentation_models_pytorch import losses
from torch import Tensor


class TverskyLoss(losses.TverskyLoss):
    """1 - Tversky index, TP / (TP + alpha FP + beta FN), mean over classes.

    Salehi et al. 2017, https://arxiv.org/abs/1706.05721. With 0.5 and 0.5 it is the Dice loss, with 1 and 1 the
    Jaccard loss. It is that of segmentation_models_pytorch, with half-precision logits scored in float32. A class
    that no pixel of the batch has costs nothing, and counts in the mean.

    Args:
        alpha: weight of the false positives, >= 0.
        beta: weight of the false negatives, >= 0.
        smooth: pixels added to both sides of the fraction, >= 0.
        ignore_index: value in the masks that does not count.
    """

    def __init__(self, alpha: float, beta: float, smooth: float = 0.0, ignore_index: int = 255) -> None:
        super().__init__("multiclass", smooth=smooth, ignore_index=ignore_index, alpha=alpha, beta=beta)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Of the batch as one picture, in float32; 0, and its gradient too, where no pixel counts.

        Args:
            logits: float (B, K, H, W).
            masks: int64 (B, H, W), 0..K-1 or `ignore_index`.

        Returns:
            Scalar in 0..1.
        """
        return super().forward(logits.float(), masks)


class DiceLoss(TverskyLoss):
    """1 - Dice, 2 TP / (2 TP + FP + FN), mean over classes: Tversky with 0.5 and 0.5. Arguments as there."""

    def __init__(self, smooth: float = 0.0, ignore_index: int = 255) -> None:
        super().__init__(0.5, 0.5, smooth, ignore_index)


class JaccardLoss(TverskyLoss):
    """1 - IoU, TP / (TP + FP + FN), mean over classes: Tversky with 1 and 1. Arguments as there."""

    def __init__(self, smooth: float = 0.0, ignore_index: int = 255) -> None:
        super().__init__(1.0, 1.0, smooth, ignore_index)
