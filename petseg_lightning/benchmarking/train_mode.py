"""The training beside plain loops, and what the parts of its step cost."""

import math
import resource
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import SimpleProfiler
from omegaconf import DictConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petseg_lightning.benchmarking.plain_loop import PlainLoop, PlainProcess
from petseg_lightning.benchmarking.rates import Rates, median, ratios
from petseg_lightning.callbacks.throughput import Throughput
from petseg_lightning.compute import Compute
from petseg_lightning.config import build, build_all
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.dataset import SegmentationDataset, collate
from petseg_lightning.devices import AUTOCAST, synchronize
from petseg_lightning.module import SegmentationModule
from petseg_lightning.training import build_datamodule, build_module, choose_compute

LOOP_BATCHES = 32  # that the plain loops have in memory, and take in turn
DISTRIBUTED_BATCHES = 20  # in a round on several devices, which must agree without asking each other


class Contest(Callback):
    """Before each epoch of the training, as many batches of every other contestant; `rates` are images per second."""

    def __init__(self, contestants: dict[str, Callable[[int], int]]) -> None:
        self.contestants = contestants
        self.rates: Rates = {name: [] for name in contestants}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier()
        for name, work in self.contestants.items() if trainer.is_global_zero else ():
            begin = perf_counter()
            images = work(int(trainer.num_training_batches))
            synchronize(pl_module.device)
            self.rates[name].append(images / (perf_counter() - begin))
        trainer.strategy.barrier()


