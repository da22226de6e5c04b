"""Tar shards of pictures (WebDataset format), and the index beside them that says how many each one holds."""

import io
import re
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from petseg_lightning.data.samples import MaskCode, Sample
from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular
from petseg_lightning.plain_files import brief, parse_json
from petseg_lightning.rules import Rule, is_number, whole

FORMAT = 1  # to be raised with every change of what a shard or its index holds
GENERATOR = "petseg shard"
INDEX = "index.json"
ADDRESS = re.compile(r"(https?|gs|s3)://[\w.\-~/:@%+=,?&#\[\]]+", re.ASCII)
_TIMEOUT = 30  # seconds in which a server says something
_LARGEST_INDEX = 2**26  # bytes
_LARGEST_MEMBER = 2**28  # bytes of a file in a shard
_SHARD_NAME = re.compile(r"\w[\w.\-]{0,200}\.tar", re.ASCII)
_MANY = whole(0, 10**12)

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
    """What the index of a folder or URL says. Raises InputError for another one, one of another format, or damaged."""
    name = f"{location}/{INDEX}"
    index = parse_json(content.decode("utf-8", "replace"), name, most=len(content))
    if not isinstance(index, dict) or index.get("generator") != GENERATOR:
        raise InputError(f"{name} is not of {GENERATOR}; write shards with petseg shard out=<folder>")
    if index.get("format") != FORMAT:
        raise InputError(
            f"{name} is of format {brief(index.get('format'))} and this version reads format {FORMAT}; "
            "write the shards again with petseg shard"
        )
    if problem := _problem(index):
        raise InputError(f"{name} is damaged ({problem}); copy it again from where petseg shard wrote it")
    return index


def _problem(index: dict[str, Any]) -> str | None:
    names, shares, splits = (index.get(key) for key in ("part_names", "part_shares", "splits"))
    text = Rule("", lambda v: isinstance(v, str) and 0 < len(v) <= 200 and v.isprintable())
    if not (isinstance(names, list) and 0 < len(names) < 255 and all(map(text.holds, names))):
        return "part_names"
    if not (isinstance(shares, list) and len(shares) == len(names) and all(map(is_number, shares))):
        return "part_shares"
    if not (isinstance(index.get("source"), dict) and _MANY.holds(index["source"].get("breeds"))):
        return "source"
    for split in ("train", "val", "test"):
        found = splits.get(split) if isinstance(splits, dict) else None
        shards = found.get("shards") if isinstance(found, dict) else None
        if not (isinstance(found, dict) and isinstance(shards, list) and shards and _MANY.holds(found.get("count"))):
            return f"splits.{split}"
        for shard in shards:
            known = isinstance(shard, dict) and all(_MANY.holds(shard.get(key)) for key in ("count", "bytes"))
            if not known or not _SHARD_NAME.fullmatch(str(shard.get("name"))):
                return f"splits.{split}.shards: {brief(shard)} is no file beside it with its count and bytes"
        if sum(shard["count"] for shard in shards) != found["count"]:
            return f"splits.{split}.count"
    return None


def check_size(path: Path, size: int) -> None:
    """Raises InputError for a shard that is missing or has not as many bytes as its index says."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, not the {size:,} of {INDEX}"
        raise InputError(f"{path} {state}; copy it again from where petseg shard wrote it")


def is_address(location: str) -> bool:
    """Whether it is an http, https, gs or s3 address, else a path. Raises InputError for what pretends to be one."""
    if ADDRESS.fullmatch(location):
        return True
    if "://" in location or re.match(r"\w+:", location):
        raise InputError(
            f"data.root={brief(location)} must be a folder, or an http, https, gs or s3 address without signs that "
            "are none of an address; give another data.root="
        )
    return False


def open_place(place: str) -> AbstractContextManager[BinaryIO]:
    """A file by its path or address, to be read from its beginning to its end.

    Raises:
        InputError: no such place, or gs and s3 without their packages.
        OSError: it cannot be read.
    """
    if not is_address(place):
        return open_regular(Path(place))
    if place.startswith("http"):
        opened: Any = urllib.request.urlopen(place, timeout=_TIMEOUT)
        return opened
    import fsspec

    try:
        return fsspec.open(place, "rb")
    except ImportError as error:
        raise InputError(f"{brief(place)}: {' '.join(str(error).split())}") from error


def read_file(url: str) -> bytes:
    """The content of a small file by path or URL. Raises InputError where it cannot be read."""
    _require_webdataset()
    try:
        with open_place(url) as stream:
            content = stream.read(_LARGEST_INDEX + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{url}: cannot be read ({_reason(error)}); give the folder or URL that petseg shard wrote as "
            "data.root=<folder>, or write one with petseg shard data=... out=<folder>"
        ) from error
    if len(content) > _LARGEST_INDEX:
        raise InputError(f"{url} has more than {_LARGEST_INDEX:,} bytes; give the folder that petseg shard wrote")
    return content


def read_shard(shard: Shard, code: MaskCode) -> Iterator[Entry]:
    """The pictures of a shard with their indices, one after the other, still encoded.

    Raises:
        InputError: webdataset is not installed, or the shard cannot be read or holds another number of pictures than
            its index says; at the end of the shard where it ends too early.
    """
    _require_webdataset()
    from webdataset.tariterators import group_by_keys

    found = 0
    try:
        with open_place(shard.url) as stream:
            for members in group_by_keys(_members(shard.url, stream)):
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


def _members(url: str, stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """The files of a tar as webdataset groups them; its own reader would unpack what is compressed to any size."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if not member.isreg() or member.issparse() or member.size > _LARGEST_MEMBER:
                raise ValueError(f"{brief(member.name)} is none of its pictures")
            file = tar.extractfile(member)
            assert file is not None  # of a regular file
            yield {"fname": member.name, "data": file.read(), "__url__": url}
            tar.members = []  # type: ignore[attr-defined]  # else all are kept


def _entry(url: str, members: Mapping[str, Any], code: MaskCode) -> Entry:
    """An entry of what webdataset grouped: a member's content by the ending of its name."""
    row = parse_json(members["json"].decode("utf-8", "replace"), f"{url}/{members['__key__']}.json")
    (ending,) = (key for key in members if not key.startswith("__") and key not in ("json", "mask.png"))
    image, mask = (Member(members[end], f"{url}/{members['__key__']}.{end}") for end in (ending, "mask.png"))
    text = [row[key] for key in ("name", "breed", "species")] if isinstance(row, dict) else []
    if not text or not all(isinstance(one, str) and one.isprintable() and len(one) < 2**10 for one in text):
        raise ValueError(f"{brief(members['__key__'])}.json does not describe a picture")
    name = PurePosixPath(text[0])
    if not name.parts or name.is_absolute() or ".." in name.parts or not _MANY.holds(row["index"]):
        raise ValueError(f"{image}: its name {brief(text[0])} leaves the folder, or its index is no number")
    return row["index"], Sample(text[0], image, mask, code, text[1], text[2])  # type: ignore[arg-type]


def _reason(error: Exception) -> str:
    """What went wrong, without the advice of whoever noticed it."""
    return getattr(error.__cause__, "strerror", None) or str(error)


def _require_webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise InputError("data=stream needs webdataset: pip install 'petseg-lightning[stream]'") from error
