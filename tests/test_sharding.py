"""Shards against the stdlib's tarfile and the files that they were written from."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.samples import read_parts
from petseg_lightning.errors import InputError
from petseg_lightning.sharding import write_shards


def shard(out: Path, *overrides: str) -> dict:
    assert write_shards(compose("shard", [f"out={out}", *overrides])) == out
    return json.loads((out / "index.json").read_text())


def pictures(folder: Path, split: str) -> list[dict]:
    """Of each picture its json, `ending`, and the bytes `image` and `mask`, in the order of the shards."""
    found: dict[str, dict] = {}
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, ending = member.name.partition(".")
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                row = found.setdefault(stem, {})
                if ending == "json":
                    row |= json.loads(content)
                elif ending == "mask.png":
                    row["mask"] = content
                else:
                    row |= {"image": content, "ending": ending}
    return list(found.values())


def test_shards_hold_the_files_and_what_is_known_of_them(tiny_pets, tmp_path):
    source = OxfordPetDataModule(tiny_pets())
    index = shard(tmp_path / "out", f"data.root={source.root}", "shard_size=4")
    counts = {"train": [4, 4, 4, 4, 2], "val": [2], "test": [4, 4]}
    assert {split: [s["count"] for s in content["shards"]] for split, content in index["splits"].items()} == counts
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.json",
        *(f"{split}-{i:06}.tar" for split, each in counts.items() for i in range(len(each))),
    }
    for split, samples in source.splits.items():
        assert index["splits"][split]["count"] == len(samples)
        found = pictures(tmp_path / "out", split)
        order = [row["index"] for row in found]
        assert sorted(order) == list(range(len(samples)))
        assert (order == sorted(order)) == (split != "train")  # train is mixed
        for row in found:
            sample = samples[row["index"]]
            assert (row["name"], row["breed"], row["species"]) == (sample.name, sample.breed, sample.species)
            assert (row["ending"], row["image"]) == ("jpg", sample.image.read_bytes())
            trimap = np.asarray(Image.open(sample.mask))
            part_of = {1: 1, 2: 0, 3: 2} if sample.species == "cat" else {1: 3, 2: 0, 3: 4}
            mask = Image.open(io.BytesIO(row["mask"]))
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.asarray(mask), np.vectorize(part_of.get)(trimap))


def test_the_index_says_what_training_needs_before_it_reads_a_shard(tiny_pets, tmp_path):
    source = OxfordPetDataModule(tiny_pets())
    index = shard(tmp_path / "out", f"data.root={source.root}")
    assert index["part_names"] == list(source.target.part_names)
    assert index["source"] == source.description()
    shares = [[(read_parts(s) == part).mean() for part in range(5)] for s in source.splits["train"]]
    np.testing.assert_allclose(index["part_shares"], np.mean(shares, axis=0))
    for content in index["splits"].values():
        for entry in content["shards"]:
            assert entry["bytes"] == (tmp_path / "out" / entry["name"]).stat().st_size


def test_the_same_pictures_give_the_same_bytes_in_place_of_the_old_ones(tiny_pets, tmp_path):
    root, out = tiny_pets(trainval=3, test=1), tmp_path / "out"
    shard(out, f"data.root={root}", "shard_size=2")
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    shard(out, f"data.root={root}", "shard_size=3")
    assert {path.name: path.read_bytes() for path in out.iterdir()} != first
    shard(out, f"data.root={root}", "shard_size=2")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pets"]


def test_names_with_slashes_and_dots_and_ignored_pixels_survive(tmp_path):
    rng = np.random.default_rng(0)
    patterns = ("my cats.2/tom.{}.b", "my cats/2.tom.{}.b", "x/-{}")  # the first two differ in their signs only
    names = [pattern.format(i) for pattern in patterns for i in range(4)]
    for i, name in enumerate(names):
        for folder, ending, array in (
            ("images", (".png", ".JPG")[i % 2], rng.integers(256, size=(9, 7, 3), dtype=np.uint8)),
            ("masks", ".png", rng.choice(np.array([0, 1, 255], np.uint8), (9, 7))),
        ):
            path = tmp_path / "own" / folder / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    settings = ["data=folder", f"data.root={tmp_path / 'own'}", "data.class_names=[background,pet]", "shard_size=3"]
    index = shard(tmp_path / "out", *settings)
    assert index["part_names"] == ["background", "pet"]
    assert sum(index["part_shares"]) < 1
    found = [row for split in ("train", "val", "test") for row in pictures(tmp_path / "out", split)]
    assert sorted(row["name"] for row in found) == sorted(names)
    for row in found:
        ending = {"png": ".png", "jpg": ".JPG"}[row["ending"]]
        assert row["image"] == (tmp_path / "own" / "images" / f"{row['name']}{ending}").read_bytes()
        mask = np.asarray(Image.open(tmp_path / "own" / "masks" / f"{row['name']}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["mask"]))), mask)


@pytest.mark.parametrize("content", [None, "{}", "[]", "{", '{"generator": "other"}'])
def test_a_folder_of_somebody_else_is_not_overwritten(tiny_pets, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    if content is not None:
        (out / "index.json").write_text(content)
    with pytest.raises(InputError, match="is not overwritten; give another out="):
        write_shards(compose("shard", [f"out={out}", f"data.root={tiny_pets(2, 1)}"]))
    assert [path.name for path in out.iterdir()] == ["index.json"] * (content is not None)


def test_a_damaged_picture_is_named_and_leaves_nothing(tiny_pets, tmp_path):
    root = tiny_pets(trainval=3, test=1)
    damaged = root / "oxford-iiit-pet" / "images" / "beagle_3.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(InputError, match=f"{damaged}: cannot be read as a picture"):
        shard(tmp_path / "out", f"data.root={root}")
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]
