from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.data.pets import TRIMAP_CODES
from petseg_lightning.data.samples import MaskCode, Sample, read_parts, read_resized, require_files
from petseg_lightning.data.targets import IGNORE, PET_PARTS
from petseg_lightning.errors import InputError

PLAIN = MaskCode((0, 1, 2, 255), (0, 1, 2, IGNORE))
COLOURED = MaskCode(((0, 0, 0), (255, 0, 0), (9, 9, 9)), (0, 1, IGNORE))


@pytest.fixture
def sample(tmp_path):
    """(mask, image, code) -> a sample whose mask is saved as it is."""

    def write(mask, image=None, code=PLAIN) -> Sample:
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask))
        mask.save(tmp_path / "a.png")
        (image or Image.new("RGB", mask.size)).save(tmp_path / "a.jpg", quality=95)
        return Sample("a", tmp_path / "a.jpg", tmp_path / "a.png", code)

    return write


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("species", "parts"), [("cat", (1, 0, 2)), ("dog", (3, 0, 4))])
def test_a_trimap_in_parts(sample, species, parts):
    trimap = np.array([[1, 2, 3], [3, 3, 1]], np.uint8)
    found = read_parts(sample(trimap, code=TRIMAP_CODES[species]))
    assert found.dtype == np.uint8
    assert found.tolist() == [list(parts), [parts[2], parts[2], parts[0]]]
    assert [PET_PARTS[part] for part in parts] == [species, "background", f"{species} border"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_are_read_at_8_and_at_16_bits(sample, dtype):
    assert read_parts(sample(np.array([[0, 1], [2, 255]], dtype))).tolist() == [[0, 1], [2, IGNORE]]


def test_a_value_above_255(sample):
    code = MaskCode((0, 1000, 65535), (0, 1, IGNORE))
    assert read_parts(sample(np.array([[0, 1000, 65535]], np.uint16), code=code)).tolist() == [[0, 1, IGNORE]]


def test_a_mask_of_one_bit(sample):
    assert read_parts(sample(Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1"))).tolist() == [[0, 1, 0]]


def test_a_palette_png_is_read_by_its_numbers(sample):
    mask = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    mask.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 0])
    assert read_parts(sample(mask)).tolist() == [[0, 1, 2]]
    assert read_parts(sample(mask, code=COLOURED)).tolist() == [[IGNORE, 1, 0]]


def test_a_mask_in_colours(sample):
    mask = np.array([[(0, 0, 0), (255, 0, 0)], [(9, 9, 9), (255, 0, 0)]], np.uint8)
    assert read_parts(sample(mask, code=COLOURED)).tolist() == [[0, 1], [IGNORE, 1]]


@pytest.mark.parametrize(
    ("mask", "code", "message"),
    [
        (np.array([[0, 7]], np.uint8), PLAIN, "the mask holds 7, but its values are 0, 1, 2, 255; repair"),
        (np.array([[0, 300]], np.uint16), PLAIN, "the mask holds 300, but"),
        (np.array([[1, 0]], np.uint8), TRIMAP_CODES["cat"], "the mask holds 0, but its values are 1, 2, 3;"),
        (np.array([[(255, 0, 1)]], np.uint8), COLOURED, "holds (255, 0, 1), but its values are (0, 0, 0), (255,"),
        (np.array([[(0, 0, 0)]], np.uint8), PLAIN, "this one is RGB; save it as greyscale or palette PNG, or give"),
    ],
)
def test_a_mask_with_a_value_of_no_meaning(sample, mask, code, message):
    bad = sample(mask, code=code)
    with pytest.raises(InputError) as error:
        read_parts(bad)
    assert str(error.value).startswith(f"{bad.mask}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_is_resized_by_picking_pixels(sample):
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 2, 255], np.uint8), (37, 53))
    _, parts = read_resized(sample(mask), 16)
    rows, columns = (((np.arange(16) + 0.5) * side / 16).astype(int) for side in mask.shape)
    assert parts.dtype == np.uint8
    np.testing.assert_array_equal(parts, mask[np.ix_(rows, columns)])  # and so no new value: 1 lies between 0 and 2


