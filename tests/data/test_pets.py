import io
import logging
import multiprocessing
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torchvision.datasets
from torchvision.datasets import OxfordIIITPet

from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.presence import ARCHIVE
from petseg_lightning.data.samples import read_parts
from petseg_lightning.errors import InputError

HEADER = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\n#BREED ID: 1-25:Cat 1:12:Dog\n"


@pytest.fixture
def network(monkeypatch):
    """(error, while downloading) -> the addresses that were asked; torchvision's class is replaced."""

    def install(error=None, download_error=None):
        asked = []

        class Archive:
            _RESOURCES = torchvision.datasets.OxfordIIITPet._RESOURCES

            def __init__(self, root, download):
                assert download
                annotations = root / "oxford-iiit-pet" / "annotations"
                assert not annotations.exists()
                annotations.mkdir(parents=True)
                if download_error:
                    raise download_error
                (annotations / "whole").touch()

        def urlopen(address, timeout):
            asked.append(address)
            assert timeout <= 5
            if error:
                raise error
            return io.BytesIO()

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", Archive)
        return asked

    return install


def pet_list(root, split, text=None):
    path = root / "oxford-iiit-pet" / "annotations" / f"{split}.txt"
    if text is not None:
        path.write_text(text)
    return path


def test_official_lists(tiny_pets):
    root = tiny_pets()
    text = pet_list(root, "trainval").read_text()
    pet_list(root, "trainval", f"{HEADER}\n{text}\n")
    (root / "oxford-iiit-pet" / "images" / "._beagle_0.jpg").touch()
    samples = {sample.name: sample for sample in OxfordPetDataModule(root).read_splits()["trainval"]}
    assert list(samples) == [line.split()[0] for line in text.splitlines()]
    species = {"Abyssinian": "cat", "Maine_Coon": "cat", "beagle": "dog", "american_bulldog": "dog"}
    assert {sample.breed: sample.species for sample in samples.values()} == species
    bulldog = samples["american_bulldog_3"]
    assert bulldog.image == root / "oxford-iiit-pet" / "images" / "american_bulldog_3.jpg"
    assert bulldog.mask == root / "oxford-iiit-pet" / "annotations" / "trimaps" / "american_bulldog_3.png"
    assert set(np.unique(read_parts(bulldog))) == {0, 3, 4}
    assert set(np.unique(read_parts(samples["Maine_Coon_0"]))) == {0, 1, 2}


@pytest.mark.parametrize("line", ["beagle_0 3 2", "beagle_0 3 3 1", "beagle_0", "beagle_0 3 dog 1", "a beagle 3 2 1"])
def test_an_unreadable_line_of_a_list_is_named(tiny_pets, line):
    root = tiny_pets()
    path = pet_list(root, "test", f"{HEADER}beagle_5 3 2 3\n{line}\n")
    with pytest.raises(InputError) as error:
        OxfordPetDataModule(root).read_splits()
    assert str(error.value).startswith(f"{path}:6: '{line}' is not 'name class-id species breed-id'")
    assert str(error.value).endswith("correct the line")


def test_a_name_of_two_species_is_refused(tiny_pets):
    root = tiny_pets()
    path = pet_list(root, "test", "beagle_5 3 2 3\nbeagle_5 3 2 3\nbeagle_0 3 1 3\n")
    with pytest.raises(InputError) as error:
        OxfordPetDataModule(root).read_splits()
    assert str(error.value) == (
        f"{path}:3: beagle_0 is a cat here and a dog in an earlier line; correct one of the two"
    )


def test_a_list_that_is_no_text_gives_a_line(tiny_pets):
    root = tiny_pets()
    pet_list(root, "test").write_bytes(b"\xff\xfe beagle\n")
    with pytest.raises(InputError, match=r"test\.txt:1: "):
        OxfordPetDataModule(root).read_splits()


def test_a_missing_list_is_named(tiny_pets):
    root = tiny_pets()
    pet_list(root, "test").unlink()
    with pytest.raises(InputError, match=r"test\.txt is missing: \S+ is not a whole Oxford-IIIT Pet; extract both"):
        OxfordPetDataModule(root).read_splits()


