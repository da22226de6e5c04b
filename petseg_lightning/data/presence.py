"""Whether the pets are there or can be had; imports nothing heavy, so that a door can ask first of all."""

import urllib.request
from pathlib import Path

from petseg_lightning.errors import InputError

FOLDER = "oxford-iiit-pet"
ARCHIVE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz"  # where torchvision downloads from
WAYS = "give the folder that holds oxford-iiit-pet/ as data.root=<folder>, or draw pets with data=synthetic"


def require_pets(root: str | Path, download: bool) -> None:
    """Raise InputError where `<root>/oxford-iiit-pet` is absent and cannot be downloaded either."""
    folder = Path(root) / FOLDER
    if folder.is_dir():
        return
    absent = f"no Oxford-IIIT Pet in {folder.absolute()}"
    if not download:
        raise InputError(f"{absent}, and data.download=false; {WAYS}")
    try:
        urllib.request.urlopen(ARCHIVE, timeout=5).close()
    except OSError as error:
        raise InputError(f"{absent}, and it cannot be downloaded ({error}); {WAYS}") from error
