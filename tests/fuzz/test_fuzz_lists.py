"""Lists of pictures, and of splits, that are nearly right."""

from contextlib import suppress
from pathlib import Path, PurePath

import pytest
from fuzz.mutations import CORPUS, attack
from PIL import Image

from petseg_lightning.data.folder import FolderDataModule
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.errors import InputError
from petseg_lightning.inference.sources import find_pictures

INPUTS = 4_000  # of each kind
NAMES = ["a.jpg", "b.png", "dogs/a.jpg", "../a.jpg", "/etc/passwd.png", "élan noir.jpg", "图.jpg", "", " ", "C:\\a.jpg"]
SEEDS = [
    *("\r\n".join(NAMES).encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be")),
    "élan noir.jpg".encode("cp1252"),
    b"a\nb\na\n",
    b"Abyssinian_1 1 1 1\nbeagle_2 2 2 1\n# a comment\n\nbeagle_3 2 2 1\n",
]


def read_pictures(content: bytes) -> None:
    Path("list.txt").write_bytes(content)
    names = [source.name for source in find_pictures("list.txt", Path("results"))]
    assert len(names) == len(set(names))
    for name in names:
        assert PurePath(name).name
        assert not PurePath(name).is_absolute()
        assert ".." not in PurePath(name).parts


def read_splits(content: bytes) -> None:
    for name in ("images/a.png", "masks/a.png", "images/dogs/b.png", "masks/dogs/b.png"):
        if not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((4, 4), 90).point(lambda value: value > 128).convert("L").save(name)
    Path("list.txt").write_bytes(content)
    lists = {"trainval": "list.txt", "test": "list.txt"}
    samples = FolderDataModule(".", ["background", "pet"], split_lists=lists).read_splits()["test"]
    assert set(samples.names) <= {"a", "dogs/b"}


def read_pets(content: bytes) -> None:
    annotations = Path("oxford-iiit-pet/annotations")
    annotations.mkdir(parents=True, exist_ok=True)
    for split in ("trainval", "test"):
        (annotations / f"{split}.txt").write_bytes(content)
    for sample in OxfordPetDataModule(".", download=False).read_splits()["test"]:
        assert sample.image.parent == Path("oxford-iiit-pet/images")


KINDS = {"pictures": read_pictures, "splits": read_splits, "pets": read_pets}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_lists(tmp_path, kind):
    attack(KINDS[kind], SEEDS, INPUTS, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_found(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for content in [*SEEDS, *(path.read_bytes() for path in sorted((CORPUS / "lists").iterdir()))]:
        with suppress(InputError):
            KINDS[kind](content)
