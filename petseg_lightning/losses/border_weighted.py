"""Cross-entropy in which the pixels near a border between classes weigh more."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from petseg_lightning.losses.pixel_loss import PixelLoss, mean_by_weight


class BorderWeightedLoss(PixelLoss):
    """Mean cross-entropy, in which a pixel near another class weighs 1 + `border_weight`, and any other 1.

    The weight map of the U-Net (Ronneberger et al. 2015, equation 2, https://arxiv.org/abs/1505.04597) with a band
    in place of the Gaussian of the distance: two poolings on the device and no distance transform.

    Args:
        border_weight: what is added to the weight near a border, >= 0; w0 of the paper.
        border_width: a pixel is near if another class is at most so many pixels away, in x and y; >= 1.
        class_weights: one weight per class, finite and >= 0, not all 0; None: all 1.
        ignore_index: value in the masks that does not count, and makes no border.

    Raises:
        InputError: weights that break these rules.
    """

    def __init__(
        self,
        border_weight: float = 10.0,
        border_width: int = 3,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(class_weights, ignore_index)
        self.border_weight, self.border_width = border_weight, border_width

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
        self.checked_weights(logits.shape[1])
        losses = F.cross_entropy(logits.float(), masks, ignore_index=self.ignore_index, reduction="none")  # (B, H, W)
        near = near_border(masks, self.border_width, self.ignore_index)
        weights = self.pixel_weights(masks) * (1 + self.border_weight * near)
        return mean_by_weight((losses * weights).sum(), weights)


def near_border(masks: Tensor, width: int, ignore_index: int) -> Tensor:
    """Whether there are two classes among the pixels at most `width` away in x and y: (B, H, W) -> bool (B, H, W)."""
    labels = masks.float()
    extremes = torch.stack((labels, -labels)).masked_fill(masks == ignore_index, -torch.inf)  # (2, B, H, W)
    window = 2 * width + 1
    extremes = F.max_pool2d(extremes, (window, 1), 1, (width, 0))
    highest, lowest = F.max_pool2d(extremes, (1, window), 1, (0, width))  # the lowest with its sign turned
    return highest + lowest > 0
