"""Pets that are pasted, on pictures whose colours say which picture and which part a pixel is of."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.data.copy_paste import CopyPaste
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.folder import FolderDataModule
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import Augmentation
from petseg_lightning.errors import InputError

SIZE = 48


def drawn(number: int, pet: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `number` of a pet of part `pet` with its border, pet + 1, no two alike; a corner is ignored."""
    parts = np.zeros((SIZE, SIZE), np.uint8)
    parts[6:26, 10 : 30 + number] = pet + 1
    parts[8:24, 12 : 28 + number] = pet
    parts[8:12, 12:15] = 0  # so that it is no mirror image of itself
    parts[44:, :4] = IGNORE
    return coloured(number, parts), parts


def coloured(number: int, parts: np.ndarray) -> np.ndarray:
    return np.stack([np.full_like(parts, 40 * number), 50 * np.minimum(parts, 5), 255 - parts], -1)


PICTURES = [drawn(number, pet) for number, pet in enumerate((1, 3, 1, 3, 3))]


def pasted(index: int, draw: int, scale=(1.0, 1.0), pictures=PICTURES, seed: int = 0):
    augment = Augmentation([CopyPaste(scale, p=1.0)], seed)
    return augment(*pictures[index], draw, index, pictures)


def box(shape: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(shape.any(axis)) for axis in (1, 0))
    return shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("index", [0, 3])
