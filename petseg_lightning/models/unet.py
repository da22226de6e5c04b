"""The paper's U-Net, and its variants by argument."""

import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.models.blocks import ConvBlock, Encoder, concatenate, pad_and_crop, require_at_least


class UNet(nn.Module):
    """U-Net with batch normalization and nearest-neighbour upsampling (Amadi, section 2.1).

    Encoder stages of N, 2N, 4N, ... channels, a bottleneck of the last width, and decoder stages of the width
    of the encoder stage above them, the last one of `last_channels`; a 1x1 convolution gives the logits. With
    the defaults and three classes: 3,254,703 parameters. The architecture is that of Ronneberger et al.,
    "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015, made shallower and padded.

    Letters at the ends of lines: B images, K classes, H and W pixels, N base channels, D depth; stage i works
    at 1 / 2**i of the resolution, h and w are the sides there.

    Args:
        num_classes: K, at least 2.
        base_channels: N, at least 1.
        depth: D, how often the resolution is halved, at least 1.
        last_channels: width of the last decoder stage, at least 1; None: N.
        skip_connections: whether the decoder sees the encoder's features.

    Raises:
        InputError: a size is not an integer or too small.
    """

    def __init__(
        self,
        num_classes: int,
        base_channels: int = 64,
        depth: int = 3,
        last_channels: int | None = 3,
        skip_connections: bool = True,
    ) -> None:
        super().__init__()
        last_channels = base_channels if last_channels is None else last_channels
        require_at_least(2, num_classes=num_classes)
        require_at_least(1, base_channels=base_channels, depth=depth, last_channels=last_channels)
        self.multiple = 2**depth
        self.skip_connections = skip_connections
        self.encoder = Encoder(base_channels, depth)
        self.decoder = nn.ModuleList()  # deepest stage first
        channels = self.encoder.widths[-1]
        for level in reversed(range(depth)):
            skipped = self.encoder.widths[level] if skip_connections else 0
            out_channels = self.encoder.widths[level - 1] if level > 0 else last_channels
            self.decoder.append(ConvBlock(channels + skipped, out_channels))
            channels = out_channels
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel.

        Args:
            images: float (B, 3, H, W), normalized; any H and W of at least 1.

        Returns:
            Logits (B, K, H, W).
        """
        return pad_and_crop(self._forward_padded, images, self.multiple)

    def _forward_padded(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(images)  # bottleneck (B, N * 2**(D-1), H / 2**D, W / 2**D)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")  # (B, channels from below, h, w)
            x = stage(concatenate(x, skip) if self.skip_connections else x)  # (B, N * 2**(i-1), h, w)
        return self.classifier(x)  # (B, K, H, W)
