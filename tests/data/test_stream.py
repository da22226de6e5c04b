"""The stream against the module that reads the same pictures from files."""

import functools
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.config import build, compose
from petseg_lightning.data import shards as shards_module
from petseg_lightning.data.copy_paste import CopyPaste
from petseg_lightning.data.folder import FolderDataModule
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.samples import MaskCode
from petseg_lightning.data.shard_batches import ShardBatches, _mixed
from petseg_lightning.data.shards import Shard
from petseg_lightning.data.stream import StreamDataModule
from petseg_lightning.errors import InputError
from petseg_lightning.sharding import write_shards
from petseg_lightning.training import train

OPTIONS = {"image_size": 24, "batch_size": 3, "num_workers": 0, "cache": "memory"}


@pytest.fixture
def shards(tiny_pets, tmp_path):
    """(pictures per breed, per shard) -> the folder of shards of tiny pets."""

    def write(trainval: int = 5, test: int = 2, size: int = 4) -> Path:
        out = tmp_path / "shards"
        root = tiny_pets(trainval, test)
        return write_shards(compose("shard", [f"data.root={root}", f"out={out}", f"shard_size={size}"]))

    return write


def stream(root: Path | str, rank: int = 0, world_size: int = 1, **options) -> StreamDataModule:
    datamodule = StreamDataModule(root, **{**OPTIONS, **options})
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    parts = {"global_rank": rank, "world_size": world_size, "strategy": strategy, "training": False}
    datamodule.trainer = SimpleNamespace(**parts)  # type: ignore[assignment]
    return datamodule


def files(root: Path, **options) -> OxfordPetDataModule:
    return OxfordPetDataModule(root.parent / "pets", **{**OPTIONS, **options})


def epochs(loader, number: int = 2) -> list[list[dict]]:
    batches = []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        batches.append([{key: value.clone() for key, value in batch.items()} for batch in loader])
    return batches


def indices(batches: list[dict]) -> list[int]:
    return [index for batch in batches for index in batch["index"].tolist()]


def strong() -> list:
    return build(compose("train", ["augmentation=strong", "data.image_size=24"]).augmentation.transforms)


def assert_equal(one: list[dict], other: list[dict]) -> None:
    for batch, same in zip(one, other, strict=True):
        assert batch.keys() == same.keys()
        assert all(torch.equal(batch[key], same[key]) for key in batch)


