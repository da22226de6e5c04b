"""Between two logging steps nothing in a training waits for the device."""

from collections import Counter

import pytest
import torch
from lightning import Callback
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from petseg_lightning.config import compose
from petseg_lightning.training import train

EVERY = 6  # steps between two that log
STEPS = 15  # of an epoch
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::item"}


class Waits(TorchDispatchMode):
    """Counts operators that hand a value of the device to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in WAITING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class WaitsOfEachStep(Callback):
    """`found[epoch, batch]`: what waited from the start of a step to that of the next: all callbacks, and its data."""

    found: dict[tuple[int, int], Counter[str]] = {}  # noqa: RUF012  # Hydra makes the callback: shared with the test
    _mode: Waits | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._end()
        self._mode = Waits()
        self.found[trainer.current_epoch, batch_idx] = self._mode.found
        self._mode.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.is_last_batch:
            self._end()

    def _end(self) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None


class Transfers(Callback):
    """Copies from the device to the host from the second step to the last but one, by torch's profiler."""

    found: list[str] = []  # noqa: RUF012
    steps = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 1:
            torch.cuda.synchronize()
            self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
            self.profile.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx == STEPS - 2:
            torch.cuda.synchronize()
            self.profile.__exit__(None, None, None)
            type(self).steps += STEPS - 2
            self.found.extend(event.name for event in self.profile.events() if "Memcpy DtoH" in event.name)


def settings(small_overrides, callback):
    return [
        *(text for text in small_overrides if text not in ("~callbacks.progress_bar", "trainer=cpu")),
        "data.batch_size=2",
        f"trainer.limit_train_batches={STEPS}",
        f"+callbacks.waits._target_=test_no_synchronization.{callback.__name__}",
    ]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["loss.class_weights=measured", "data.target=species", "data.border=ignore", "augmentation=light"],
        ["optimizer=sgd", "scheduler=one_cycle", "trainer.precision=bf16-mixed", "compute.channels_last=true"],
        ["mixing=mixup", "mixing.p=1.0"],
        ["mixing=cutmix", "mixing.p=1.0"],
    ],
)
def test_no_operator_of_a_step_waits_for_the_device(small_overrides, tmp_path, monkeypatch, options):
    monkeypatch.setattr(WaitsOfEachStep, "found", {})
    own = [*settings(small_overrides, WaitsOfEachStep), "trainer=cpu", f"trainer.log_every_n_steps={EVERY}"]
    train(compose("train", [*own, *options], output_dir=tmp_path))
    found = WaitsOfEachStep.found
    assert len(found) == 2 * STEPS
    logging = {(epoch, batch) for epoch, batch in found if (epoch * STEPS + batch + 1) % EVERY == 0}
    last = {(epoch, STEPS - 1) for epoch in range(2)}  # the bar is brought up to date
    assert {key: counts for key, counts in found.items() if counts and key not in logging | last} == {}
    assert all(found[key] for key in logging)  # there it is seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_is_copied_from_the_gpu_in_a_step(small_overrides, tmp_path, monkeypatch):
    monkeypatch.setattr(Transfers, "found", [])
    own = [*settings(small_overrides, Transfers), "trainer=gpu", "trainer.log_every_n_steps=1000"]
    train(compose("train", own, output_dir=tmp_path))
    assert Transfers.steps == 2 * (STEPS - 2)
    assert Transfers.found == []
