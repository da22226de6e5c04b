"""The pictures of a folder and all below it, the same for training and prediction."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from petseg_lightning.data.picture_file import PICTURE_ENDINGS


def pictures_below(folder: Path, endings: Sequence[str] = PICTURE_ENDINGS) -> Iterator[Path]:
    """What is named like a picture, in the order of the names, whatever it is.

    Links to folders are followed, each folder once. What begins with a dot, and `__MACOSX`, is left out: copies of
    notebooks, and what Macs leave beside the files.

    Args:
        folder: to look in.
        endings: in lower case, that pictures have.

    Raises:
        OSError: a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(name for name in (*names, *folders) if not is_hidden(name)):
            if os.path.splitext(name)[1].lower() in endings:  # noqa: PTH122 (a million paths take long)
                yield Path(parent, name)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
