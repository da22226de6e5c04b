"""Batch normalization that takes a batch of one value per channel, as a picture pooled to a point is."""

from typing import Any

from timm.layers import BatchNormAct2d
from torch import Tensor, nn


class _SingleValue:
    """One value has no variance: it is normalized by the running statistics, which stay as they are."""

    training: bool

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        parent: Any = super()
        if not self.training or x.numel() > x.shape[1]:
            return parent.forward(x)
        self.training = False
        try:
            return parent.forward(x)
        finally:
            self.training = True


class SingleValueBatchNorm2d(_SingleValue, nn.BatchNorm2d):
    """That of torch."""


class SingleValueBatchNormAct2d(_SingleValue, BatchNormAct2d):
    """That of timm, which an activation follows."""


KINDS = {nn.BatchNorm2d: SingleValueBatchNorm2d, BatchNormAct2d: SingleValueBatchNormAct2d}
