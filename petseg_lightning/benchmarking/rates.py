"""Measuring in turns, and what a measurement is kept as."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter

import torch

from petseg_lightning.devices import synchronize

Rates = dict[str, list[float]]


def in_turn(contestants: Mapping[str, Callable[[], int]], rounds: int, device: torch.device) -> Rates:
    """Images per second of each contestant in each of `rounds`, after one round of warm-up.

    A contestant does its work and returns how many images that were. Taking turns, all meet the same moods of the
    machine, so that ratios within a round are right where single rates are not.
    """
    rates: Rates = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, work in contestants.items():
            begin = perf_counter()
            images = work()
            synchronize(device)
            if round_number > 0:
                rates[name].append(images / (perf_counter() - begin))
    return rates


def ratios(rates: Rates, name: str, other: str) -> list[float]:
    """How many times faster one was than the other, round by round."""
    return [mine / theirs for mine, theirs in zip(rates[name], rates[other], strict=True)]


def median(values: list[float]) -> float:
    return statistics.median(values)
