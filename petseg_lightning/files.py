"""Files that are written whole or not at all."""

import codecs
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from stat import S_ISREG
from typing import Any

from petseg_lightning.errors import InputError
from petseg_lightning.failures import FULL

_LONGEST_LINE = 2**16  # characters
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


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text as `str.splitlines` has them, one at a time.

    It is UTF-8, with or without the mark that Windows puts before it, or UTF-16 with its mark.

    Raises:
        InputError: it is no such text, or no regular file.
    """
    with open_regular(path) as file:
        marked = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = TextIOWrapper(file, "utf-16" if marked else "utf-8-sig")
        try:
            while some := text.readline(_LONGEST_LINE):
                if "\0" in some or len(some) == _LONGEST_LINE:
                    raise InputError(f"{path}: is no text with a name in each line; give a list of pictures")
                yield from some.splitlines()
        except UnicodeError as error:
            raise InputError(f"{path}: is not in UTF-8 ({error}); save the list with this encoding") from error


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
    except OSError as error:
        _say_where(error, temporary, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its place, and that of all in it, if the block ends well.

    Raises InputError where that would be the working folder, or one that it lies in.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InputError(f"{folder} is where this command runs, and would be replaced: give a folder of another name")
    partial, stale = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "stale"))
    for leftover in (partial, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(stale)
        partial.rename(folder)
    except OSError as error:
        _say_where(error, partial, folder)
        raise
    finally:
        for leftover in (partial, stale):
            shutil.rmtree(leftover, ignore_errors=True)


def _say_where(error: OSError, temporary: Path, place: Path) -> None:
    """Name the place where a full disk is met: a write does not know it, and the temporary one is removed."""
    if error.errno in FULL and str(error.filename or temporary).startswith(str(temporary)):
        error.filename = str(place)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder and below it."""
    for path in folder.rglob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
