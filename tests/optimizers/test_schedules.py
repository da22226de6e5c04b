import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from petseg_lightning.conf_tree import options
from petseg_lightning.errors import InputError
from petseg_lightning.module import SegmentationModule

RATE = 0.2


@pytest.fixture
def rates(tiny_parts, monkeypatch):
    """(scheduler, steps, overrides...) -> the rates of every step of a training, (steps, groups)."""

    def run(scheduler: str, steps: int, *overrides: str) -> np.ndarray:
        trainer = SimpleNamespace(estimated_stepping_batches=steps)
        monkeypatch.setattr(SegmentationModule, "trainer", trainer, raising=False)
        optimizer_of = () if any(o.startswith("optimizer=") for o in overrides) else ("optimizer=sgd",)
        _, _, module = tiny_parts(*optimizer_of, f"scheduler={scheduler}", f"optimizer.lr={RATE}", *overrides)
        configured = module.configure_optimizers()
        if not isinstance(configured, dict):
            return np.full((steps, 1), configured.param_groups[0]["lr"])
        optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        found = []
        for step in range(steps):
            found.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            monkeypatch.setattr(SegmentationModule, "global_step", step + 1, raising=False)
            module.lr_scheduler_step(scheduler, None)
        return np.array(found)

    return run


def cosine(steps):
    return RATE * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))


def polynomial(steps, power=0.9):
    return RATE * (1 - np.arange(steps) / steps) ** power


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_polynomial_decay(rates, steps):
    assert rates("polynomial", steps)[:, 0] == pytest.approx(polynomial(steps))
    assert rates("polynomial", steps, "scheduler.scheduler.power=2")[:, 0] == pytest.approx(polynomial(steps, 2))


@pytest.mark.parametrize(("name", "after"), [("warmup_cosine", cosine), ("warmup_polynomial", polynomial)])
@pytest.mark.parametrize(("steps", "fraction"), [(40, 0.1), (40, 0.25), (7, 0.3), (1, 0.5), (40, 0.0), (2, 0.9)])
def test_warmup_rises_in_equal_steps_to_the_rate_and_the_rest_is_the_other_schedule(
    rates, name, after, steps, fraction
):
    found = rates(name, steps, f"scheduler.scheduler.warmup_fraction={fraction}")[:, 0]
    warm = min(round(fraction * steps), steps - 1)
    rising = RATE * np.arange(1, warm + 1) / (warm + 1)
    assert found == pytest.approx(np.concatenate([rising, after(steps - warm)]))


@pytest.mark.parametrize("name", [name for name in options("scheduler") if name != "plateau"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 20])
def test_every_schedule_has_a_rate_for_every_step_of_a_short_training(rates, name, steps):
    """torch's OneCycleLR divides by zero in 5 steps: a fifth of them is one."""
    found = rates(name, steps)[:, 0]
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.max() <= RATE * (1 + 1e-9)
    if steps > 2:
        assert found.max() > 0.5 * RATE


def test_one_cycle_of_five_steps_begins_at_its_highest_rate(rates):
    found = rates("one_cycle", 5)[:, 0]
    assert found[0] == pytest.approx(RATE, rel=1e-4)
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.3, 0.5, 0.99])
def test_one_cycle_is_torchs_for_other_numbers_of_steps(rates, pct_start):
    found = rates("one_cycle", 37, f"scheduler.scheduler.pct_start={pct_start}")[:, 0]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE, momentum=0.9)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, 37, pct_start=pct_start)
    expected = []
    for _ in range(37):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert found == pytest.approx(np.array(expected))


@pytest.mark.parametrize("name", [name for name in options("scheduler") if name != "plateau"])
def test_groups_keep_their_part_of_the_rate(rates, name):
    from_zero = ["scheduler.scheduler.warmup_lr=0"] if name == "timm" else []
    found = rates(name, 20, "optimizer=timm", "optimizer.layer_decay=0.5", *from_zero)[1:]
    if name == "none":
        return
    parts = found / found.max(axis=1, keepdims=True)
    assert parts == pytest.approx(np.broadcast_to(parts[10], parts.shape), abs=1e-6)
    assert set(parts[10].round(6)) == {1.0, 0.5, 0.25, 0.125}


def test_timms_cosine_after_its_warmup(rates):
    own = ("scheduler.scheduler.warmup_fraction=0.25", "scheduler.scheduler.warmup_lr=0.04")
    found = rates("timm", 40, *own)[:, 0]
    assert found[:10] == pytest.approx(np.linspace(0.04, RATE, 11)[:10])
    assert found[10:] == pytest.approx(cosine(30))


def test_timms_wsd_stays_then_falls_in_its_last_fifth(rates):
    found = rates("timm", 44, "scheduler.scheduler.sched=wsd", "scheduler.scheduler.warmup_fraction=0.1")[:, 0]
    assert found[4:36] == pytest.approx(RATE)
    assert found[36:] == pytest.approx(RATE * (1 - np.sqrt(np.arange(8) / 8)))
    assert math.isclose(found[0], 1e-6)


def test_a_length_that_a_schedule_cannot_have_is_refused_in_one_line(rates):
    with pytest.raises(InputError, match=r"^the scheduler cannot schedule SGD here \(.*\); choose another scheduler=$"):
        rates("timm", 1, "scheduler.scheduler.sched=rsqrt")
