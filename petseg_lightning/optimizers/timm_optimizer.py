"""The optimizers of timm, by name, with layer-wise rates and without weight decay where it does harm."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from torch import Tensor, nn
from torch.optim import Optimizer

from petseg_lightning.errors import InputError
from petseg_lightning.optimizers.layers import distance_from_decoder

NOT_HERE = [
    *("fused*", "bnb*"),  # of apex and bitsandbytes
    "adahessian",  # needs second derivatives
    "kron*",  # draws numbers that a resumed training does not draw again
]
LOOKAHEAD = "lookahead_"


class TimmOptimizer:
    """Parameters -> an optimizer of timm, torch's own among them.

    Wightman, "PyTorch Image Models", 2019, whose `timm.optim.list_optimizers(with_description=True)` says what each
    is; `lookahead_` before a name adds Lookahead (Zhang et al., 2019).

    Args:
        opt: its name: adamw, lamb, lion, adan, muon, ...
        lr: learning rate, above 0.
        weight_decay: at least 0.
        layer_decay: the rate of each layer of the encoder is this part of that of the layer after it; 1: all the same.
        decay_norm_and_bias: whether weight decay is also for biases and for what normalization scales by.
        options: further arguments of that optimizer, `betas` for example.

    Raises:
        InputError: a name that timm does not have.
    """

    def __init__(
        self,
        opt: str,
        lr: float,
        weight_decay: float = 0.0,
        layer_decay: float = 1.0,
        decay_norm_and_bias: bool = False,
        **options: Any,
    ) -> None:
        names = [str(name) for name in list_optimizers(exclude_filters=NOT_HERE)]
        if opt.removeprefix(LOOKAHEAD) not in names:
            near = get_close_matches(opt.removeprefix(LOOKAHEAD), names, n=3, cutoff=0.4) or names[:3]
            raise InputError(
                f"optimizer.opt={opt} is none of the {len(names)} of timm that train here; the nearest: "
                f"{', '.join(near)}"
            )
        self.opt, self.lr, self.weight_decay = opt, lr, weight_decay
        self.layer_decay, self.decay_norm_and_bias = layer_decay, decay_norm_and_bias
        self.options = options

    def __call__(self, parameters: Iterable[Any]) -> Optimizer:
        """The optimizer of parameters, named ones, or groups of them.

        What differs in rate or weight decay is a group of its own, whose `lr_scale` says what part of the rate it has
        (with one of its own to begin with: of that part). Layers need names.

        Raises:
            InputError: options that the optimizer does not take.
        """
        try:
            return create_optimizer_v2(
                self._split(_groups(parameters)), self.opt, lr=self.lr, weight_decay=self.weight_decay, **self.options
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(
                f"optimizer.opt={self.opt} does not take optimizer.{' or optimizer.'.join(self.options) or 'lr'} as "
                f"given ({' '.join(str(error).split())}); change or remove it"
            ) from error

    def _split(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [item[0] for group in groups for item in group["params"] if isinstance(item, tuple)]
        distances = distance_from_decoder(names) if self.layer_decay != 1 else {}
        split: dict[tuple[int, int, bool], dict[str, Any]] = {}
        for number, group in enumerate(groups):
            for item in group["params"]:
                name, parameter = item if isinstance(item, tuple) else ("", item)
                if not parameter.requires_grad:
                    continue
                decays = self.decay_norm_and_bias or _has_direction(parameter)
                distance = distances.get(name, 0)
                scale = group.get("lr_scale", 1.0) * self.layer_decay**distance
                new = {**group, "params": [], "lr_scale": scale, "weight_decay": self.weight_decay if decays else 0.0}
                split.setdefault((number, distance, decays), new)["params"].append(item)
        return list(split.values())


def _groups(parameters: Iterable[Any]) -> list[dict[str, Any]]:
    given = list(parameters)
    return given if given and isinstance(given[0], dict) else [{"params": given}]


def _has_direction(parameter: nn.Parameter | Tensor) -> bool:
    """Whether it is a matrix or a kernel, and no bias or scale."""
    return parameter.ndim > 1
