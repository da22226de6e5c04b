"""Pictures of every format that are nearly right: read, or refused with an InputError, in bounded time and memory."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzz.mutations import CORPUS, attack
from hostile_pictures import exif, jpeg_of_exif
from PIL import Image, ImageCms

from petseg_lightning.data.picture_file import picture_size, read_image, read_mask
from petseg_lightning.data.samples import MaskCode
from petseg_lightning.errors import InputError

INPUTS = 6_000  # of each kind
CODES = MaskCode((0, 1, 255), (0, 1, 255)), MaskCode(((0, 0, 0), (255, 0, 0)), (0, 1))
KINDS = {
    "jpeg": [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "MPO", "save_all": True}],
    "png": [{"format": "PNG"}, {"format": "PNG", "dpi": (72, 72), "icc_profile": True}],
    "webp": [{"format": "WEBP"}, {"format": "WEBP", "lossless": True}, {"format": "WEBP", "save_all": True}],
    "gif": [{"format": "GIF"}, {"format": "GIF", "save_all": True, "comment": b"c" * 300}],
    "tiff": [
        {"format": "TIFF", "compression": c} for c in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ],
    "bmp": [{"format": "BMP"}],
    "heif": [{"format": "HEIF"}],
}
MODES = {
    "jpeg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "webp": ("RGB", "RGBA"),
    "gif": ("P", "L"),
    "tiff": ("RGB", "RGBA", "L", "CMYK", "F", "1"),
    "bmp": ("RGB", "L", "1"),
    "heif": ("RGB", "RGBA"),
}


def seeds(kind: str) -> list[bytes]:
    """Small good files."""
    if kind == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 4), np.uint8)
    found = []
    for mode in MODES[kind]:
        picture = Image.fromarray(noise).convert("RGBA" if mode == "RGBA" else "RGB")
        if mode == "I;16":
            picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
        elif mode != "RGBA":
            picture = picture.convert(mode)
        for options in KINDS[kind]:
            further = {"append_images": [picture]} if options.get("save_all") else {}
            further |= {"icc_profile": profile} if options.get("icc_profile") or mode == "CMYK" else {}
            content = io.BytesIO()
            if options.get("compression") == "jpeg" and mode not in ("RGB", "L"):
                continue
            with suppress(OSError, KeyError, ValueError, RuntimeError):  # a mode that the format does not know
                picture.save(content, **{**options, **further})
                found.append(content.getvalue())
    if kind == "jpeg":
        found += [jpeg_of_exif(exif((274, 3, 1, 6), (37380, 10, 1, 38), (34665, 4, 1, 8), rest=bytes(8)))]
    if kind == "bmp":  # run lengths, which Pillow does not write
        head = found[1][:30] + (1).to_bytes(4, "little") + found[1][34 : int.from_bytes(found[1][10:14], "little")]
        found.append(head + b"\x18\x05\0\0" * 20 + b"\0\2\3\4" + b"\0\1")
    return found


def read_all(content: bytes) -> None:
    """As a picture, by its head, and as masks of two kinds."""
    path = Path("input")
    size = None
    with suppress(InputError):
        size = picture_size(path, io.BytesIO(content), 10**6)
    with suppress(InputError):
        image = read_image(path, io.BytesIO(content), 10**6)
        assert (image.mode, image.size) == ("RGB", size)
        assert set(image.info) <= {"icc_profile"}
    for code in CODES:
        with suppress(InputError):
            mask = read_mask(path, io.BytesIO(content))
            assert code.decode(mask, path).shape == (mask.height, mask.width)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_pictures(tmp_path, kind):
    attack(read_all, seeds(kind), INPUTS, tmp_path)


def test_what_was_found():
    for path in sorted((CORPUS / "pictures").iterdir()):
        read_all(path.read_bytes())


def test_good_files_are_read():
    for kind in KINDS:
        for content in seeds(kind):
            read_image(Path("a"), io.BytesIO(content))
            read_mask(Path("a"), io.BytesIO(content))
