"""Cross-entropy of which the easy pixels are a small part."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from petseg_lightning.losses.pixel_loss import PixelLoss, mean_by_weight


class FocalLoss(PixelLoss):
    """Mean of (1 - p)^gamma * -log(p), p the probability (softmax) of a pixel's true class, weighted by that class.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, with the softmax that segmentation predicts by; libraries
    have one sigmoid per class, as detection needs them. `gamma=0` is the cross-entropy.

    Args:
        gamma: how little the pixels count that are right already, >= 0.
        class_weights: one weight per class (the paper's alpha), finite and >= 0, not all 0; None: all 1.
        ignore_index: value in the masks that does not count.

    Raises:
        InputError: weights that break these rules.
    """

    def __init__(
        self, gamma: float = 2.0, class_weights: Sequence[float] | None = None, ignore_index: int = 255
    ) -> None:
        super().__init__(class_weights, ignore_index)
        self.gamma = gamma

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Sum of weighted losses / sum of weights, in float32.

        Args:
            logits: float (B, K, H, W).
            masks: int64 (B, H, W), 0..K-1 or `ignore_index`.

        Returns:
            Scalar >= 0.

        Raises:
            InputError: there are not K class weights.
        """
        self.checked_weights(logits.shape[1])
        losses = F.cross_entropy(logits.float(), masks, ignore_index=self.ignore_index, reduction="none")  # (B, H, W)
        losses = losses.clamp(min=torch.finfo(torch.float32).tiny)  # at 0, gamma < 1 has no finite gradient
        weights = self.pixel_weights(masks)
        focal = (-torch.expm1(-losses)).pow(self.gamma) * losses
        return mean_by_weight((focal * weights).sum(), weights)
