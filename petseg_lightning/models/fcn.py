"""The fully convolutional baseline, with the U-Net's encoder."""

import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.models.blocks import Encoder, pad_and_crop, require_at_least


class FCN(nn.Module):
    """Class scores of all resolutions but the full one, upsampled and added up.

    Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015, whose skips add scores (and
    leave the last factor of two to interpolation) where the U-Net concatenates features and convolves them.

    Letters at the ends of lines: B images, K classes, H and W pixels, D depth; stage i works at 1 / 2**i of
    the resolution, h and w are the sides there.

    Args:
        num_classes: K, at least 2.
        base_channels: channels of the encoder's first stage, at least 1.
        depth: D, how often the resolution is halved, at least 1.

    Raises:
        InputError: a size is not an integer or too small.
    """

    def __init__(self, num_classes: int, base_channels: int = 64, depth: int = 3) -> None:
        super().__init__()
        require_at_least(2, num_classes=num_classes)
        require_at_least(1, base_channels=base_channels, depth=depth)
        self.multiple = 2**depth
        self.encoder = Encoder(base_channels, depth)
        scored_widths = [*self.encoder.widths[1:], self.encoder.widths[-1]]  # stages 1..D-1, bottleneck
        self.classifiers = nn.ModuleList(nn.Conv2d(width, num_classes, kernel_size=1) for width in scored_widths)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel.

        Args:
            images: float (B, 3, H, W), normalized; any H and W of at least 1.

        Returns:
            Logits (B, K, H, W).
        """
        return pad_and_crop(self._forward_padded, images, self.multiple)

    def _forward_padded(self, images: Tensor) -> Tensor:
        _, *features = self.encoder(images)
        *finer, logits = [
            classifier(feature) for classifier, feature in zip(self.classifiers, features, strict=True)
        ]  # (B, K, H / 2**D, W / 2**D) of the bottleneck
        for scores in reversed(finer):
            logits = _upsample(logits) + scores  # (B, K, h, w)
        return _upsample(logits)  # (B, K, H, W)


def _upsample(scores: Tensor) -> Tensor:
    return F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
