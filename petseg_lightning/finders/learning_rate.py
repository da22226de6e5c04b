"""The learning rate, by a training in which it rises."""

import math
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import ExponentialLR

from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing
from petseg_lightning.module import SegmentationModule

PICTURE = "lr_finder.png"
SMOOTHING = 0.9  # of the losses: the share of the mean so far
DIVERGED = 4.0  # times the lowest loss
SKIPPED = 5  # of the first losses, whose mean is of too few


class LearningRateFinder:
    """The learning rate amid those at which the loss falls, while the rate rises exponentially from step to step.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017. Lightning's own finder gives all groups of
    parameters one rate, and the schedule's first step overwrites what it found; this one trains a copy with torch's
    ExponentialLR, each group at its part of the rate.

    Args:
        min_lr, max_lr: of the optimizer; the search ends sooner where the loss is four times its lowest.
        num_steps: of the optimizer.
    """

    def __init__(self, min_lr: float, max_lr: float, num_steps: int) -> None:
        self.min_lr, self.max_lr, self.num_steps = min_lr, max_lr, num_steps

    def find(
        self,
        module: SegmentationModule,
        datamodule: SegmentationDataModule,
        optimizer: Callable[..., Any],
        trainer: Callable[..., Trainer],
        folder: Path,
    ) -> float:
        """A rate with three digits, and `lr_finder.png` in a folder.

        Args:
            module: untrained; neither it nor any state of random numbers is changed.
            datamodule: whose training batches are used, in the order of the first epochs.
            optimizer: lr=... -> what `SegmentationModule` takes as its optimizer.
            trainer: arguments -> a trainer on one device.
            folder: of the run.

        Raises:
            InputError: the loss falls at no rate.
        """
        copy, curve = deepcopy(module), _Curve()
        gamma = (self.max_lr / self.min_lr) ** (1 / (self.num_steps - 1))
        copy.build_optimizer, copy.build_scheduler = optimizer(lr=self.min_lr), partial(ExponentialLR, gamma=gamma)
        copy.total_steps_argument, copy.scheduler_options = None, {"interval": "step"}
        with isolate_rng(), tempfile.TemporaryDirectory() as scratch:
            trainer(callbacks=[curve], max_steps=self.num_steps, default_root_dir=scratch).fit(copy, datamodule)
        rates = self.min_lr * gamma ** np.array(curve.steps)
        found = float(f"{valley(rates, np.array(curve.smoothed)):.3g}")
        with replacing(folder / PICTURE) as path:
            curve_figure(rates, curve.losses, curve.smoothed, found).savefig(path)
        return found


class _Curve(Callback):
    """The losses of every batch and their running mean, until they diverge."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._mean = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.steps.append(trainer.global_step)
        for optimizer in trainer.optimizers:
            getattr(optimizer, "train", lambda: None)()  # of a schedule-free one

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        loss = float(outputs["loss"])
        self.losses.append(loss)
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.smoothed.append(self._mean / (1 - SMOOTHING ** len(self.losses)))
        if not math.isfinite(loss) or self.smoothed[-1] > DIVERGED * min(self.smoothed):
            trainer.should_stop = True


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate in the middle of the longest descending subsequence of smoothed losses, as fastai chooses it.

    Raises:
        InputError: they descend nowhere.
    """
    finite = np.flatnonzero(np.isfinite(losses))[SKIPPED:]
    rates, losses = rates[finite], losses[finite]
    lengths, starts = np.ones(len(losses), int), np.arange(len(losses))
    for end in range(len(losses)):
        higher = np.flatnonzero(losses[:end] > losses[end])
        if len(higher):
            before = higher[np.flatnonzero(lengths[higher] == lengths[higher].max())[-1]]  # the nearest
            lengths[end], starts[end] = lengths[before] + 1, starts[before]
    if not (lengths > 1).any():
        raise InputError(
            f"find=lr: the loss fell at no rate in {len(losses)} steps; try other find.lr.min_lr, find.lr.max_lr or "
            "more find.lr.num_steps, or set optimizer.lr"
        )
    end = int(lengths.argmax())
    return float(rates[(starts[end] + end) // 2])


def curve_figure(rates: np.ndarray, losses: list[float], smoothed: list[float], found: float) -> Figure:
    """The losses over the rates, with the rate that was found."""
    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="0.8", label="loss")
    axes.plot(rates, smoothed, label="its running mean")
    axes.axvline(found, color="tab:red", linestyle="--", label=f"{found:g}")
    low = min(smoothed)
    axes.set(xscale="log", xlabel="optimizer.lr", ylabel="training loss", ylim=(0, 2 * max(smoothed[0], low)))
    axes.legend()
    return figure
