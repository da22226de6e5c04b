"""Measuring in turns, by a clock that the contestants move."""

import pytest
import torch

from petseg_lightning.benchmarking import rates
from petseg_lightning.benchmarking.rates import in_turn, median, ratios


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rates, "perf_counter", lambda: now[0])
    return now


def test_contestants_take_turns_and_the_first_round_does_not_count(clock):
    order = []

    def contestant(name, images, seconds):
        durations = iter(seconds)

        def work():
            order.append(name)
            clock[0] += next(durations)
            return images

        return work

    contestants = {"a": contestant("a", 10, [50, 1, 2, 4]), "b": contestant("b", 30, [1, 3, 5, 10])}
    result = in_turn(contestants, 3, torch.device("cpu"))
    assert order == ["a", "b"] * 4
    assert result == {"a": [10, 5, 2.5], "b": [10, 6, 3]}
    assert ratios(result, "b", "a") == [1, 1.2, 1.2]
    assert median(ratios(result, "b", "a")) == 1.2


def test_the_device_is_waited_for_before_the_clock_is_read(clock, monkeypatch):
    """A device that goes on for 4 seconds after the work has returned."""

    def wait(device):
        assert device.type == "cuda"
        clock[0] += 4

    monkeypatch.setattr(rates, "synchronize", wait)
    assert in_turn({"a": lambda: 8}, 2, torch.device("cuda")) == {"a": [2, 2]}


def test_rounds_of_different_number_cannot_be_compared():
    with pytest.raises(ValueError, match="zip"):
        ratios({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")
