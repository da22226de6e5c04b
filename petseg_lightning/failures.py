"""How a failure is told to the user, and what of it is left behind."""

import errno
import os
import re
import shutil
import sys
import threading
import traceback
from pathlib import Path

from petseg_lightning.errors import InputError

HINT = "(PETSEG_TRACEBACK=1 shows where)"
NO_MEMORY = re.compile("can't allocate memory|out of memory")  # torch's words, for a CPU and a GPU
LONGEST = 4_000  # characters of a line
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
FULL = (errno.ENOSPC, errno.EDQUOT)
ADVICE = {
    **dict.fromkeys(FULL, "free some space, or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give yourself access, or choose another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is where a folder is meant, choose another place"),
}


def report(error: Exception, job: str = "") -> None:
    """Print a user's mistake as one line on stderr, a bug with its traceback.

    Args:
        error: what was raised.
        job: of a sweep, by number and overrides; it gets its line also where the error is a bug.
    """
    line = _users_mistake(error)
    if line is None or os.environ.get("PETSEG_TRACEBACK") == "1":
        traceback.print_exception(error)
    if line is not None or job:
        start = f"{job}: " if job else ""
        print(f"error: {start}{in_one_line(error)}", file=sys.stderr)


def in_one_line(error: Exception) -> str:
    """A user's mistake in its words, a bug with its type."""
    return _users_mistake(error) or f"{type(error).__name__}: {_one_line(str(error))}"


def report_of_thread(raised: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk that a thread met: whoever waits for the thread raises it again."""
    if getattr(raised.exc_value, "errno", None) not in FULL or os.environ.get("PETSEG_TRACEBACK") == "1":
        threading.__excepthook__(raised)


def remove_if_unused(output_dir: Path) -> None:
    """Remove a run folder in which nothing but its configuration was written."""
    if output_dir.is_dir() and [path.name for path in output_dir.iterdir()] == [".hydra"]:
        shutil.rmtree(output_dir)


def _users_mistake(error: Exception) -> str | None:
    """What to tell the user; None where the exception is a bug."""
    if not isinstance(error, InputError | OSError) and isinstance(error.__cause__, InputError | OSError):
        error = error.__cause__  # a library said it in its own words
    text = str(error)
    if "Original Traceback" in text:  # raised in a worker of a DataLoader: its traceback is the message
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, InputError):
        return _one_line(text)
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        details = _one_line(text)[:200] or "no more is free"
        return f"the memory does not suffice ({details}): give smaller pictures, batches or models {HINT}"
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, whose import takes seconds
        return f"{_one_line(text)} {HINT}"
    if not isinstance(error, OSError):
        return None
    if error.errno in ADVICE:
        place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return f"{error.strerror}{place}: {ADVICE[error.errno]} {HINT}"
    return f"{_one_line(text)} {HINT}"


def _one_line(text: str) -> str:
    """Without line breaks, without what a terminal would obey, and cut short where it is very long."""
    line = CONTROL.sub("?", " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
