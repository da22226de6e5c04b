"""What a job's folder says about the job."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json
from petseg_lightning.plain_files import read_json
from petseg_lightning.rules import is_number

FILE = "state.json"
_LARGEST = 2**24  # bytes of metrics.json
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
        """The state of the job whose folder this is; None where there was none. Raises InputError for a damaged one."""
        file = folder / FILE
        if not file.is_file():
            return None
        stored = read_json(file, inside=folder)
        known = {field.name for field in fields(cls)}
        if not isinstance(stored, dict) or not {"status"} <= stored.keys() <= known or not _is_state(stored):
            raise InputError(f"{file} does not say what became of a job; remove its folder, or take another sweep's")
        return cls(**stored)

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    def known_as(self, identity: dict[str, str]) -> "State":
        return replace(self, identity=identity)

    def ended(self, status: str, message: str = "") -> "State":
        return replace(self, status=status, message=message)


def _is_state(stored: dict[str, Any]) -> bool:
    overrides, identity = stored.get("overrides", []), stored.get("identity") or {}
    if not isinstance(overrides, list) or not isinstance(identity, dict):
        return False
    texts = (*overrides, *identity.values(), stored.get("message", ""), stored.get("commit") or "")
    return stored["status"] in (RUNNING, FINISHED, FAILED, PRUNED) and all(isinstance(one, str) for one in texts)


def score(folder: Path, split: str, name: str) -> float | None:
    """A headline score of a job that finished; None where it has none."""
    file = folder / "metrics.json"
    metrics = read_json(file, _LARGEST, folder) if file.is_file() else None
    node: Any = metrics
    for key in ("splits", split, "protocols", metrics.get("headline") if isinstance(metrics, dict) else None, name):
        node = node.get(key) if isinstance(node, dict) and isinstance(key, str) else None
    return float(node) if is_number(node) else None


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
