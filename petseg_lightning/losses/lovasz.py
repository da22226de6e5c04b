"""The Jaccard loss as a convex extension."""

import torch
from torch import Tensor, nn


class LovaszLoss(nn.Module):
    """Lovasz-Softmax: for 0/1 predictions 1 - IoU, and for probabilities its Lovasz extension; mean over classes.

    Berman et al. 2018, https://arxiv.org/abs/1705.08790, over the classes that are there. Their code, which is that
    of the libraries, waits for the device once per class, takes no half precision, has no scalar for a batch
    without a pixel that counts, and takes differences of numbers that round alike where there are many pixels.

    Args:
        per_image: mean over the images, each with the classes it has, in place of the batch as one image.
        ignore_index: value in the masks that does not count.
    """

    def __init__(self, per_image: bool = False, ignore_index: int = 255) -> None:
        super().__init__()
        self.per_image, self.ignore_index = per_image, ignore_index

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Mean over the classes that the masks have; 0, and its gradient too, where no pixel counts.

        Args:
            logits: float (B, K, H, W).
            masks: int64 (B, H, W), 0..K-1 or `ignore_index`.

        Returns:
            Scalar in 0..1, float32.
        """
        valid = (masks != self.ignore_index)[:, None]  # (B, 1, H, W)
        classes = torch.arange(logits.shape[1], device=masks.device)[:, None, None]
        truth = (masks[:, None] == classes) & valid  # (B, K, H, W)
        errors = (truth.float() - logits.float().softmax(1)).abs() * valid  # (B, K, H, W); the ignored come last
        errors, truth = errors.flatten(2), truth.flatten(2)  # (B, K, HW)
        if not self.per_image:
            errors, truth = (values.transpose(0, 1).flatten(1)[None] for values in (errors, truth))  # (1, K, BHW)
        losses = (errors * jaccard_gradient(errors.detach(), truth)).sum(2)  # (B or 1, K)
        present = truth.any(2)
        per_picture = losses.sum(1) / present.sum(1).clamp(min=1)
        return per_picture.sum() / present.any(1).sum().clamp(min=1)


def jaccard_gradient(errors: Tensor, truth: Tensor) -> Tensor:
    """How much the Jaccard loss grows with each error, if the larger ones are there already (Algorithm 1).

    With I pixels of truth not yet missed and a union of U, a missed one more costs 1 / U, and a false one more
    I / (U (U - 1)).

    Args:
        errors: float (..., N), >= 0.
        truth: bool (..., N), which pixels the class has.

    Returns:
        float32 (..., N), >= 0; 0 where there is no pixel of the class.
    """
    order = errors.argsort(dim=-1, descending=True, stable=True)
    missed = truth.gather(-1, order)
    misses = missed.cumsum(-1)  # int64: exact, and deterministic on CUDA
    places = torch.arange(1, order.shape[-1] + 1, device=order.device)
    total = misses[..., -1:]
    intersection, union = (total - misses).float(), (total + places - misses).float()
    growth = torch.where(missed, 1 / union, intersection / (union * (union - 1).clamp(min=1)))
    return torch.zeros_like(growth).scatter(-1, order, growth)
