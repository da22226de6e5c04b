"""The contract of every conf/optimizer/*.yaml and conf/scheduler/*.yaml: a new one is tested the moment it exists."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

from petseg_lightning.checks import check
from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose
from petseg_lightning.errors import InputError
from petseg_lightning.module import SegmentationModule

ALONE = [(optimizer, "none") for optimizer in options("optimizer")]
WITH_ADAM = [("adam", scheduler) for scheduler in options("scheduler")]


class Losses(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.found.append(float(outputs["loss"]))


class KeepLast(Callback):
    """Keeps the last checkpoint as it is after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch + 1:
            folder = Path(trainer.default_root_dir, "checkpoints")
            shutil.copyfile(folder / "last.ckpt", folder / f"epoch_{self.epoch}.ckpt")


def last(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("optimizer", "scheduler"), dict.fromkeys([*ALONE, *WITH_ADAM]))
def test_the_loss_falls_and_a_resumed_training_ends_where_the_undisturbed_one_does(
    fit_tiny, tmp_path, optimizer, scheduler
):
    own = (f"optimizer={optimizer}", f"scheduler={scheduler}")
    losses = Losses()
    fit_tiny(tmp_path / "whole", *own, epochs=4, callbacks=[losses, KeepLast(1)])
    assert sum(losses.found[-4:]) < sum(losses.found[:4])
    fit_tiny(tmp_path / "resumed", *own, epochs=4, resume=tmp_path / "whole/checkpoints/epoch_1.ckpt")
    assert_same(last(tmp_path / "resumed")["state_dict"], last(tmp_path / "whole")["state_dict"])


@pytest.fixture(scope="module")
def schedulers():
    return {name: compose("train", ["data=synthetic", f"scheduler={name}"]).scheduler for name in options("scheduler")}


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_an_optimizer_goes_together_with_every_scheduler_or_is_refused(tiny_parts, schedulers, monkeypatch, optimizer):
    cfg, _, module = tiny_parts(f"optimizer={optimizer}")
    monkeypatch.setattr(SegmentationModule, "trainer", SimpleNamespace(estimated_stepping_batches=8), raising=False)
    for name, scheduler in schedulers.items():
        cfg.scheduler = scheduler
        if optimizer.startswith("schedule_free") and name != "none":
            with pytest.raises(
                InputError, match=r"^a schedule-free optimizer has no schedule .*: give scheduler=none$"
            ):
                check(cfg)
            continue
        check(cfg)
        parts = build(scheduler)
        module.build_scheduler, module.total_steps_argument = parts["scheduler"], parts.get("total_steps_argument")
        configured = module.configure_optimizers()
        if name != "none":
            assert configured["lr_scheduler"]["scheduler"].optimizer is configured["optimizer"]