def test_a_picture_is_squeezed_smoothly(sample):
    ramp = np.linspace(20, 220, 64).round()
    stripes = (ramp + np.resize([20, -20], 64)).astype(np.uint8)  # finer than what is left
    one = sample(np.zeros((24, 64), np.uint8), Image.fromarray(np.tile(stripes, (24, 1))).convert("RGB"))
    image, _ = read_resized(one, 16)
    assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
    expected = ramp.reshape(16, 4).mean(1)[1:-1, None]
    np.testing.assert_allclose(image[:, 1:-1], np.broadcast_to(expected, (16, 14, 3)), atol=5)


def test_a_mask_of_another_size(sample):
    bad = sample(np.zeros((10, 20), np.uint8), Image.new("RGB", (10, 20)))
    with pytest.raises(
        InputError, match=r"a\.png: the mask is 20x10 pixels and its picture 10x20; they must be of one"
    ):
        read_resized(bad, 8)


def make_text(path: Path) -> None:
    path.write_text("no picture")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def test_a_picture_that_is_not_there_is_named(sample):
    bad = sample(np.zeros((9, 9), np.uint8))
    bad.image.unlink()
    with pytest.raises(InputError, match=rf"^{bad.image}: is not there; restore it, or correct the path$"):
        read_resized(bad, 16)
    bad = sample(np.zeros((9, 9), np.uint8))
    bad.mask.unlink()
    with pytest.raises(InputError, match=rf"^{bad.mask}: is not there; restore it, or correct the path$"):
        read_resized(bad, 16)


@pytest.mark.parametrize("damage", [cut, make_text, make_empty])
@pytest.mark.parametrize(("part", "what"), [("image", "picture"), ("mask", "mask")])
def test_a_damaged_file_is_named(sample, damage, part, what):
    noise = np.random.default_rng(0).integers(0, 3, (90, 90), np.uint8)
    bad = sample(noise, Image.fromarray(noise * 100).convert("RGB"))
    damage(getattr(bad, part))
    with pytest.raises(InputError) as error:
        read_resized(bad, 16)
    assert str(error.value).startswith(f"{getattr(bad, part)}: cannot be read as a {what} (")
    assert str(error.value).endswith("; repair or remove it")


def test_a_mask_of_absurd_size_is_refused(sample):
    bad = sample(np.zeros((10, 10), np.uint8))
    Image.new("1", (13_000, 13_000)).save(bad.mask)
    with pytest.raises(InputError, match=r"has more than 52 million pixels \(13000 x 13000\)"):
        read_parts(bad)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.full((2, 2), 65536, np.int32), "the mask holds 65536"),
        (np.full((2, 2), -1, np.int32), "the mask holds -1"),
        (np.full((2, 2), 0.4, np.float32), "a mask has one channel of class values, this one is F"),
    ],
)
def test_a_mask_of_values_that_no_class_has(sample, values, problem):
    bad = sample(np.zeros((2, 2), np.uint8))
    Image.fromarray(values).save(bad.mask, "TIFF")
    with pytest.raises(InputError, match=problem):
        read_parts(bad)


def test_missing_files_are_named(sample, tmp_path):
    there = sample(np.zeros((4, 4), np.uint8))
    require_files([there])
    absent = [Sample(str(i), there.image, tmp_path / f"{i}.png", PLAIN) for i in range(5)]
    with pytest.raises(InputError) as error:
        require_files([there, absent[0]])
    assert str(error.value).startswith(f"listed but missing: {tmp_path / '0.png'}; restore them, or ")
    with pytest.raises(InputError, match=r"0\.png, \S*1\.png, \S*2\.png and 2 more; "):
        require_files(absent)
    without_image = Sample("b", tmp_path / "b.jpg", there.mask, PLAIN)
    with pytest.raises(InputError, match=r"missing: \S*b\.jpg;"):
        require_files([without_image])