class PartsProfiler(SimpleProfiler):
    """Lightning's profiler, with the device waited for at both ends of everything that is timed."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def start(self, action_name: str) -> None:
        synchronize(self.device)
        super().start(action_name)

    def stop(self, action_name: str) -> None:
        synchronize(self.device)
        super().stop(action_name)

    def describe(self) -> None:
        """Prints nothing."""

    def milliseconds(self, ending: str) -> float:
        """The median of the action whose name ends so, without its first time."""
        times: list[float] = next((t for name, t in self.recorded_durations.items() if name.endswith(ending)), [0.0])
        return 1000 * median(times[1:] or times)


def measure_training(cfg: DictConfig) -> dict[str, Any] | None:
    """Images per second of the training and of plain loops, in turn; None on the devices other than the first.

    Contestants: `plain` (fp32, eager, channels first, in a process of its own), `network` (the plain loop with the
    settings of the training on one batch again and again), `same` (that on all batches; last, so that the machine is
    in the same mood for the training beside which it is read) and `training`. On several devices: `alone`, the plain
    loop on the first one with the settings of the training, and `training` on all.
    """
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    plain_network = deepcopy(module.network)
    compute = choose_compute(cfg, module, datamodule)
    trainer = _trainer(cfg, compute, [], max_epochs=1)
    device, batch_size = trainer.strategy.root_device, datamodule.batch_size
    if trainer.world_size > 1:
        batches, plain = DISTRIBUTED_BATCHES, None
        same = PlainLoop(*_loop_arguments(cfg, module.network, module, datamodule, compute, device))
        contest = Contest({"alone": same.steps})
    else:
        plain = PlainProcess(*_loop_arguments(cfg, plain_network, module, datamodule, None, device))
        same = PlainLoop(*_loop_arguments(cfg, module.network, module, datamodule, compute, device))
        batches = _batches(plain.steps, cfg.seconds, -(-datamodule.counts["train"] // batch_size))
        contest = Contest({"plain": plain.steps, "network": same.steps_on_one, "same": same.steps})
    training = Throughput()
    trainer = _trainer(cfg, compute, [contest, training], max_epochs=cfg.rounds + 1, limit_train_batches=batches)
    trainer.fit(module, datamodule)
    if plain is not None:
        plain.close()
    if not trainer.is_global_zero:
        return None
    rates = {**{name: values[1:] for name, values in contest.rates.items()}, "training": training.rates[1:]}
    result: dict[str, Any] = {"compute": asdict(compute), "batches_per_round": batches, "rates": rates}
    result["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if device.type == "cuda":
        result["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    if trainer.world_size > 1:
        efficiency = median(ratios(rates, "training", "alone")) / trainer.world_size
        return {**result, "devices": trainer.world_size, "scaling_efficiency": efficiency}
    flops = _flops(module, datamodule, device)
    peak = _peak_flops(compute, device)
    rate = median(rates["training"])
    return {
        **result,
        "overhead": median(ratios(rates, "training", "same")),
        "of_network": median(ratios(rates, "training", "network")),
        "speedup": median(ratios(rates, "training", "plain")),
        "parts_ms": _parts(cfg, module, datamodule, compute, device, batches),
        "gflop_per_image": flops / 1e9,
        "tflop_per_second": flops * rate / 1e12,
        "matmul_tflop_per_second": peak / 1e12,
        "flop_utilization": flops * rate / peak,
    }


def _trainer(cfg: DictConfig, compute: Compute, callbacks: list[Callback], **options: Any) -> Trainer:
    folder = Path(cfg.paths.output_dir)
    callbacks = [*build_all(cfg.callbacks), *callbacks]
    return build(
        cfg.trainer,
        precision=compute.precision,
        callbacks=callbacks,
        logger=build_all(cfg.logger),
        default_root_dir=folder,
        limit_val_batches=1,
        **options,
    )


def _loop_arguments(
    cfg: DictConfig,
    network: nn.Module,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    compute: Compute | None,
    device: torch.device,
) -> tuple[Any, ...]:
    """Of a `PlainLoop` over the first pictures of the training split; without `compute` in fp32, eager, unfused."""
    pictures = SegmentationDataset(datamodule.pictures("train"))
    number = min(LOOP_BATCHES * datamodule.batch_size, len(pictures))
    batch = collate([pictures[index] for index in range(number)])
    order = torch.channels_last if compute else torch.contiguous_format  # the training's batches are channels last
    images = module.normalized(batch["image"]).contiguous(memory_format=order)
    masks = module.class_of_part[batch["parts"].int()]
    unfused = {"fused": False} if compute is None and "fused" in cfg.optimizer else {}
    way = compute or Compute()
    settings = AUTOCAST.get(way.precision), way.channels_last, way.compile
    return network, images, masks, build(cfg.optimizer, **unfused), datamodule.batch_size, device, *settings


def _batches(steps: Callable[[int], int], seconds: float, most: int) -> int:
    """How many batches take the loop so many seconds; 3 or more, if there are."""
    steps(1)
    begin = perf_counter()
    steps(1)
    return min(most, max(3, math.ceil(seconds / (perf_counter() - begin))))


def _parts(
    cfg: DictConfig,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    compute: Compute,
    device: torch.device,
    batches: int,
) -> dict[str, float]:
    """Milliseconds of the parts of a training step, from an epoch in which the device is waited for after each."""
    profiler = PartsProfiler(device)
    trainer = _trainer(cfg, compute, [Throughput()], max_epochs=1, limit_train_batches=batches, profiler=profiler)
    with warnings.catch_warnings(action="ignore"):  # the run folder is not empty any more
        trainer.fit(module, datamodule)
    strategy = type(trainer.strategy).__name__
    forward = profiler.milliseconds(f"{strategy}.training_step")
    backward = profiler.milliseconds(f"{strategy}.backward")
    parts = {
        "data wait": profiler.milliseconds("train_dataloader_next"),
        "transfer": profiler.milliseconds(f"{strategy}.batch_to_device"),
        "forward and loss": forward,
        "backward": backward,
        "optimizer": profiler.milliseconds("SegmentationModule.optimizer_step") - forward - backward,
    }
    callbacks = sum(
        1000 * sum(times) / batches
        for name, times in profiler.recorded_durations.items()
        if name.startswith("[Callback]") and "train_batch" in name
    )
    return {**parts, "metrics, logging, callbacks": callbacks}


def _flops(module: SegmentationModule, datamodule: SegmentationDataModule, device: torch.device) -> float:
    """Floating point operations per image of forward and backward."""
    network = deepcopy(module.network).to(device)
    size = datamodule.image_size
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, size, size, device=device)).sum().backward()
    return counter.get_total_flops() / 2


def _peak_flops(compute: Compute, device: torch.device) -> float:
    """Floating point operations per second of a large matrix product at the precision of the training."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = AUTOCAST.get(compute.precision) or torch.float32
    matrix = torch.randn(size, size, device=device).to(dtype)
    times = []
    for _ in range(6):
        begin = perf_counter()
        matrix @ matrix
        synchronize(device)
        times.append(perf_counter() - begin)
    return 2 * size**3 / min(times)
