import logging
import threading
from collections import Counter

import pytest

from petseg_lightning.data import parallel
from petseg_lightning.data.parallel import in_threads


@pytest.mark.parametrize("count", [0, 1, parallel._BLOCK, 2 * parallel._BLOCK + 3])
def test_every_number_is_worked_on_once(count):
    seen: list[int] = []
    in_threads(seen.append, count, "Counting")
    assert Counter(seen) == Counter(range(count))


def test_there_is_a_thread_per_core(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 3)
    together = threading.Barrier(3, timeout=30)
    in_threads(lambda _: together.wait(), 6, "Meeting")  # with fewer threads nobody would come through
    assert not together.broken


def test_the_exception_of_the_lowest_number_ends_it(monkeypatch):
    monkeypatch.setattr(parallel, "_BLOCK", 10)
    later_failed = threading.Event()
    seen = set()

    def work(number: int) -> None:
        seen.add(number)
        if number == 13:
            assert later_failed.wait(30)
            raise ValueError("thirteen")
        if number == 14:
            later_failed.set()
            raise ValueError("fourteen")

    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    with pytest.raises(ValueError, match="thirteen"):
        in_threads(work, 1000, "Failing")
    assert set(range(15)) <= seen <= set(range(20))


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_the_progress_is_shown_where_the_log_is(caplog, capsys, level, shown):
    with caplog.at_level(level, "petseg_lightning"):
        in_threads(lambda _: None, 1500, "Decoding pictures")
    out = capsys.readouterr().out
    assert ("Decoding pictures" in out) == ("1500/1500" in out) == shown
    assert bool(out) == shown