@pytest.mark.parametrize(("size", "batch_size"), [(4, 3), (4, 5), (1, 2), (100, 4), (7, 50)])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_an_epoch_is_every_picture_once_as_it_is_in_the_files(shards, size, batch_size, world_size):
    root = shards(size=size)
    source = files(root).pictures("train")
    seen: list[int] = []
    lengths = set()
    for rank in range(world_size):
        loader = stream(root, rank, world_size, batch_size=batch_size).train_dataloader()
        ((*batches,),) = epochs(loader, 1)
        assert len(batches) == len(loader)
        lengths.add((len(loader), *(len(batch["index"]) for batch in batches)))
        seen += indices(batches)
        for batch in batches:
            assert batch["image"].is_contiguous(memory_format=torch.channels_last)
            for image, parts, index in zip(batch["image"], batch["parts"], batch["index"], strict=True):
                np.testing.assert_array_equal(image.permute(1, 2, 0), source[int(index)][0])
                np.testing.assert_array_equal(parts, source[int(index)][1])
    assert len(lengths) == 1  # every rank takes as many steps, of the same sizes
    assert set(seen) == set(range(18))
    assert len(seen) == -(-18 // world_size) * world_size


def test_with_more_ranks_than_pictures_each_has_one(shards):
    root = shards()
    seen = [indices(epochs(stream(root, rank, 40).train_dataloader(), 1)[0]) for rank in range(40)]
    assert [len(share) for share in seen] == [1] * 40
    assert seen[:18] + seen[:18] + seen[:4] == seen
    assert sorted(index for share in seen[:18] for index in share) == list(range(18))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("rank", [0, 1])
def test_the_number_of_workers_changes_nothing_and_workers_follow_the_epochs(shards, rank):
    root = shards()
    runs = [
        epochs(
            stream(root, rank, 2, batch_size=2, num_workers=workers, transforms=strong(), seed=3).train_dataloader(), 3
        )
        for workers in (0, 1, 2, 3)
    ]
    for run in runs[1:]:
        for epoch, same in zip(runs[0], run, strict=True):
            assert_equal(epoch, same)
    orders = [indices(epoch) for epoch in runs[0]]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(("size", "shuffle_buffer"), [(1, 1), (100, 2000)], ids=["shards", "pictures of a shard"])
def test_the_order_follows_seed_and_epoch(shards, size, shuffle_buffer):
    root = shards(size=size)
    orders = []
    for seed in (0, 0, 1):
        loader = stream(root, seed=seed, shuffle_buffer=shuffle_buffer, batch_size=1).train_dataloader()
        orders.append([tuple(indices(epoch)) for epoch in epochs(loader)])
    assert orders[0] == orders[1]
    assert len({*orders[0], *orders[2]}) == 4


def test_mixing_is_of_neighbours_and_of_shards(shards):
    root = shards(size=6)

    def lanes(**options) -> list[list[int]]:
        """What each of the three lanes, here of a shard each, gives in its two batches."""
        batches = epochs(stream(root, **options).train_dataloader(), 1)[0]
        return [indices(batches[lane::3]) for lane in range(3)]

    written = indices(list(stream(root, batch_size=18).evaluation_dataloader("train")))
    runs = sorted(written[i : i + 6] for i in (0, 6, 12))
    assert sorted(lanes(shuffle_buffer=1)) == runs
    mixed = lanes()
    assert sorted(map(sorted, mixed)) == sorted(map(sorted, runs))
    assert not any(run in mixed for run in runs)


def test_the_buffer_holds_no_more_than_its_size():
    read = []

    def source() -> Iterator:
        for number in range(1000):
            read.append(number)
            yield number, None

    mixed = _mixed(source(), 20, np.random.default_rng(0))  # type: ignore[arg-type]
    first = [next(mixed)[0] for _ in range(50)]
    assert len(read) == 69
    assert sorted([*first, *(number for number, _ in mixed)]) == list(range(1000))
    assert first != sorted(first)
    assert [n for n, _ in _mixed(iter([(i, None) for i in range(9)]), 1, np.random.default_rng(0))] == list(range(9))  # type: ignore[arg-type,misc]


def test_augmentation_is_that_of_the_files(shards):
    root = shards()
    expected = {}
    source = files(root, transforms=strong(), seed=5)
    for epoch, batches in enumerate(epochs(source.train_dataloader())):
        for batch in batches:
            for image, parts, index in zip(batch["image"], batch["parts"], batch["index"].tolist(), strict=True):
                expected[epoch, index] = image, parts
    for epoch, batches in enumerate(epochs(stream(root, transforms=strong(), seed=5).train_dataloader())):
        for batch in batches:
            for image, parts, index in zip(batch["image"], batch["parts"], batch["index"].tolist(), strict=True):
                assert torch.equal(image, expected[epoch, index][0])
                assert torch.equal(parts, expected[epoch, index][1])


def test_augmentation_on_the_device_is_that_of_the_files(shards):
    root = shards()

    def augmented(datamodule) -> dict[tuple[int, int], torch.Tensor]:
        found = {}
        for epoch, batches in enumerate(epochs(datamodule.train_dataloader())):
            for batch in batches:
                batch = datamodule.on_after_batch_transfer(batch, 0)
                for i, index in enumerate(batch["index"].tolist()):
                    found[epoch, index] = torch.cat([batch["image"][i], batch["parts"][i][None]])
        return found

    options = {"device_augment": True, "transforms": strong(), "seed": 5}
    source = files(root, **options)
    mine, theirs = augmented(stream(root, **options)), augmented(source)
    assert mine.keys() == theirs.keys()
    for key in mine:
        difference = (mine[key].int() - theirs[key].int()).abs()
        assert (difference > 1).float().mean() < 0.01  # sums of a batch in another order, rounded
    assert not torch.equal(mine[0, 0], mine[1, 0])


@pytest.mark.parametrize("world_size", [1, 2, 4, 25])
def test_evaluation_of_the_training_pictures_counts_each_once(shards, world_size):
    root = shards()
    source = files(root)
    samples, transforms = source.splits["train"], strong()
    seen: list[int] = []
    steps = set()
    for rank in range(world_size):
        datamodule = stream(root, rank, world_size, transforms=transforms)
        batches = list(datamodule.evaluation_dataloader("train", with_original_parts=True))
        steps.add(len(batches))
        seen += indices(batches)
        for batch in batches:
            for i, index in enumerate(batch["index"].tolist()):
                if index == -1:
                    assert not batch["image"][i].any()
                    assert (batch["parts"][i] == 255).all()
                else:
                    np.testing.assert_array_equal(
                        batch["image"][i].permute(1, 2, 0), source.pictures("train")[index][0]
                    )
                    trimap = np.asarray(Image.open(samples[index].mask))
                    assert batch["original_parts"][i].shape == trimap.shape
                    np.testing.assert_array_equal(batch["original_parts"][i] == 0, trimap == 2)
    assert len(steps) == 1
    assert sorted(seen) == [-1] * (-18 % world_size) + list(range(18))


def test_batches_can_be_asked_for_in_any_order(shards):
    root = shards()
    dataset = stream(root, batch_size=2, transforms=strong()).train_dataloader().dataset
    (straight, second) = ([dataset[epoch, n] for n in range(len(dataset))] for epoch in (0, 1))
    for epoch, n in ((0, 5), (0, 2), (1, 8), (0, 0), (0, 2), (0, 1), (1, 5)):
        assert_equal([dataset[epoch, n]], [(straight, second)[epoch][n]])
    assert_equal([dataset[3]], [straight[3]])
    with pytest.raises(IndexError):
        dataset[0, len(dataset)]


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_val_and_test_are_unpacked_once_and_are_those_of_the_files(shards, cache, caplog):
    root = shards()
    datamodule, source = stream(root, cache=cache), files(root)
    caplog.set_level("INFO")
    datamodule.prepare_data()
    assert "Unpacking 2 val pictures" in caplog.text
    datamodule.setup("fit")
    assert datamodule.counts == source.counts
    for split in ("val", "test"):
        for i, (mine, theirs) in enumerate(zip(datamodule.splits[split], source.splits[split], strict=True)):
            assert (mine.name, mine.breed, mine.species) == (theirs.name, theirs.breed, theirs.species)
            assert mine.image.read_bytes() == theirs.image.read_bytes()
            for one, other in zip(datamodule.pictures(split)[i], source.pictures(split)[i], strict=True):
                np.testing.assert_array_equal(one, other)
        assert_equal(list(datamodule.evaluation_dataloader(split)), list(source.evaluation_dataloader(split)))
    assert not list(root.rglob("train"))
    caplog.clear()
    stream(root, cache=cache).prepare_data()
    assert "Unpacking" not in caplog.text
    assert [sample.name for sample in datamodule.splits["train"]] == [s.name for s in source.splits["train"]]


def test_what_a_run_records(shards):
    root = shards()
    datamodule = stream(root)
    described = datamodule.description()
    assert described == {
        "source": "StreamDataModule",
        "root": str(root),
        "counts": {"train": 18, "val": 2, "test": 8},
        "breeds": 4,
        "fingerprint": described["fingerprint"],
    }
    assert not (root / ".petseg_cache").exists()  # nothing is unpacked for it
    index = json.loads((root / "index.json").read_text())
    index["source"]["fingerprint"] = "other"
    (root / "index.json").write_text(json.dumps(index))
    assert stream(root).description()["fingerprint"] != described["fingerprint"]


def test_class_weights_are_about_those_of_the_resized_files(shards):
    root = shards()
    for target, border in (("trimap", None), ("species", "ignore")):
        options = {"target": target, "border": border}
        weights = stream(root, **options).class_weights()
        np.testing.assert_allclose(weights, files(root, image_size=64, **options).class_weights(), rtol=0.05)
    index = json.loads((root / "index.json").read_text())
    index["part_shares"] = [0.5, 0.25, 0, 0, 0]
    (root / "index.json").write_text(json.dumps(index))
    assert stream(root, target="species").class_weights() == [0.75, 1.5, 0.0]


def test_the_classes_of_other_data_are_its_own(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        for folder, array in (
            ("images", rng.integers(256, size=(20, 30, 3), dtype=np.uint8)),
            ("masks", rng.choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))),
        ):
            path = tmp_path / "own" / folder / "deep.er" / f"a.{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    names = ["sky", "cat", "sofa"]
    write_shards(
        compose("shard", ["data=folder", f"data.root={tmp_path}/own", f"data.class_names={names}", f"out={tmp_path}/s"])
    )
    datamodule, source = stream(tmp_path / "s"), FolderDataModule(tmp_path / "own", names, **OPTIONS)
    assert datamodule.target == source.target
    for split in ("train", "val", "test"):
        assert [s.name for s in datamodule.splits[split]] == [s.name for s in source.splits[split]]
    for batch in datamodule.train_dataloader():
        for parts, index in zip(batch["parts"], batch["index"].tolist(), strict=True):
            np.testing.assert_array_equal(parts, source.pictures("train")[index][1])


