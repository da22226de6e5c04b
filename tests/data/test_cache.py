import numpy as np
import pytest

from petseg_lightning.data.cache import MemoryArrays, Pictures
from petseg_lightning.data.pets import OxfordPetDataModule
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
