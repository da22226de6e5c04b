"""Drawn pets on disk: the layout, what the seed decides, and what happens to a folder that is there."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, local

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import OxfordIIITPet

from petseg_lightning.data import synthetic
from petseg_lightning.data.drawing.breeds import BREEDS
from petseg_lightning.data.drawing.picture import draw_picture
from petseg_lightning.data.synthetic import SyntheticPetDataModule, write_synthetic_pets
from petseg_lightning.errors import InputError

FOLDER = "oxford-iiit-pet"
SIZE = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pets")
    write_synthetic_pets(root, 19, 10, SIZE, seed=3)
    return root


def contents(root: Path) -> dict[str, bytes]:
    """Pictures and trimaps by their path."""
    folder = root / FOLDER
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".jpg", ".png")}


def rows(root: Path, name: str) -> list[list[str]]:
    lines = (root / FOLDER / "annotations" / f"{name}.txt").read_text().splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def test_lists_and_files_agree(root: Path) -> None:
    trainval, test = rows(root, "trainval"), rows(root, "test")
    assert (len(trainval), len(test)) == (19, 10)
    names = [row[0] for row in trainval + test]
    assert len(set(names)) == 29
    assert sorted(rows(root, "list")) == sorted(trainval + test)
    assert set(contents(root)) == {f"images/{name}.jpg" for name in names} | {
        f"annotations/trimaps/{name}.png" for name in names
    }


def test_ids_follow_the_conventions_of_the_real_lists(root: Path) -> None:
    all_rows = rows(root, "list")
    breeds = sorted({row[0].rsplit("_", 1)[0] for row in all_rows}, key=str.lower)
    assert len(breeds) == len(BREEDS) == 8
    within: Counter[str] = Counter()
    expected = {}
    for class_id, breed in enumerate(breeds, 1):
        species = "1" if breed[0].isupper() else "2"
        within[species] += 1
        expected[breed] = [str(class_id), species, str(within[species])]
    assert within == {"1": 4, "2": 4}
    for name, *ids in all_rows:
        assert ids == expected[name.rsplit("_", 1)[0]]


@pytest.mark.parametrize(("split", "count"), [("trainval", 19), ("test", 10)])
def test_torchvision_reads_it(root: Path, split: str, count: int) -> None:
    pets = OxfordIIITPet(root, split=split, target_types=["segmentation", "category", "binary-category"])
    assert len(pets) == count
    for index, row in enumerate(rows(root, split)):
        image, (trimap, category, is_dog) = pets[index]
        assert image.mode == "RGB"
        assert image.size == trimap.size
        assert max(image.size) == SIZE
        assert trimap.mode == "L"
        assert set(np.unique(trimap)) == {1, 2, 3}
        assert [category + 1, is_dog + 1] == [int(row[1]), int(row[2])]


def test_the_files_hold_what_is_drawn(root: Path) -> None:
    image, trimap = draw_picture(np.random.default_rng([3, 1, 9]), BREEDS[1], SIZE)
    name = f"{BREEDS[1].name}_4"
    folder = root / FOLDER
    np.testing.assert_array_equal(Image.open(folder / "annotations" / "trimaps" / f"{name}.png"), trimap)
    stored = np.asarray(Image.open(folder / "images" / f"{name}.jpg"), dtype=float)
    assert np.abs(stored - image).mean() < 6
    assert np.abs(stored[..., ::-1] - image).mean() > np.abs(stored - image).mean()


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(root: Path, tmp_path: Path) -> None:
    write_synthetic_pets(tmp_path / "same", 19, 10, SIZE, seed=3)
    write_synthetic_pets(tmp_path / "other", 19, 10, SIZE, seed=4)
    same, other = contents(tmp_path / "same"), contents(tmp_path / "other")
    assert same == contents(root)
    assert set(other) == set(same)
    assert all(other[path] != same[path] for path in same)


def test_more_pictures_do_not_change_the_earlier_ones(root: Path, tmp_path: Path) -> None:
    write_synthetic_pets(tmp_path, 5, 17, SIZE, seed=3)
    fewer, more = {row[0] for row in rows(tmp_path, "trainval")}, {row[0] for row in rows(tmp_path, "test")}
    assert fewer < {row[0] for row in rows(root, "trainval")}
    assert more > {row[0] for row in rows(root, "test")}
    common = contents(root).keys() & contents(tmp_path).keys()
    assert len(common) == 2 * (5 + 10)
    assert all(contents(root)[path] == contents(tmp_path)[path] for path in common)


def test_a_folder_of_the_same_parameters_is_kept_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic_pets(tmp_path, 2, 1, SIZE, seed=0)
    monkeypatch.setattr(synthetic, "draw_picture", None)
    write_synthetic_pets(tmp_path, 2, 1, SIZE, seed=0)


@pytest.mark.parametrize("changed", [{"num_trainval": 3}, {"num_test": 2}, {"picture_size": 48}, {"seed": 1}])
def test_a_folder_of_other_parameters_is_replaced(tmp_path: Path, changed: dict[str, int]) -> None:
    values = {"num_trainval": 2, "num_test": 1, "picture_size": SIZE, "seed": 0}
    write_synthetic_pets(tmp_path / "old", **values)
    (tmp_path / "old" / FOLDER / "images" / "stale.jpg").write_bytes(b"")
    write_synthetic_pets(tmp_path / "old", **values | changed)
    write_synthetic_pets(tmp_path / "new", **values | changed)
    assert contents(tmp_path / "old") == contents(tmp_path / "new")
    assert {p.name for p in (tmp_path / "old").iterdir()} == {FOLDER, f".{FOLDER}.lock"}


def test_pictures_of_an_earlier_format_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic_pets(tmp_path, 1, 1, SIZE, seed=0)
    monkeypatch.setattr(synthetic, "FORMAT", synthetic.FORMAT + 1)
    write_synthetic_pets(tmp_path, 1, 1, SIZE, seed=0)
    manifest = json.loads((tmp_path / FOLDER / synthetic.MANIFEST).read_text())
    assert manifest["format"] == synthetic.FORMAT


@pytest.mark.parametrize("manifest", [None, "{", "[]", "{}", '{"generator": "somebody else"}'])
def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, manifest: str | None) -> None:
    precious = tmp_path / FOLDER / "images" / "Abyssinian_1.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"precious")
    if manifest is not None:
        (tmp_path / FOLDER / synthetic.MANIFEST).write_text(manifest)
    with pytest.raises(
        InputError, match=r"does not hold drawn pets .* not overwritten; give another folder as data\.root"
    ):
        write_synthetic_pets(tmp_path, 1, 1, SIZE, seed=0)
    assert precious.read_bytes() == b"precious"


def test_an_interrupted_writing_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        if any((tmp_path / f".{FOLDER}.partial" / "images").iterdir()):
            raise KeyboardInterrupt
        return draw_picture(*arguments)

    monkeypatch.setattr(synthetic, "draw_picture", interrupted)
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_pets(tmp_path, 4, 2, SIZE, seed=0)
    assert not (tmp_path / FOLDER).exists()
    monkeypatch.setattr(synthetic, "draw_picture", draw_picture)
    write_synthetic_pets(tmp_path, 3, 1, SIZE, seed=0)
    assert {p.name for p in tmp_path.iterdir()} == {FOLDER, f".{FOLDER}.lock"}
    assert len(contents(tmp_path)) == 2 * (3 + 1)


def test_two_writers_at_once_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_looked, looked, drawn = Barrier(2), local(), []
    read_manifest = synthetic._read_manifest

    def look(folder: Path) -> object:
        manifest = read_manifest(folder)
        if not hasattr(looked, "once"):
            looked.once = True
            both_looked.wait(timeout=30)
        return manifest

    def draw(rng: np.random.Generator, *arguments: object) -> object:
        drawn.append(rng)
        return draw_picture(rng, *arguments)

    monkeypatch.setattr(synthetic, "_read_manifest", look)
    monkeypatch.setattr(synthetic, "draw_picture", draw)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: write_synthetic_pets(tmp_path, 6, 2, SIZE, seed=0), range(2)))
    assert len(drawn) == 8
    assert len(contents(tmp_path)) == 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_trainval": 0}, "num_trainval=0 is below 1"),
        ({"num_test": -1, "seed": -5}, "num_test=-1 is below 1, seed=-5 is below 0"),
        ({"picture_size": 7}, "picture_size=7 is below 8"),
    ],
)
def test_values_out_of_range_are_named(tmp_path: Path, changed: dict[str, int], message: str) -> None:
    values = {"num_trainval": 1, "num_test": 1, "picture_size": 8, "seed": 0}
    with pytest.raises(InputError, match=message):
        write_synthetic_pets(tmp_path, **values | changed)
    assert not any(tmp_path.iterdir())


def test_a_root_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write drawn pets to .*data\.root must be a folder"):
        write_synthetic_pets(tmp_path / "file" / "root", 1, 1, SIZE, seed=0)


def test_the_data_module_draws_and_reads(tmp_path: Path) -> None:
    pets = SyntheticPetDataModule(
        tmp_path, num_trainval=16, num_test=4, picture_size=SIZE, synthetic_seed=2, image_size=24, val_fraction=0.5
    )
    pets.prepare_data()
    assert pets.counts == {"train": 8, "val": 8, "test": 4}
    write_synthetic_pets(tmp_path / "again", 16, 4, SIZE, seed=2)
    assert contents(tmp_path) == contents(tmp_path / "again")
    assert {sample.species for sample in pets.splits["test"]} == {"cat", "dog"}
    image, parts = pets.pictures("train")[0]
    assert image.shape == (24, 24, 3)
    assert parts.shape == (24, 24)
