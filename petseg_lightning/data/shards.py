"""Tar shards of pictures (WebDataset format), and the index beside them that says how many each one holds."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petseg_lightning.data.samples import MaskCode, Sample
from petseg_lightning.errors import InputError

FORMAT = 1  # to be raised with every change of what a shard or its index holds
GENERATOR = "petseg shard"
INDEX = "index.json"

Entry = tuple[int, Sample]  # its index in the split; index -1 is padding


@dataclass(frozen=True)
class Shard:
    """A tar file, by path or URL, and how many pictures it holds."""

    url: str
    count: int


class Member(io.BytesIO):
    """A file in a shard, which error messages name like a path."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


def parse_index(content: bytes, location: str) -> dict[str, Any]:
    """What the index of a folder or URL says. Raises InputError for another one, or one of another format."""
    try:
        index = json.loads(content)
        known = index["generator"] == GENERATOR
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise InputError(f"{location}/{INDEX} is not of {GENERATOR}; write shards with petseg shard out=<folder>")
    if index["format"] != FORMAT:
        raise InputError(
            f"{location}/{INDEX} is of format {index['format']} and this version reads format {FORMAT}; "
            "write the shards again with petseg shard"
        )
    return index


def check_size(path: Path, size: int) -> None:
    """Raises InputError for a shard that is missing or has not as many bytes as its index says."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, not the {size:,} of {INDEX}"
        raise InputError(f"{path} {state}; copy it again from where petseg shard wrote it")


def read_file(url: str) -> bytes:
    """The content of a small file by path or URL. Raises InputError where it cannot be read."""
    _require_webdataset()
    from webdataset.gopen import gopen

    try:
        with closing(gopen(url)) as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{url}: cannot be read ({_reason(error)}); give the folder or URL that petseg shard wrote as "
            "data.root=<folder>, or write one with petseg shard data=... out=<folder>"
        ) from error


def read_shard(shard: Shard, code: MaskCode) -> Iterator[Entry]:
    """The pictures of a shard with their indices, one after the other, still encoded.

    Raises:
        InputError: webdataset is not installed, or the shard cannot be read or holds another number of pictures than
            its index says; at the end of the shard where it ends too early.
    """
    _require_webdataset()
    from webdataset.gopen import gopen
    from webdataset.tariterators import group_by_keys, tar_file_expander

    found = 0
    try:
        with closing(gopen(shard.url)) as stream:
            for members in group_by_keys(tar_file_expander([{"url": shard.url, "stream": stream}])):
                yield _entry(shard.url, members, code)
                found += 1
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise InputError(
            f"{shard.url}: cannot be read as a shard ({_reason(error)}); copy it again from where petseg shard wrote it"
        ) from error
    if found != shard.count:
        raise InputError(
            f"{shard.url}: holds {found:,} pictures, but its {INDEX} says {shard.count:,}; "
            "copy both again from where petseg shard wrote them"
        )


def _entry(url: str, members: Mapping[str, Any], code: MaskCode) -> Entry:
    """An entry of what webdataset grouped: a member's content by the ending of its name."""
    row = json.loads(members["json"])
    (ending,) = (key for key in members if not key.startswith("__") and key not in ("json", "mask.png"))
    image, mask = (Member(members[end], f"{url}/{members['__key__']}.{end}") for end in (ending, "mask.png"))
    return row["index"], Sample(row["name"], image, mask, code, row["breed"], row["species"])  # type: ignore[arg-type]


def _reason(error: Exception) -> str:
    """What went wrong, in few words where it is a program like curl that failed."""
    program = re.search(r"\['(\w+)'.*exit (\d+)", str(error))
    return f"{program[1]} ended with exit code {program[2]}" if program else str(error)


def _require_webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise InputError("data=stream needs webdataset: pip install 'petseg-lightning[stream]'") from error
