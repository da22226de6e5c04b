"""What a job's folder says about the job."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from petseg_lightning.files import write_json

FILE = "state.json"
RUNNING, FINISHED, FAILED, PRUNED = "running", "finished", "failed", "pruned"


@dataclass(frozen=True)
class State:
    """Of a job; one that runs no longer and still says so was interrupted."""

    status: str
    overrides: list[str] = field(default_factory=list)
    identity: dict[str, str] | None = None
    """None as long as it is not known, and for doors whose jobs are always run."""
    commit: str | None = None
    message: str = ""

    @classmethod
    def read(cls, folder: Path) -> "State | None":
        """The state of the job whose folder this is; None where there was none."""
        file = folder / FILE
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    def known_as(self, identity: dict[str, str]) -> "State":
        return replace(self, identity=identity)

    def ended(self, status: str, message: str = "") -> "State":
        return replace(self, status=status, message=message)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process has the job's folder for itself; a process that dies gives it back."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / folder.name, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
