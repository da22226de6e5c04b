"""Every kind of file, by the pixels that a viewer shows."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from petseg_lightning.data.picture_file import TooLargeError, read_image
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
    Image.fromarray(np.ascontiguousarray(as_stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[..., 0], upright)


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
