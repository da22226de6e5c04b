"""How fast the training is beside a plain PyTorch loop, measured in one run."""

import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from omegaconf import DictConfig
from rich.console import Console

from petseg_lightning.callbacks.throughput import Throughput
from petseg_lightning.config import build
from petseg_lightning.data.dataset import SegmentationDataset, collate
from petseg_lightning.environment import describe_environment
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json
from petseg_lightning.module import SegmentationModule
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.training import build_datamodule, build_module


class PlainLoop(Callback):
    """Before each epoch of the training, an epoch of the shortest loop that trains the same network.

    It runs over normalized float tensors that are in memory on the device, channels first, with torch's own
    cross-entropy: what the framework and its data pipeline have to keep up with. `rates` are images per second.
    """

    def __init__(
        self, module: SegmentationModule, dataset: SegmentationDataset, optimizer: Callable, batch_size: int
    ) -> None:
        batch = collate([dataset[index] for index in range(len(dataset))])
        self.images = ((batch["image"] / 255 - module.mean) / module.std).contiguous()
        self.masks = module.class_of_part[batch["parts"].int()]
        self.network = deepcopy(module.network)
        self.optimizer, self.batch_size = optimizer(self.network.parameters()), batch_size
        self.rates: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.network.to(pl_module.device)
        self.images, self.masks = self.images.to(pl_module.device), self.masks.to(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = perf_counter()
        order = torch.randperm(len(self.images), device=self.images.device)
        batches = order.split(self.batch_size)[: int(trainer.num_training_batches)]
        for indices in batches:
            loss = torch.nn.functional.cross_entropy(
                self.network(self.images[indices]), self.masks[indices], ignore_index=255
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.rates.append(sum(map(len, batches)) / (perf_counter() - start))


def benchmark(cfg: DictConfig) -> dict[str, Any]:
    """Train for `trainer.max_epochs` epochs, each beside one of a plain loop; the first is a warm-up.

    Returns:
        Medians over the epochs, images per second and their ratio pair by pair; also in benchmark.json.

    Raises:
        InputError: fewer than two epochs, or several devices.
    """
    if cfg.trainer.max_epochs < 2 or cfg.trainer.devices not in (1, "1"):
        raise InputError(
            "the benchmark needs trainer.max_epochs of 2 or more, the first to warm up, and trainer.devices=1"
        )
    quiet_libraries()
    seed_everything(cfg.seed, verbose=False)
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    plain = PlainLoop(
        module, SegmentationDataset(datamodule.pictures("train")), build(cfg.optimizer), cfg.data.batch_size
    )
    training = Throughput()
    trainer: Trainer = build(
        cfg.trainer,
        callbacks=[*build(cfg.callbacks).values(), plain, training],
        logger=list(build(cfg.logger).values()),
    )
    trainer.fit(module, datamodule)
    ratios = [ours / theirs for ours, theirs in zip(training.rates[1:], plain.rates[1:], strict=True)]
    result = {
        "training_images_per_second": statistics.median(training.rates[1:]),
        "plain_images_per_second": statistics.median(plain.rates[1:]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "epochs": len(ratios),
    }
    folder = Path(cfg.paths.output_dir)
    write_json(folder / "benchmark.json", {**result, **describe_environment()})
    Console().print(
        f"training {result['training_images_per_second']:.1f} images/s, plain loop "
        f"{result['plain_images_per_second']:.1f} images/s: ratio {result['ratio']:.3f} "
        f"(median of {len(ratios)} epochs, {min(ratios):.3f} to {max(ratios):.3f})\nrun folder  {folder}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return result
