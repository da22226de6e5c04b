"""Decoded and resized pictures on disk, shared by workers, devices and runs.

A cache is a folder with images.npy (N,S,S,3) and parts.npy (N,S,S), both uint8, and cache.json, which says what they
were made from. It appears whole or not at all.
"""

import hashlib
import json
import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from filelock import FileLock

from petseg_lightning.data.parallel import in_threads
from petseg_lightning.data.sample_table import SampleTable
from petseg_lightning.data.samples import read_resized
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing_folder, write_json

log = logging.getLogger(__name__)

FORMAT = 3  # to be raised with every change of what a cache holds, so also of how pictures are decoded and resized
FOLDER = ".petseg_cache"
MANIFEST = "cache.json"
_FILES = ("images.npy", "parts.npy")
_CHUNK = 2**25  # bytes with one checksum
_CHECKED = 2**29  # bytes of a cache that are read to check it, spread over all of it


class DiskArrays:
    """A cache, mapped into memory: `images` uint8 (N,S,S,3) and `parts` uint8 (N,S,S), both read-only.

    Other processes that get a copy map the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.parts = (_mapped(folder / name) for name in _FILES)

    def __reduce__(self) -> tuple[type["DiskArrays"], tuple[Path]]:
        return DiskArrays, (self.folder,)


def open_disk_cache(table: SampleTable, image_size: int, root: Path, cache_dir: str | Path | None) -> DiskArrays:
    """The cache of all pictures of a table, row by row; built where it is missing, stale or damaged.

    Of processes that ask at the same time one builds it, and the others wait.

    Args:
        table: the pictures.
        image_size: S, in pixels.
        root: of the data. The cache lies in it, or in the user's own cache folder where it is missing there and nothing
            may be written.
        cache_dir: another folder instead.

    Raises:
        InputError: a damaged picture, or a folder that cannot be written.
    """
    listing, state = _keys(table, root)
    wanted = {"format": FORMAT, "pictures": len(table), "image_size": image_size, "files": state}
    for folder in [root / FOLDER, writable_cache(root)] if cache_dir is None else [Path(cache_dir)]:
        place = folder / f"{image_size}px-{listing}"
        if _defect(place, wanted) is None:
            return DiskArrays(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{place.name}.lock"):
            if defect := _defect(place, wanted):
                if place.exists():
                    log.info("The decoded pictures in %s %s: they are made anew", place, defect)
                _build(place, table, image_size, wanted)
            return DiskArrays(place)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise InputError(
            f"decoded pictures cannot be kept in {folder} ({error}); give another folder with data.cache_dir=..., "
            "or use data.cache=memory"
        ) from error


def writable_cache(root: Path) -> Path:
    """The folder for what is made from the data in `root`: in it, or the user's own where that cannot be written."""
    own = root / FOLDER
    return own if os.access(own if own.exists() else root, os.W_OK) else user_cache()


def user_cache() -> Path:
    """The user's own folder for what is made from data that lie elsewhere."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petseg_lightning" / "pictures"


def _keys(table: SampleTable, root: Path) -> tuple[str, str]:
    """A key of which pictures there are and how their masks are read; and one of the state of their files."""
    listing, state = hashlib.sha256(), hashlib.sha256()
    for row in range(len(table)):
        sample = table.sample(row)
        listing.update(f"{sample.code}\n".encode())
        for path in (sample.image, sample.mask):
            status = path.stat()
            listing.update(f"{str(path).removeprefix(f'{root}{os.sep}')}\n".encode(errors="surrogatepass"))
            state.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return listing.hexdigest()[:16], state.hexdigest()[:16]


def _defect(place: Path, wanted: dict[str, Any]) -> str | None:
    """What is wrong with a cache; None where it can be used."""
    try:
        manifest = json.loads((place / MANIFEST).read_text("utf-8"))
        if {key: manifest[key] for key in wanted} != wanted:
            return "are of files that have changed since"
        found = {name: (place / name).stat().st_size for name in _FILES}
        if found != manifest["sizes"] or not _checksums_match(place, manifest["checksums"]):
            return "are damaged"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "are damaged"
    return None


def _checksums_match(place: Path, checksums: dict[str, list[int]]) -> bool:
    chunks = [(place / name, i, value) for name, values in checksums.items() for i, value in enumerate(values)]
    step = -(-len(chunks) * _CHUNK // _CHECKED)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return all(pool.map(lambda chunk: _checksum(chunk[0], chunk[1]) == chunk[2], chunks[::step]))


def _checksum(path: Path, chunk: int) -> int:
    with path.open("rb") as file:
        file.seek(chunk * _CHUNK)
        return zlib.crc32(file.read(_CHUNK))


def _build(place: Path, table: SampleTable, image_size: int, wanted: dict[str, Any]) -> None:
    with replacing_folder(place) as partial:
        _decode(partial, table, image_size)
        sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
        checksums = {name: _checksums(partial / name, size) for name, size in sizes.items()}
        write_json(partial / MANIFEST, {**wanted, "sizes": sizes, "checksums": checksums})


def _checksums(path: Path, size: int) -> list[int]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda chunk: _checksum(path, chunk), range(-(-size // _CHUNK))))


def _decode(folder: Path, table: SampleTable, image_size: int) -> None:
    """Decode in threads and write at once, so that memory does not grow with the number of pictures."""
    shapes = (image_size, image_size, 3), (image_size, image_size)
    lock = Lock()
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in _FILES]
        for file, shape in zip(files, shapes, strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(table), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        starts = [file.tell() for file in files]

        def write(row: int) -> None:
            arrays = read_resized(table.sample(row), image_size)
            with lock:
                for file, start, array in zip(files, starts, arrays, strict=True):
                    file.seek(start + row * array.nbytes)
                    file.write(array.tobytes())

        in_threads(write, len(table), f"Decoding pictures to {image_size} x {image_size}")


def _mapped(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))