def test_ten_million_pictures_cost_no_more_than_a_list_of_shards():
    code = MaskCode((0,), (0,))
    batches = ShardBatches(
        [Shard(f"{i}.tar", 1000) for i in range(10_000)], code, 24, 16, shuffle_buffer=100, rank=3, world_size=8
    )
    assert len(batches) == 10_000_000 // 8 // 16
    assert (batches.first, batches.end) == (3_750_000, 5_000_000)
    with pytest.raises(InputError, match=r"tar: cannot be read as a shard"):
        batches[0, 70_000]


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture
def served(tmp_path):
    """The http URL of tmp_path."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None: ...

    with _Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_shards_can_lie_at_a_url(shards, served, tmp_path):
    root = shards()
    local = stream(root)
    remote = stream(f"{served}/shards/", cache_dir=str(tmp_path / "cache"))
    remote.prepare_data()
    assert remote.description()["root"] == f"{served}/shards"
    assert [s.name for s in remote.splits["test"]] == [s.name for s in local.splits["test"]]
    for epoch, same in zip(epochs(remote.train_dataloader()), epochs(local.train_dataloader()), strict=True):
        assert_equal(epoch, same)
    (root / "train-000001.tar").unlink()
    with pytest.raises(
        InputError, match=rf"^{served}/shards/train-000001.tar: cannot be read as a shard \(HTTP Error 404"
    ):
        list(stream(f"{served}/shards").train_dataloader())
    with pytest.raises(InputError, match=rf"^{served}/nothing/index.json: cannot be read"):
        stream(f"{served}/nothing")


def test_a_folder_without_an_index_or_with_another_one(shards, tmp_path):
    with pytest.raises(InputError, match=r"nothing/index.json: cannot be read .*data.root=<folder>, or write one with"):
        stream(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"s3://bucket/shards/index.json: Install s3fs"):
        stream("s3://bucket/shards")
    root = shards()
    path = root / "index.json"
    whole = json.loads(path.read_text())
    for content in ("[]", "{}", '{"generator": "other"}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"index.json is not of petseg shard; write shards with petseg shard"):
            stream(root)
    path.write_text("{")
    with pytest.raises(InputError, match=r"index.json is not valid JSON"):
        stream(root)
    path.write_text(json.dumps({**whole, "format": 99}))
    with pytest.raises(InputError, match=r"is of format 99 and this version reads format 1; write the shards again"):
        stream(root)


@pytest.mark.parametrize(
    "root",
    [
        "pipe:touch executed; echo ://",
        "pipe:touch executed",
        "http://host/$(touch executed)",
        "http://host/'; touch executed '",
        "file:///etc",
        "htgs:shards",
        "ftp://host/shards",
    ],
)
def test_a_root_is_a_folder_or_an_address_and_never_a_program(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"must be a folder, or an http, https, gs or s3 address"):
        stream(root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda index: index["splits"]["val"]["shards"][0].update(name="pipe:touch executed"), "splits.val.shards"),
        (lambda index: index["splits"]["val"]["shards"][0].update(name="../val.tar"), "splits.val.shards"),
        (lambda index: index["splits"]["val"]["shards"][0].update(name="/etc/x.tar"), "splits.val.shards"),
        (lambda index: index["splits"]["val"]["shards"][0].update(count=-1), "splits.val.shards"),
        (lambda index: index["splits"]["train"].update(count=10**11), "splits.train.count"),
        (lambda index: index["splits"].pop("test"), "splits.test"),
        (lambda index: index.update(part_names="background"), "part_names"),
        (lambda index: index.update(part_shares=None), "part_shares"),
        (lambda index: index.update(source=[]), "source"),
    ],
)
def test_a_damaged_index_is_one_line(shards, tmp_path, monkeypatch, change, named):
    root = shards()
    monkeypatch.chdir(tmp_path)
    index = json.loads((root / "index.json").read_text())
    change(index)
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=rf"index.json is damaged \({named}"):
        stream(root)
    assert not (tmp_path / "executed").exists()


def test_a_missing_or_shortened_shard_is_found_before_the_training(shards):
    root = shards()
    shard = root / "train-000002.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000])
    with pytest.raises(InputError, match=rf"{shard} has 5,000 bytes, not the {len(whole):,} of index.json; copy it"):
        stream(root).prepare_data()
    with pytest.raises(InputError, match=rf"^{shard}: cannot be read as a shard"):
        list(stream(root).train_dataloader())
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard} is missing; copy it again"):
        stream(root).prepare_data()


def test_a_shard_of_another_index_is_found(shards):
    root = shards()
    shutil.copy(root / "train-000004.tar", root / "train-000000.tar")
    with pytest.raises(InputError, match=r"train-000000.tar: holds 2 pictures, but its index.json says 4; copy both"):
        list(stream(root).evaluation_dataloader("train"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_by_shard_and_member(shards, workers):
    root = shards()
    shard = root / "train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 20 : 512 + 400] = bytes(380)  # in the first picture, behind its header of 512 bytes
    shard.write_bytes(content)
    with pytest.raises(InputError, match=rf"{shard}/\d{{8}}_\w+\.jpg: cannot be read as a picture"):
        list(stream(root, num_workers=workers).train_dataloader())


def test_a_name_that_leaves_the_folder_is_refused(shards, tmp_path):
    root = shards()
    shard = root / "val-000000.tar"
    content = shard.read_bytes()
    name = re.search(rb'"name": "(\w+)"', content)[1].decode()  # type: ignore[index]
    shard.write_bytes(
        content.replace(f'"{name}"'.encode(), f'"{"../" * (len(name) // 3) + "x" * (len(name) % 3)}"'.encode())
    )
    with pytest.raises(InputError, match=r"val-000000.tar/.*its name \.\./.* leaves the folder"):
        stream(root).prepare_data()


def test_webdataset_is_asked_for_where_it_is_missing(shards, monkeypatch):
    root = shards(trainval=2, test=1)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(InputError, match=r"data=stream needs webdataset: pip install 'petseg-lightning\[stream\]'"):
        stream(root)


def test_a_training_from_shards(shards, tmp_path):
    root = shards()
    settings = [
        "data=stream",
        f"data.root={root}",
        "data.image_size=32",
        "data.batch_size=4",
        "data.num_workers=2",
        "augmentation=light",
        "model.base_channels=4",
        "loss.class_weights=measured",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "~callbacks.progress_bar",
        "~callbacks.model_summary",
    ]
    metrics = train(compose("train", settings, output_dir=tmp_path / "run"))
    assert {split: result["num_images"] for split, result in metrics["splits"].items()} == {
        "test": 8,
        "train": 18,
        "val": 2,
    }
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert not list(root.rglob("train"))


def test_the_first_batch_does_not_wait_for_a_whole_shard(shards, monkeypatch):
    read = []
    entry = shards_module._entry
    monkeypatch.setattr(shards_module, "_entry", lambda *arguments: read.append(1) or entry(*arguments))
    next(iter(stream(shards(size=18), shuffle_buffer=4).train_dataloader()))
    assert len(read) == 6  # a buffer of four, and two more for a batch of three


@pytest.mark.parametrize("options", [{"num_folds": 3}, {"train_fraction": 0.5}])
def test_shards_keep_the_splits_that_they_were_written_with(shards, options):
    with pytest.raises(InputError, match=r"shards keep the splits that they were written with; give both to petseg"):
        stream(shards(), **options)


def test_nothing_is_pasted_onto_streamed_pictures(shards):
    with pytest.raises(InputError, match=r"^augmentation\.copy_paste looks up other training pictures, .*: set augme"):
        stream(shards(), transforms=[CopyPaste((0.5, 1.0), 0.5)])