def test_a_part_of_the_data_is_used_and_counted(tiny_pets, caplog, monkeypatch):
    datamodule = OxfordPetDataModule(tiny_pets(trainval=5, test=2))
    with caplog.at_level(logging.INFO):
        datamodule.read_splits()
    assert "20 of the 3,680 trainval pictures" in caplog.text
    assert "8 of the 3,669 test pictures" in caplog.text
    caplog.clear()
    path = pet_list(datamodule.root, "trainval")
    path.write_text(path.read_text() * 200)
    with caplog.at_level(logging.INFO):
        datamodule.read_splits()
    assert "20 of the 3,680 trainval pictures" in caplog.text
    caplog.clear()
    monkeypatch.setattr(OxfordPetDataModule, "complete_counts", {"trainval": 20, "test": 8})
    with caplog.at_level(logging.INFO):
        datamodule.read_splits()
    assert caplog.text == ""


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), TimeoutError("timed out")])
def test_without_data_and_network_both_ways_on_are_named(tmp_path, network, error):
    asked = network(error)
    with pytest.raises(InputError) as raised:
        OxfordPetDataModule(tmp_path).prepare_data()
    message = str(raised.value)
    assert len(asked) == 1
    assert f"no Oxford-IIIT Pet in {tmp_path / 'oxford-iiit-pet'}, and it cannot be downloaded" in message
    assert str(error) in message
    assert "data.root=<folder>" in message
    assert "data=synthetic" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_can_be_forbidden(tmp_path, network):
    asked = network()
    with pytest.raises(InputError, match=r"and data\.download=false; give the folder .* or draw pets with data=synth"):
        OxfordPetDataModule(tmp_path, download=False).prepare_data()
    assert asked == []


def test_a_folder_that_exists_is_never_downloaded(tiny_pets, network):
    asked = network()
    OxfordPetDataModule(tiny_pets()).prepare_data()
    assert asked == []


@pytest.mark.parametrize("failure", [RuntimeError("File not found or corrupted."), OSError("disk full")])
def test_a_download_appears_whole_or_not_at_all(tmp_path, network, failure):
    network(download_error=failure)
    datamodule = OxfordPetDataModule(tmp_path / "data")
    with pytest.raises(InputError, match=f"cannot be downloaded \\({failure}\\)"):
        datamodule.prepare_data()
    assert not (tmp_path / "data" / "oxford-iiit-pet").exists()
    asked = network()  # it goes on where the first one was cut off
    datamodule.prepare_data()
    assert asked == [torchvision.datasets.OxfordIIITPet._RESOURCES[0][0]]
    assert (tmp_path / "data" / "oxford-iiit-pet" / "annotations" / "whole").exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["oxford-iiit-pet"]


def growth(once, often) -> tuple[dict[str, int], float]:
    """The pictures of `often`, and by how many MiB reading them lifts the peak of this process above `once`."""

    def peak() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    once.description()
    before = peak()
    often.description()
    return often.counts, peak() - before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_list_of_a_million_takes_little_memory(tiny_pets, tmp_path):
    once, often = tiny_pets(), tiny_pets(root=tmp_path / "often")
    path = pet_list(often, "trainval")
    path.write_text(path.read_text() * 50_000)
    with multiprocessing.get_context("fork").Pool(1) as pool:  # a process with a peak of its own
        counts, mebibytes = pool.apply(growth, [OxfordPetDataModule(root, val_fraction=0.2) for root in (once, often)])
    assert counts == {"train": 800_000, "val": 4, "test": 8}
    assert mebibytes < 100


def test_the_real_pets(pets_root):
    """Counts of the lists, and parts against another decoder; shares as counted over the subset of 2,214."""
    datamodule = OxfordPetDataModule(pets_root, image_size=128, cache="none")
    found = {split: len(samples) for split, samples in datamodule.read_splits().items()}
    assert found in ({"trainval": 3680, "test": 3295}, {"trainval": 3680, "test": 3669})
    assert sum(datamodule.counts.values()) == sum(found.values())
    assert len({sample.breed for sample in datamodule.splits["val"]}) == 37
    assert datamodule.description()["breeds"] == 37

    species_of = {
        line.split()[0]: int(line.split()[2]) for line in pet_list(pets_root, "test").read_text().splitlines()
    }
    counts, resized = np.zeros(5, int), np.zeros(5, int)
    for i, sample in list(enumerate(datamodule.splits["test"]))[::32]:
        trimap = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        expected = np.zeros(5, int)
        values = Counter(trimap.ravel().tolist())
        dog = 2 * (species_of[sample.name] == 2)
        expected[0], expected[1 + dog], expected[2 + dog] = values[2], values[1], values[3]
        parts = np.bincount(read_parts(sample).ravel(), minlength=5)
        np.testing.assert_array_equal(parts, expected)
        counts += parts
        resized += np.bincount(datamodule.pictures("test")[i][1].ravel(), minlength=5)
    shares = counts / counts.sum()
    np.testing.assert_allclose(resized / resized.sum(), shares, atol=0.02)
    background, pet, border = shares[0], shares[1] + shares[3], shares[2] + shares[4]
    np.testing.assert_allclose((background, pet, border), (0.575, 0.304, 0.121), atol=0.03)


def test_the_address_that_is_tried_is_the_one_that_is_downloaded_from():
    assert OxfordIIITPet._RESOURCES[0][0] == ARCHIVE
