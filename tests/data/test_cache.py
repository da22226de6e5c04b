import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from petseg_lightning.config import build, compose
from petseg_lightning.data import cache as cache_module
from petseg_lightning.data import disk_cache
from petseg_lightning.data.cache import MemoryArrays, Pictures
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.samples import read_resized
from petseg_lightning.errors import InputError


@pytest.fixture
def samples(tiny_pets):
    return OxfordPetDataModule(tiny_pets()).splits["train"]


def test_kept_pictures_are_those_that_are_decoded_at_every_access(samples):
    kept = Pictures(samples, 24, MemoryArrays(samples, 24), np.arange(len(samples)))
    fresh = Pictures(samples, 24)
    assert len(kept) == len(fresh) == len(samples)
    for i in range(len(samples)):
        for one, other, shape in zip(kept[i], fresh[i], ((24, 24, 3), (24, 24)), strict=True):
            assert one.dtype == other.dtype == np.uint8
            assert one.shape == shape
            np.testing.assert_array_equal(one, other)


def test_kept_pictures_need_no_files(samples):
    arrays = MemoryArrays(samples, 24)
    for sample in samples:
        sample.image.unlink()
        sample.mask.unlink()
    assert arrays.images[0].any()


def test_the_first_bad_file_is_named_at_once_or_when_it_is_met(samples):
    for i in (3, 7):
        samples[i].image.write_bytes(b"")
    with pytest.raises(InputError, match=str(samples[3].image)):
        MemoryArrays(samples, 24)
    pictures = Pictures(samples, 24)
    assert pictures[2]
    with pytest.raises(InputError, match=str(samples[7].image)):
        pictures[7]


CACHES = ("disk", "memory", "none")


def batches(datamodule) -> list[dict]:
    """Those of two epochs of training, and of the evaluation of every split."""
    datamodule.setup("fit")
    loader, found = datamodule.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        found += [{key: value.clone() for key, value in batch.items()} for batch in loader]
    for split in datamodule.counts:
        found += datamodule.evaluation_dataloader(split)
    return found


def repeat(root) -> None:
    """List pictures of trainval up to 3 times more, in an order of their own."""
    path = root / "oxford-iiit-pet/annotations/trainval.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::-1] + lines[3::2] + lines[:9] + lines[:5]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("augmented", [False, True])
def test_the_batches_do_not_depend_on_the_cache(tiny_pets, repeated, augmented):
    root = tiny_pets()
    if repeated:
        repeat(root)
    transforms = build(compose("train", ["augmentation=strong", "data.image_size=24"]).augmentation.transforms)
    options = {"image_size": 24, "batch_size": 3, "num_workers": 0, "seed": 3, "val_fraction": 0.4}
    if augmented:
        options["transforms"] = transforms
    disk, again, memory, none = (
        batches(OxfordPetDataModule(root, cache=cache, **options)) for cache in ("disk", *CACHES)
    )
    assert len(none) > 10
    for group in zip(disk, again, memory, none, strict=True):
        for key, value in group[-1].items():
            assert all(torch.equal(batch[key], value) for batch in group)


@pytest.mark.parametrize(("cache", "times"), [("disk", (1, 0)), ("memory", (1, 1)), ("none", (0, 0))])
def test_a_picture_is_decoded_once_however_often_it_is_listed(tiny_pets, monkeypatch, cache, times):
    root, decoded = tiny_pets(), []
    repeat(root)

    def read(sample, size):
        decoded.append(sample.name)
        return read_resized(sample, size)

    for module in (cache_module, disk_cache):
        monkeypatch.setattr(module, "read_resized", read)
    for expected in times:
        decoded.clear()
        datamodule = OxfordPetDataModule(root, image_size=24, cache=cache)
        datamodule.setup("fit")
        datamodule.setup("fit")
        assert Counter(Counter(decoded).values()) == ({expected: 28} if expected else {})


def test_what_workers_get_of_a_disk_cache_is_small(tiny_pets):
    datamodule = OxfordPetDataModule(tiny_pets(), image_size=128, num_workers=0)
    pictures = datamodule.pictures("train")
    assert datamodule.pictures("test").arrays is pictures.arrays
    sent = pickle.dumps(pictures)
    assert len(sent) < 2**18 < pictures.arrays.parts.nbytes  # of which 2**16 are the table of each mask code
    for one, other in zip(pickle.loads(sent)[5], pictures[5], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_cache_lies_beside_the_data_or_where_it_is_told(tiny_pets, tmp_path):
    root, elsewhere = tiny_pets(), tmp_path / "elsewhere"
    for cache in ("memory", "none"):
        OxfordPetDataModule(root, image_size=24, cache=cache).setup("fit")
    OxfordPetDataModule(root, image_size=24, cache="disk", cache_dir=str(elsewhere)).setup("fit")
    assert [path.name for path in root.iterdir()] == ["oxford-iiit-pet"]
    assert list(elsewhere.glob("24px-*/images.npy"))
    OxfordPetDataModule(root, image_size=24, cache="disk").setup("fit")
    assert list(root.glob(".petseg_cache/24px-*/images.npy"))