def test_a_whole_pet_with_its_border_comes_from_another_picture_and_nothing_else_changes(index):
    donors, flips, places = Counter(), Counter(), set()
    for draw in range(120):
        image, parts = pasted(index, draw)
        changed = image[..., 0] != 40 * index  # red says of which picture a pixel is
        (donor,) = set((image[..., 0][changed] // 40).tolist())
        np.testing.assert_array_equal(image[~changed], PICTURES[index][0][~changed])
        np.testing.assert_array_equal(parts[~changed], PICTURES[index][1][~changed])
        np.testing.assert_array_equal(image[changed], coloured(donor, parts)[changed])
        pet = PICTURES[donor][1]
        found, whole = box(np.where(changed, parts, 0)), box(np.where(pet == IGNORE, 0, pet))
        flip = np.array_equal(found, whole[:, ::-1])
        assert flip or np.array_equal(found, whole)
        donors[donor] += 1
        flips[flip] += 1
        places.add((*np.argwhere(changed)[0],))
    assert set(donors) == set(range(5)) - {index}
    assert min(donors.values()) > 12
    assert min(flips.values()) > 35
    assert len(places) > 90


@pytest.mark.parametrize(("scale", "least", "most"), [((0.5, 0.5), 0.5, 0.5), ((0.4, 1.5), 0.4, 1.5)])
def test_a_scaled_pet_keeps_its_colours_and_is_inside_where_it_fits(scale, least, most):
    sizes = []
    for draw in range(60):
        image, parts = pasted(0, draw, scale)
        changed = image[..., 0] > 20
        donor = round(np.median(image[..., 0][changed]) / 40)
        agree = (np.abs(image.astype(int) - coloured(donor, parts)).max(-1) < 20)[changed]
        assert agree.mean() > 0.7  # but for edges, where colours are between those of the parts
        sizes.append(np.sqrt(changed.sum() / ((PICTURES[donor][1] > 0) & (PICTURES[donor][1] < 5)).sum()))
    assert least - 0.07 < min(sizes) < least + 0.15
    assert most - 0.25 < max(sizes) < most + 0.07


def test_a_pet_larger_than_the_picture_fills_it():
    assert all((pasted(0, draw, (6.0, 6.0))[1] > 0).mean() > 0.75 for draw in range(20))


def test_a_picture_without_a_pet_gives_nothing():
    empty = np.full((SIZE, SIZE, 3), 255, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    empty[1][:5] = IGNORE
    image, parts = pasted(0, 0, pictures=[PICTURES[0], empty])
    np.testing.assert_array_equal(image, PICTURES[0][0])
    np.testing.assert_array_equal(parts, PICTURES[0][1])


# ---- in a training


def folder(root, names=("background", "pet"), **options) -> FolderDataModule:
    pasting = {"transforms": [CopyPaste((1.0, 1.0), 0.6)], "image_size": 24, "batch_size": 3, "num_workers": 0}
    return FolderDataModule(root, names, **{**pasting, **options})


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    """Twenty pictures, in whose pets every grey is that of their number, on black."""
    root = tmp_path_factory.mktemp("greys")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for number in range(20):
        mask = np.zeros((24, 24), np.uint8)
        mask[4:16, 3:14] = 1
        Image.fromarray(np.stack([mask * (10 * number + 50)] * 3, -1)).save(root / f"images/{number}.png")
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    return root


def numbers(datamodule: SegmentationDataModule, split: str) -> set[int]:
    return {int(sample.name) for sample in datamodule.splits[split]}


def seen(loader) -> list[set[int]]:
    """The numbers of the pets in each picture."""
    found = []
    for batch in loader:
        for image, parts in zip(batch["image"].numpy(), batch["parts"].numpy(), strict=True):
            greys = Counter(image[0][parts == 1].tolist())
            found.append({(grey - 50) // 10 for grey, times in greys.items() if times > 8 and (grey - 50) % 10 == 0})
    return found


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("options", [{}, {"train_fraction": 0.3}, {"num_folds": 3, "fold": 1}])
def test_only_training_pictures_are_pasted_and_only_onto_training_pictures(greys, tmp_path, cache, options):
    datamodule = folder(greys, cache=cache, cache_dir=str(tmp_path), **options)
    loader, pairs = datamodule.train_dataloader(), []
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)
        pairs += seen(loader)
    assert set.union(*pairs) == numbers(datamodule, "train")
    assert sum(len(pair) > 1 for pair in pairs) > 10
    for split in ("val", "test", "train"):
        evaluated = seen(datamodule.evaluation_dataloader(split))
        assert sorted(map(tuple, evaluated)) == sorted((number,) for number in numbers(datamodule, split))


def test_the_number_of_workers_and_the_cache_change_no_batch(greys, tmp_path):
    ways = [{"cache": "none"}, {"cache": "memory", "num_workers": 2}, {"cache": "disk", "num_workers": 1}]
    runs = [list(folder(greys, cache_dir=str(tmp_path), **way).train_dataloader()) for way in ways]
    for batches in zip(*runs, strict=True):
        for key in ("image", "parts", "index"):
            assert all((batch[key] == batches[0][key]).all() for batch in batches)
    other = next(iter(folder(greys, cache="memory", seed=5).train_dataloader()))
    assert not (other["image"] == runs[0][0]["image"]).all()


def test_a_dog_on_a_picture_of_a_cat_is_a_dog(tiny_pets):
    datamodule = OxfordPetDataModule(
        tiny_pets(), "species", image_size=32, num_workers=0, transforms=[CopyPaste((0.5, 0.6), 1.0)]
    )
    both = {(1, 2), (3, 4)}
    for batch in datamodule.train_dataloader():
        for index, parts in zip(batch["index"], batch["parts"], strict=True):
            pet = 1 if datamodule.splits["train"][int(index)].species == "cat" else 3
            present = set(np.unique(parts).tolist()) - {0}
            assert present <= {1, 2, 3, 4}
            assert all(any(part in pair and present >= set(pair) for pair in both) for part in present - {pet})


def test_classes_that_do_not_begin_with_the_background_are_refused(greys):
    with pytest.raises(InputError, match=r"^augmentation\.copy_paste pastes .* data\.class_names=\['pet', 'back"):
        folder(greys, ("pet", "background"))
    folder(greys, ("pet", "background"), transforms=[])


def test_on_the_device_nothing_is_pasted(greys):
    with pytest.raises(InputError, match=r"^augmentation: CopyPaste does not run on the device; .*augment=false"):
        folder(greys, device_augment=True)
