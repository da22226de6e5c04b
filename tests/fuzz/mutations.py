"""Files that are nearly what a parser reads, and a process of its own to read them in."""

import multiprocessing
import os
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from petseg_lightning.errors import InputError

CORPUS = Path(__file__).with_name("corpus")
MEMORY = 2**30  # bytes beside what the process has when it begins
SLOWEST = 10  # seconds for one input
ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST = 2**18  # bytes of an input


def mutated(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after one to eight changes: bytes, numbers, parts that are cut, repeated or of another seed."""
    content = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 9)):
        place = int(rng.integers(len(content) + 1))
        length = int(min(2 ** rng.integers(0, 9), len(content) - place))
        match rng.integers(7):
            case 0:
                content[place : place + 1] = bytes([rng.integers(256)])
            case 1:
                size, order = int(rng.choice([1, 2, 4])), str(rng.choice(["little", "big"]))
                number = ODD[rng.integers(len(ODD))] % 256**size
                content[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
            case 2:
                del content[place : None if rng.random() < 0.1 else place + length]
            case 3:
                content[place:place] = content[place : place + length] * int(rng.integers(1, 20))
            case 4:
                other = seeds[rng.integers(len(seeds))]
                start = int(rng.integers(len(other) + 1))
                content[place : place + length] = other[start : start + length]
            case 5:
                content[place : place + length] = rng.bytes(length)
            case _ if len(content):
                content[place % len(content)] ^= 1 << int(rng.integers(8))
        del content[_MOST:]
    return bytes(content)


def attack(read: Callable[[bytes], object], seeds: Sequence[bytes], number: int, folder: Path) -> None:
    """Read so many mutated inputs in a process of its own, in `folder`, where only InputError may be raised.

    What fails lies in `folder` afterwards, to be kept in the corpus.
    """
    process = multiprocessing.get_context("spawn").Process(target=_read_all, args=(read, seeds, number, folder))
    process.start()
    last = None
    while process.is_alive():
        process.join(SLOWEST)
        now = (folder / "input").stat().st_mtime if (folder / "input").exists() else None
        if process.is_alive() and now is not None and now == last:
            process.kill()
            raise AssertionError(f"{folder / 'input'} takes more than {SLOWEST} seconds")
        last = now
    assert process.exitcode == 0, f"exit code {process.exitcode} with {folder / 'input'}"


def _read_all(read: Callable[[bytes], object], seeds: Sequence[bytes], number: int, folder: Path) -> None:
    os.chdir(folder)
    with suppress(InputError):
        read(seeds[0])  # imports what it needs
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rng = np.random.default_rng(0)
    for _ in range(number):
        content = mutated(rng, seeds)
        (folder / "input").write_bytes(content)
        with suppress(InputError):
            read(content)
