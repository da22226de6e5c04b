"""Which pictures a user means, and what their results are called."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePath

from petseg_lightning.data.picture_file import PICTURE_ENDINGS
from petseg_lightning.data.video_file import VIDEO_ENDINGS
from petseg_lightning.errors import InputError


@dataclass(frozen=True)
class Source:
    """The file of a picture or video, and the relative path, without an ending, that its results have."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_pictures(source: str | Sequence[str], output: Path) -> list[Source]:
    """The pictures of a file, a folder and all below it, a glob, a `.txt` with a path per line, or several of these.

    A video is meant only where it is named: as a file, in a `.txt`, or by a glob that ends in its ending.

    Args:
        source: what the user gave. Paths in a list are relative to the list's folder.
        output: a folder whose pictures are results, and never sources.

    Raises:
        InputError: nothing there.
        OSError: a folder that cannot be read.
    """
    there: dict[Path, PurePath] = {}
    for one in [source] if isinstance(source, str) else source:
        for path, relative in _pictures(one):
            there.setdefault(path, relative)
    inside = output.absolute()
    found = {path: relative for path, relative in there.items() if not path.absolute().is_relative_to(inside)}
    if there and not found:
        raise InputError(
            f"source={source}: its pictures lie in output={output}, where they count as results; give another output="
        )
    if not found:
        raise InputError(
            f"source={source}: no pictures there; give a picture, a folder or glob of them "
            f"({', '.join(ending.lstrip('.') for ending in PICTURE_ENDINGS)}), or a .txt with a path per line"
        )
    stems = Counter(relative.with_suffix("").as_posix() for relative in found.values())
    return [
        Source(path, stem if stems[stem := relative.with_suffix("").as_posix()] == 1 else relative.as_posix())
        for path, relative in found.items()
    ]


def _pictures(source: str) -> Iterator[tuple[Path, PurePath]]:
    """Paths, with the part of each that its results keep."""
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _below(path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
            yield path.parent / line, _inside(PurePath(line))
    elif path.is_file():
        yield path, PurePath(path.name)
    elif has_magic(str(path)):
        fixed = path
        while has_magic(str(fixed)):
            fixed = fixed.parent
        endings = {*PICTURE_ENDINGS, path.suffix.lower()} if path.suffix.lower() in VIDEO_ENDINGS else PICTURE_ENDINGS
        for match in sorted(map(Path, glob(str(path), recursive=True))):  # noqa: PTH207 (absolute patterns)
            if match.is_file() and match.suffix.lower() in endings:
                yield match, match.relative_to(fixed)


def _below(folder: Path) -> Iterator[tuple[Path, PurePath]]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in PICTURE_ENDINGS:
                yield path, path.relative_to(folder)


def _inside(path: PurePath) -> PurePath:
    """A path without what would lead out of the folder of the results."""
    return PurePath(*(part for part in path.parts if part not in ("..", path.anchor)))
