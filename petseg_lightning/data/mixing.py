"""Batches mixed with themselves, on the device: every picture with the one before it, the first with the last."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from petseg_lightning.data.dataset import Batch


@dataclass(frozen=True)
class Mixing(ABC):
    """A way to mix a batch, whose draw is a function of (seed, epoch, number of the batch, rank).

    Args:
        alpha: above 0; the share of the other picture is drawn from Beta(alpha, alpha), one for the whole batch.
        p: how many of the batches are mixed, 0 to 1.
        seed: of the draws.
    """

    alpha: float
    p: float
    seed: int = 0

    def __call__(self, batch: Batch, epoch: int, number: int, rank: int = 0) -> Batch:
        """A new batch of the same sizes, types and memory format; or, where it is not mixed, the batch itself."""
        rng = np.random.default_rng([self.seed, epoch, number, rank, 1])  # 1: else rank 0 draws as augmentation does
        if rng.random() >= self.p:
            return batch
        return self.mixed(batch, float(rng.beta(self.alpha, self.alpha)), rng)

    @abstractmethod
    def mixed(self, batch: Batch, share: float, rng: np.random.Generator) -> Batch: ...


class MixUp(Mixing):
    """Pictures blended pixel by pixel, masks kept as pairs (Zhang et al., "mixup", ICLR 2018).

    The loss is (1 - share) * loss(logits, masks) + share * loss(logits, other masks): a mask has no half classes.
    """

    def mixed(self, batch: Batch, share: float, rng: np.random.Generator) -> Batch:  # noqa: ARG002
        images = batch["image"].float()
        blended = images.lerp(images.roll(1, 0), share).round_().to(torch.uint8)
        return {**batch, "image": blended, "other_parts": batch["parts"].roll(1, 0), "other_share": share}


class CutMix(Mixing):
    """A rectangle of pictures and masks taken from others (Yun et al., "CutMix", ICCV 2019).

    It has the picture's proportions, and the share of its area where the picture's border does not cut it: its centre
    is anywhere.
    """

    def mixed(self, batch: Batch, share: float, rng: np.random.Generator) -> Batch:
        sizes = np.array(batch["parts"].shape[1:])
        half, centre = sizes * share**0.5 / 2, rng.uniform(0, sizes)
        (top, left), (bottom, right) = (np.rint(np.clip(centre + s * half, 0, sizes)).astype(int) for s in (-1, 1))
        images, parts = batch["image"].clone(), batch["parts"].clone()
        for tensor in (images, parts):
            window = tensor[..., top:bottom, left:right]
            window.copy_(window.roll(1, 0))
        return {**batch, "image": images, "parts": parts}
