"""Every kind of file, by the pixels that a viewer shows."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hostile_pictures import exif as tags
from hostile_pictures import hostile_contents, jpeg_of_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from petseg_lightning.data import picture_file
from petseg_lightning.data.picture_file import TooLargeError, picture_size, read_image, read_mask
from petseg_lightning.errors import InputError


def read(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "YCbCr", "LAB", "I;16", "F"])
def test_white_is_white_in_every_mode(tmp_path, mode):
    path = tmp_path / {"CMYK": "a.tif", "LAB": "a.tif", "F": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png")
    full = {"I;16": np.full((3, 4), 65535, np.uint16), "F": np.ones((3, 4), np.float32)}
    white = Image.new("RGB", (4, 3), "white")
    if mode == "LAB":
        white = Image.new("LAB", (4, 3), (255, 128, 128))
    elif mode in full:
        white = Image.fromarray(full[mode])
    else:
        white = white.convert(mode)
    white.save(path)
    assert read(path).shape == (3, 4, 3)
    assert read(path).min() >= 254  # LAB is rounded


def test_16_bits_keep_their_greys(tmp_path):
    Image.fromarray(np.array([[0, 257 * 10, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, :, 0].tolist() == [0, 10, 100, 255]


def test_16_bits_of_colour(tmp_path):
    """Written by hand, as Pillow does not write them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = struct.pack(">B3H", 0, 257 * 200, 257 * 3, 65535)
    head = struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )
    assert read(path).tolist() == [[[200, 3, 255]]]


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_a_transparent_colour_of_a_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([9, 9, 9, 255, 0, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert read(tmp_path / "a.png").tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize("ending", ["gif", "tif", "webp"])
def test_the_first_frame(tmp_path, ending):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"a.{ending}", save_all=True, append_images=[blue])
    np.testing.assert_allclose(read(tmp_path / f"a.{ending}").mean((0, 1)), (255, 0, 0), atol=3)


@pytest.mark.parametrize("profile", [None, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no"])
def test_cmyk_without_a_profile_of_its_own(tmp_path, profile):
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    assert read(tmp_path / "a.tif")[0, 0].tolist() == [0, 255, 255]
    assert "icc_profile" not in read_image(tmp_path / "a.tif").info


def test_the_profile_of_a_picture_in_colour_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode, kept in (("RGB", profile), ("L", None)):
        Image.new(mode, (4, 4)).save(tmp_path / "a.jpg", icc_profile=profile)
        assert read_image(tmp_path / "a.jpg").info.get("icc_profile") == kept


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(tmp_path, orientation):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255
    as_stored = {  # the operations that undo what EXIF 2.3 names for each value
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    for ending in ("png", "tif", "jpg", "webp"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(np.ascontiguousarray(as_stored)).save(path, exif=exif, lossless=True, quality=100)
        np.testing.assert_array_equal(read(path)[..., 0] > 128, upright > 128)
        np.testing.assert_array_equal(np.asarray(read_mask(path).convert("L")) > 128, upright > 128)
        assert picture_size(path) == (32, 16)


@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (tags((274, 3, 1, 6), (37380, 10, 1, 38), rest=struct.pack("<2i", -1, 0)), (30, 40)),  # of real cameras
        (tags((282, 5, 1, 26), rest=bytes(8)), (40, 30)),
        (tags((274, 3, 1, 9)), (40, 30)),
        (tags((274, 3, 1, 0)), (40, 30)),
        (tags((274, 2, 4, 6)), (40, 30)),
        (tags((34665, 4, 1, 8), (34853, 4, 1, 8)), (40, 30)),
        (b"II*\0\xff\xff\xff\xff", (40, 30)),
        (b"no", (40, 30)),
    ],
)
def test_wrong_exif_is_no_reason_not_to_read_a_picture(tmp_path, exif, size):
    (tmp_path / "a.jpg").write_bytes(jpeg_of_exif(exif))
    assert read_image(tmp_path / "a.jpg").size == picture_size(tmp_path / "a.jpg") == size


def test_the_content_says_what_a_file_is_and_not_its_name(tmp_path):
    red = Image.new("RGB", (32, 24), (200, 10, 10))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        red.save(tmp_path / "a.heic", kind)
        np.testing.assert_allclose(read(tmp_path / "a.heic").mean((0, 1)), (200, 10, 10), atol=4)
    pytest.importorskip("pillow_heif").from_pillow(red).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read(tmp_path / "a.jpg").mean((0, 1)), (200, 10, 10), atol=6)


def test_two_pictures_of_one_camera_in_a_file(tmp_path):
    """An MPO, as phones write it, is a JPEG with another one behind it."""
    red, blue = (Image.new("RGB", (32, 24), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[blue])
    np.testing.assert_allclose(read(tmp_path / "a.jpg").mean((0, 1)), (255, 0, 0), atol=4)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX", "PPM", "DDS", "ICNS", "SGI", "XBM", "AVIF"])
def test_other_formats_are_not_decoded(tmp_path, kind):
    """Some start programs; none has anybody's photographs."""
    Image.new("1" if kind == "XBM" else "RGB", (32, 32)).save(tmp_path / "a.jpg", kind)
    for reader in (read_image, read_mask, picture_size):
        with pytest.raises(InputError, match=r"a\.jpg: cannot be read as a (picture|mask) \(it is no JPEG, PNG, WebP"):
            reader(tmp_path / "a.jpg")


def test_hostile_files(tmp_path):
    for name, content in hostile_contents():
        (tmp_path / name).write_bytes(content)
        for reader in (read_image, read_mask):
            with pytest.raises(InputError, match=rf"{name}: (has|cannot be read as a) ") as error:
                reader(tmp_path / name)
            assert "\n" not in str(error.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TooLargeError, match=r"a\.png: has more than 200 MB; save it smaller"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "F", "CMYK", "LA"])
def test_a_picture_that_is_converted_in_parts(tmp_path, mode, monkeypatch):
    """The same as in one."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    image = {
        "I;16": lambda: Image.fromarray(noise[..., 0].astype(np.uint16) * 257),
        "F": lambda: Image.fromarray(noise[..., 0] / np.float32(255)),
        "CMYK": lambda: Image.fromarray(noise, "CMYK"),
    }.get(mode, lambda: Image.fromarray(noise).convert("RGB" if mode == "P" else mode))()
    image = image.quantize(16) if mode == "P" else image
    path = tmp_path / ("a.tif" if mode in ("F", "CMYK") else "a.png")
    image.save(path, **({"transparency": 3} if mode == "P" else {}))
    whole = read(path)
    monkeypatch.setattr(picture_file, "_STRIP", 100)
    np.testing.assert_array_equal(read(path), whole)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((3000, 2000), r"has more than 4 million pixels \(3000 x 2000\); save it smaller, or cut it into pieces"),
        ((1000, 19), r"has a side more than 50 times as long as the other \(1000 x 19\); save it"),
        ((40_000, 1000), r"has a side of more than 32,767 pixels \(40000 x 1000\); save it"),
    ],
)
def test_a_picture_of_absurd_size_is_refused(tmp_path, size, message):
    Image.new("1", size).save(tmp_path / "a.png")
    with pytest.raises(TooLargeError, match=rf"a\.png: {message}"):
        read_image(tmp_path / "a.png", max_pixels=1e9 if size[0] > 30_000 else 4e6)


def test_heic_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"a\.HEIC: HEIC needs pip install 'petseg-lightning\[heic\]'"):
        read_image(tmp_path / "a.HEIC")


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.full((16, 24, 3), (200, 30, 60), np.uint8)
    pillow_heif.from_bytes("RGB", (24, 16), pixels.tobytes()).save(tmp_path / "a.heic")
    found = read(tmp_path / "a.heic")
    assert found.shape == pixels.shape
    np.testing.assert_allclose(found, pixels, atol=6)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["PNG", "BMP", "TIFF", "WEBP"]),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_what_is_stored_without_loss_is_read_as_it_was(width, height, kind, orientation, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    content, turned = io.BytesIO(), Image.Exif()
    turned[274] = orientation if kind != "BMP" else 1
    Image.fromarray(pixels).save(content, kind, exif=turned, lossless=True, exact=True)
    expected = ImageOps.exif_transpose(Image.open(content))
    found = read_image(Path("a"), content)
    np.testing.assert_array_equal(found, expected)
    assert picture_size(Path("a"), content) == found.size == expected.size
    np.testing.assert_array_equal(read_mask(Path("a"), content), expected)


@given(
    st.binary(max_size=300),
    st.sampled_from(["", "\xff\xd8\xff", "\x89PNG\r\n\x1a\n", "II*\0", "MM\0+", "GIF89a", "BM"]),
)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_no_bytes_are_anything_but_a_picture_or_a_line(content, head):
    for reader in (read_image, read_mask, picture_size):
        with suppress(InputError):
            reader(Path("a"), io.BytesIO(head.encode("latin-1") + content))
