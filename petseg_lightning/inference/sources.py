"""Which pictures a user means, and what their results are called."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from itertools import count
from pathlib import Path, PurePath

from petseg_lightning.data.picture_file import PICTURE_ENDINGS
from petseg_lightning.data.picture_folder import is_hidden, pictures_below
from petseg_lightning.data.video_file import VIDEO_ENDINGS
from petseg_lightning.errors import InputError
from petseg_lightning.files import read_lines

MAX_LISTED = 250_000  # pictures in a .txt


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
    return [Source(path, name) for path, name in zip(found, _names(found), strict=True)]


def _names(found: Mapping[Path, PurePath]) -> list[str]:
    """A name for each picture: its path, as short as they are all different, without what leads out of a folder."""
    pictures = [(path, _inside(relative)) for path, relative in found.items()]
    names = [_without_ending(relative) for _, relative in pictures]
    for keep_ending, with_folder in ((True, False), (False, True), (True, True)):
        times = Counter(names)
        for index, (path, relative) in enumerate(pictures):
            if times[names[index]] > 1:
                folder = PurePath(os.path.abspath(path.parent)).name  # noqa: PTH100 (links keep their names)
                longer = PurePath(folder, relative) if with_folder else relative
                names[index] = longer.as_posix() if keep_ending else _without_ending(longer)
    times, taken = Counter(names), set(names)
    for index, name in enumerate(names):
        if times[name] > 1:
            names[index] = next(free for number in count(1) if (free := f"{name} ({number})") not in taken)
            taken.add(names[index])
    return names


def _without_ending(path: PurePath) -> str:
    return (path if path.stem in (".", "..") else path.with_suffix("")).as_posix()


def _pictures(source: str) -> Iterator[tuple[Path, PurePath]]:
    """Paths, with the part of each that its results keep."""
    path = Path(source).expanduser()
    if path.is_dir():
        yield from ((picture, picture.relative_to(path)) for picture in pictures_below(path))
    elif path.suffix.lower() == ".txt" and path.is_file():
        for number, line in enumerate(filter(None, map(str.strip, read_lines(path)))):
            if number == MAX_LISTED:
                raise InputError(f"{path}: lists more than {MAX_LISTED:,} pictures; divide it into several lists")
            yield path.parent / line, PurePath(line)
    elif path.exists() or path.is_symlink():
        yield path, PurePath(path.name)
    elif has_magic(str(path)):
        fixed = path
        while has_magic(str(fixed)):
            fixed = fixed.parent
        pattern = path.relative_to(fixed)
        endings = {*PICTURE_ENDINGS, path.suffix.lower()} if path.suffix.lower() in VIDEO_ENDINGS else PICTURE_ENDINGS
        shows_hidden = any(map(is_hidden, pattern.parts))
        try:
            matches = sorted(fixed.glob(str(pattern)))
        except ValueError as error:
            raise InputError(f"source={source}: is no pattern of paths ({error}); give e.g. photos/**/*.jpg") from error
        for match in matches:
            relative = match.relative_to(fixed)
            if match.suffix.lower() in endings and (shows_hidden or not any(map(is_hidden, relative.parts))):
                yield match, relative


def _inside(path: PurePath) -> PurePath:
    """A path without what would lead out of the folder of the results."""
    kept = PurePath(*(part for part in path.parts if part not in ("..", path.anchor)))
    return kept if kept.name else PurePath("picture")
