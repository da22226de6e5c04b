"""The same work on many pictures, in threads and with a progress bar."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

_BLOCK = 1024  # handed to the threads at once, so that millions take no memory


def in_threads(work: Callable[[int], object], count: int, description: str) -> None:
    """Call `work` with 0, ..., count - 1, in a thread per core. The first exception ends it and is raised."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    silent = not log.isEnabledFor(logging.INFO)  # as on all devices but the first
    with Progress(*columns, disable=silent) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task(description, total=count)
        for start in range(0, count, _BLOCK):
            for _ in pool.map(work, range(start, min(start + _BLOCK, count))):
                progress.advance(task)
