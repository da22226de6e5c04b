"""Pixel-wise cross-entropy."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from petseg_lightning.losses.pixel_loss import PixelLoss, mean_by_weight


class CrossEntropyLoss(PixelLoss):
    """Mean cross-entropy over the pixels that are not ignored, weighted by the class of the pixel.

    Differs from `torch.nn.CrossEntropyLoss` in two ways: a batch without any weight (all pixels ignored, or
    of classes of weight 0) has loss 0 and gradient 0 instead of NaN, and it is deterministic on CUDA.

    Args:
        class_weights: one weight per class, finite and >= 0, not all 0; None: all 1.
        label_smoothing: share of the truth, in 0..1, that all classes get alike (Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567); with class weights as torch defines it.
        ignore_index: value in the masks that does not count.

    Raises:
        InputError: weights that break these rules.
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0, ignore_index: int = 255
    ) -> None:
        super().__init__(class_weights, ignore_index)
        self.label_smoothing = label_smoothing

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
        losses = F.cross_entropy(
            logits.float(),
            masks,
            self.checked_weights(logits.shape[1]),
            ignore_index=self.ignore_index,
            reduction="none" if logits.is_cuda else "sum",  # faster, but not deterministic on CUDA
            label_smoothing=self.label_smoothing,
        )
        return mean_by_weight(losses.sum(), self.pixel_weights(masks))
