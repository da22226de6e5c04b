"""Several losses as one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from petseg_lightning.errors import InputError


class WeightedSum(nn.Module):
    """Sum of losses, each times its weight.

    Args:
        terms: losses by name; (logits, masks) -> scalar.
        weights: the weight of each term, >= 0.

    Raises:
        InputError: the names of the terms are not those of the weights.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if terms.keys() != weights.keys():
            raise InputError(
                f"loss.terms are {', '.join(terms)} and loss.weights are of {', '.join(weights)}: give each term its "
                "weight (+loss.weights.<term>=1.0), and remove that of none (~loss.weights.<term>)"
            )
        self.terms, self.weights = nn.ModuleDict(terms), dict(weights)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, K, H, W), masks int64 (B, H, W), 0..K-1 or ignored -> float32 scalar >= 0."""
        return torch.stack([self.weights[name] * loss(logits, masks) for name, loss in self.terms.items()]).sum()
