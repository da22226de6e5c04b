"""The pictures of the last training batches, by which batch normalization is measured again."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from petseg_lightning.module import SegmentationModule

PICTURES = "recent_pictures"  # under which a checkpoint within an epoch has them, (devices,batches,B,3,H,W)


class RecentPictures(Callback):
    """A callback that evaluates other weights than those that train, and so has to measure their statistics itself.

    Args:
        statistics_batches: how many batches they are measured on, at least 1, the last ones of the epoch; their
            pictures (augmented, not mixed) stay on the device.
    """

    def __init__(self, statistics_batches: int) -> None:
        self.pictures: deque[Tensor] = deque(maxlen=statistics_batches)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.pictures.clear()  # a resumed training has those of its epoch only

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.pictures and not trainer.is_last_batch:  # within an epoch; no other checkpoint keeps pictures
            pictures = trainer.strategy.all_gather(torch.stack([*self.pictures]))
            checkpoint[PICTURES] = pictures.view(trainer.world_size, len(self.pictures), *self.pictures[0].shape)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if len(pictures := checkpoint.get(PICTURES, ())) > trainer.global_rank:
            self.pictures.extend(pictures[trainer.global_rank].to(pl_module.device))

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self.pictures.append(batch["image"])

    def measure_statistics(self, trainer: Trainer, module: SegmentationModule) -> None:
        """Give the module's network the normalization statistics of its weights, the same on every device."""
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            measure_statistics(module.network, map(module.normalized, self.pictures))
        for layer in _layers(module.network):
            for buffer in (layer.running_mean, layer.running_var):
                buffer.copy_(trainer.strategy.reduce(buffer, reduce_op="mean"))


def measure_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch normalization to their means over batches.

    As `torch.optim.swa_utils.update_bn`, but a frozen layer keeps its own, and nothing else is in training mode.

    Args:
        network: in whatever mode; it keeps it.
        batches: what it takes, at least one.
    """
    modes = {module: module.training for module in network.modules()}
    network.train()
    layers = [layer for layer in _layers(network) if layer.training]
    network.eval()
    momenta = {layer: layer.momentum for layer in layers}
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.training = True
    for batch in batches:
        network(batch)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
    for module, training in modes.items():
        module.training = training


def _layers(network: nn.Module) -> list[Any]:
    """The batch normalizations that have statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
