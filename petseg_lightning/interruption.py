"""Signals that end a training: it stops after its step, with all that it has learned saved.

SIGTERM and SIGUSR1 are what batch systems send before they take a machine away, SIGINT is Ctrl-C. Signals are a matter
of the process, and so is what is noted here.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from petseg_lightning.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_PARENT = "PETSEG_FIRST_PROCESS"  # in the environment of the others: its number
_PR_SET_PDEATHSIG = 1


class _Request:
    """Which signal asked this process to stop, whether that waits for the end of a step, and what is handled here."""

    signum: int | None = None
    waits = False
    handled: tuple[signal.Signals, ...] = ()
    process = 0


request = _Request()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this a signal raises StoppedError: at once or, while `request.waits`, where a step has ended.

    A second signal does not wait. A handler of somebody else, as a launcher's, stays, and so does an ignored signal.
    """
    if request.handled:
        yield
        return
    in_main = threading.current_thread() is threading.main_thread()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS if in_main}
    request.signum, request.waits, request.process = None, False, os.getpid()
    request.handled = tuple(signum for signum, handler in before.items() if handler in _DEFAULTS)
    take_over()
    atexit.register(_end_workers)
    try:
        yield
    finally:
        for signum in request.handled:
            signal.signal(signum, before[signum])
        request.handled, request.waits = (), False


def take_over() -> None:
    """Handle the signals again, after Lightning has put handlers of its own in place, which save nothing."""
    for signum in request.handled:
        signal.signal(signum, _handle)


def _handle(signum: int, _: FrameType | None) -> None:
    if os.getpid() != request.process:  # a worker that has just been forked
        return
    if request.waits and request.signum is None:
        request.signum = signum
        print(f"{signal.Signals(signum).name}: saves after this step and stops", file=sys.stderr)
    else:
        raise StoppedError(signum)


def leave_signals_to_the_parent(_: int) -> None:
    """For a worker of a loader: what is sent to all processes of a job must not end it before a step has ended."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _end_workers() -> None:
    """At its end, Python waits for workers that it asked to end by a signal."""
    for worker in multiprocessing.active_children():
        worker.kill()


def end_with_parent() -> None:
    """In a process that Lightning started for another device: end when the first one ends, however that ends."""
    if not int(os.environ.get("LOCAL_RANK", 0)):
        os.environ[_PARENT] = str(os.getpid())
    elif _PARENT in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.environ[_PARENT] != str(os.getppid()):  # it has ended already
            sys.exit(1)
