import numpy as np
import pytest

from petseg_lightning.data.cache import Pictures
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.errors import InputError


@pytest.fixture
def samples(tiny_pets):
    return OxfordPetDataModule(tiny_pets()).splits["train"]


def test_kept_pictures_are_those_that_are_decoded_at_every_access(samples):
    kept, fresh = (Pictures(samples, 24, in_memory=in_memory) for in_memory in (True, False))
    assert len(kept) == len(fresh) == len(samples)
    for i in range(len(samples)):
        for one, other, shape in zip(kept[i], fresh[i], ((24, 24, 3), (24, 24)), strict=True):
            assert one.dtype == other.dtype == np.uint8
            assert one.shape == shape
            np.testing.assert_array_equal(one, other)


def test_kept_pictures_need_no_files(samples):
    pictures = Pictures(samples, 24, in_memory=True)
    for sample in samples:
        sample.image.unlink()
        sample.mask.unlink()
    assert pictures[0][0].any()


def test_the_first_bad_file_is_named_at_once_or_when_it_is_met(samples):
    for i in (3, 7):
        samples[i].image.write_bytes(b"")
    with pytest.raises(InputError, match=str(samples[3].image)):
        Pictures(samples, 24, in_memory=True)
    pictures = Pictures(samples, 24, in_memory=False)
    assert pictures[2]
    with pytest.raises(InputError, match=str(samples[7].image)):
        pictures[7]
