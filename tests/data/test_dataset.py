import numpy as np
import pytest
import torch

from petseg_lightning.data.dataset import SegmentationDataset, collate
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.samples import read_parts


@pytest.fixture
def pictures(tiny_pets):
    return OxfordPetDataModule(tiny_pets(), image_size=16, cache="memory").pictures("train")


def stamp(image, parts, epoch, index, pictures):
    """Stands for an augmentation: writes its arguments into the picture."""
    image = image.copy()
    image[0, 0] = (epoch, index, len(pictures))
    return image, parts[::-1].copy()


def test_an_item_is_a_picture_augmented_for_its_epoch_and_index(pictures):
    plain, augmented = SegmentationDataset(pictures), SegmentationDataset(pictures, stamp)
    assert len(plain) == len(pictures)
    assert plain[5].keys() == {"image", "parts", "index"}
    np.testing.assert_array_equal(plain[5]["image"], pictures[5][0])
    np.testing.assert_array_equal(plain[(8, 5)]["parts"], pictures[5][1])
    item = augmented[(8, 5)]
    assert item["index"] == 5
    assert item["image"][0, 0].tolist() == [8, 5, len(pictures)]
    assert augmented[5]["image"][0, 0].tolist() == [0, 5, len(pictures)]
    np.testing.assert_array_equal(item["parts"], pictures[5][1][::-1])


@pytest.mark.parametrize("key", [-1, (3, -1)])
def test_padding_counts_for_nothing_and_is_not_augmented(pictures, key):
    item = SegmentationDataset(pictures, stamp, with_original_parts=True)[key]
    assert item["index"] == -1
    assert item["image"].shape == (16, 16, 3)
    assert not item["image"].any()
    for parts in (item["parts"], item["original_parts"]):
        assert (parts == 255).all()


def test_the_contract_of_a_batch(pictures):
    dataset = SegmentationDataset(pictures, with_original_parts=True)
    batch = collate([dataset[i] for i in (4, 2, -1)])
    assert batch["image"].shape == (3, 3, 16, 16)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["parts"].shape == (3, 16, 16)
    assert batch["image"].dtype == batch["parts"].dtype == torch.uint8
    assert batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [4, 2, -1]
    for row, i in enumerate((4, 2)):
        np.testing.assert_array_equal(batch["image"][row].permute(1, 2, 0).numpy(), pictures[i][0])
        np.testing.assert_array_equal(batch["parts"][row].numpy(), pictures[i][1])
        original = read_parts(pictures.samples[i])
        assert original.shape not in ((16, 16), original.shape[::-1])
        np.testing.assert_array_equal(batch["original_parts"][row].numpy(), original)
    assert "original_parts" not in collate([SegmentationDataset(pictures)[0]])
