"""Schedules of the learning rate over a known number of steps."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, SequentialLR


def warmup(
    optimizer: Optimizer,
    total_steps: int,
    warmup_fraction: float,
    after: Callable[..., LRScheduler],
    length_argument: str,
) -> LRScheduler:
    """Rates that rise linearly to the optimizer's, then follow another schedule to the end of the training.

    Of n steps of warm-up, step i (from 0) has the (i + 1) / (n + 1)th part of the rate, so that none is lost to a
    rate of zero. Goyal et al., "Accurate, Large Minibatch SGD", 2017.

    Args:
        optimizer: whose groups each warm up to their own rate.
        total_steps: of the whole training.
        warmup_fraction: of the steps, rounded; from 0 to below 1.
        after: optimizer, and its length in steps -> the schedule after the warm-up.
        length_argument: the name of `after`'s length.
    """
    steps = _warmup_steps(warmup_fraction, total_steps)
    if steps == 0:
        return after(optimizer, **{length_argument: total_steps})
    rising = LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
    return SequentialLR(optimizer, [rising, after(optimizer, **{length_argument: total_steps - steps})], [steps])


def one_cycle(optimizer: Optimizer, total_steps: int, pct_start: float, **options: Any) -> LRScheduler:
    """Rates that rise to the optimizer's for `pct_start` of the steps, then fall; momentum goes the other way.

    Smith and Topin, "Super-Convergence", 2018. Momentum stays as it is in optimizers that have none to cycle.

    Args:
        optimizer: whose groups each have their own highest rate.
        total_steps: of the whole training.
        pct_start: part of the steps, strictly between 0 and 1.
        options: further ones of torch's OneCycleLR.
    """
    if round(pct_start * total_steps, 9) == 1:  # a rise of no length, by which torch divides
        pct_start *= 1 - 1e-6
    cycles = {"momentum", "betas"} & optimizer.defaults.keys()
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, highest, total_steps, pct_start=pct_start, **{"cycle_momentum": bool(cycles), **options}
    )


def timm_schedule(optimizer: Optimizer, total_steps: int, sched: str, warmup_fraction: float, **options: Any) -> Any:
    """A schedule of timm that counts steps, after a linear warm-up.

    Args:
        optimizer: whose groups each have their own rate.
        total_steps: of the whole training, warm-up included.
        sched: its name: constant, cosine, poly, rsqrt, tanh or wsd (stable, then decay).
        warmup_fraction: of the steps, rounded; from 0 to below 1.
        options: further ones of `timm.scheduler.create_scheduler_v2`.
    """
    from timm.scheduler import create_scheduler_v2

    warm = _warmup_steps(warmup_fraction, total_steps)
    counts: dict[str, Any] = {"warmup_prefix": True, "step_on_epochs": False, "updates_per_epoch": 1}
    return create_scheduler_v2(optimizer, sched, total_steps - warm, warmup_epochs=warm, **counts, **options)[0]


def _warmup_steps(fraction: float, total_steps: int) -> int:
    return min(round(fraction * total_steps), total_steps - 1)
