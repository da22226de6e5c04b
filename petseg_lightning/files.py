"""Files that are written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import Any

from petseg_lightning.errors import InputError

UNFINISHED = ".unfinished_"  # how the names of files begin that are being written


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, and never a pipe, a socket or a device, which may wait or have no end.

    Raises:
        InputError: it is none.
        OSError: it is not there, or may not be read.
    """
    if S_ISREG(path.stat().st_mode):  # else opening it may already do something
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        if S_ISREG(os.fstat(file.fileno()).st_mode):  # it was not exchanged meanwhile
            return file
        file.close()
    raise InputError(f"{path}: is a folder, pipe, socket or device; give the path of a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same ending, that takes its place if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its place, and that of all in it, if the block ends well."""
    partial, stale = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "stale"))
    for leftover in (partial, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(stale)
        partial.rename(folder)
    finally:
        for leftover in (partial, stale):
            shutil.rmtree(leftover, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder and below it."""
    for path in folder.rglob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
