"""A picture's file -> RGB: the one reader of all pictures and masks, whoever made them.

Its content says what a file is, not its name. Only the formats below are decoded, all within this process, and only
within limits that are known from the file's head.
"""

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")

MAX_MEGABYTES = 200  # of a file
MAX_MEGAPIXELS = 52  # so that a prediction takes less than 2 GiB in all
MAX_SIDE = 32_767  # pixels
MAX_ASPECT = 50  # how many times the shorter side the longer one may be

_MANY = 2**18  # values of a TIFF's tag, and its strips or tiles
_TILE = 2**24  # pixels of a TIFF's tile, of which one is decoded whatever the picture's size is
_SCANS = 5_000  # millions of pixels that the scans of a progressive JPEG may go over
_READS = 2**14, 2**20  # for the head, and for the pixels
_JPEG_HEAD = 2**24  # bytes before the pixels, of which Pillow adds each part of its EXIF to a copy of all before
_LARGEST_PROFILE = 2**22  # bytes
_STRIP = 2**20  # pixels that are converted at once
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_TURNS = {  # by the orientation of EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, which is not used


class TooLargeError(InputError):
    """A picture beyond a limit."""


def read_image(path: Path, file: BinaryIO | None = None, max_pixels: float = MAX_MEGAPIXELS * 1e6) -> Image.Image:
    """A decoded picture as RGB, as a viewer shows it: upright by its EXIF, the first frame of several.

    What is transparent becomes white, 16 bits become 8, and CMYK is converted by the profile in the file. `info` of
    the result has the "icc_profile" of the pixels, where the file has one, and nothing else.

    Args:
        path: of the file.
        file: its content, where that is elsewhere; `path` is its name then.
        max_pixels: that it may have.

    Raises:
        TooLargeError: it is beyond a limit; its pixels are not decoded.
        InputError: it is no regular file, or cannot be read, with the reason.
    """
    with _opened(path, file, max_pixels, "picture") as image:
        return _as_rgb(_upright(image))


def read_mask(path: Path, file: BinaryIO | None = None) -> Image.Image:
    """A decoded mask with its values as they are stored, upright by its EXIF; raises as `read_image` does."""
    with _opened(path, file, MAX_MEGAPIXELS * 1e6, "mask") as image:
        return _upright(image)


def picture_size(path: Path, file: BinaryIO | None = None, max_pixels: float = MAX_MEGAPIXELS * 1e6) -> tuple[int, int]:
    """Width and height of an upright picture, from its file's head; raises as `read_image` does."""
    with _opened(path, file, max_pixels, "picture") as image:
        width, height = image.size
        # a TIFF has the size of the upright picture already
        return (height, width) if _orientation(image) >= 5 and not isinstance(image, _Tiff) else (width, height)


class _Jpeg(JpegImageFile):
    def getexif(self) -> Image.Exif:
        """Nothing: Pillow would decode every tag and write some back, which takes much and raises anything."""
        return Image.Exif()


class _Tiff(TiffImageFile):
    def getexif(self) -> Image.Exif:
        """Nothing, as of a JPEG."""
        return Image.Exif()


class _Metered:
    """A file that refuses to be read on and on: what loops over its parts would take any time and memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.reads_left, self.bytes_left = _READS[0], 3 * size + 2**20
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int | None = -1) -> bytes:
        content = self._file.read(-1 if size is None else size)
        self.bytes_left -= len(content)
        self.reads_left -= 1
        if self.bytes_left < 0 or self.reads_left < 0:
            raise ValueError("it consists of too many parts")
        return content


@contextmanager
def _opened(path: Path, file: BinaryIO | None, max_pixels: float, noun: str) -> Iterator[ImageFile]:
    """A picture whose head is read and within the limits; InputError for whatever is raised in the block."""
    if isinstance(path, io.BytesIO):  # in memory, with a name of its own
        file = path
    try:
        with open_regular(path) if file is None else nullcontext(file) as content:
            size = content.seek(0, io.SEEK_END)
            if size > MAX_MEGABYTES * 2**20:
                raise TooLargeError(f"{path}: has more than {MAX_MEGABYTES} MB; save it smaller")
            content.seek(0)
            metered = _Metered(content, size)
            image = _decoder(metered, path)(cast(BinaryIO, metered))
            require_limits(path, *image.size, max_pixels)
            metered.reads_left, metered.bytes_left = _READS[1], 3 * size + 2**20
            if image.info.get("progressive"):
                _require_few_scans(metered, image.width * image.height)
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there; restore it, or correct the path") from error
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory; save it smaller, or end other programs") from error
    except Exception as error:  # decoders raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a {noun} ({reason}); repair or remove it") from error


def _decoder(file: _Metered, path: Path) -> type[ImageFile]:
    """What decodes a file, by its first bytes."""
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"\xff\xd8\xff"):
        file.bytes_left = _JPEG_HEAD
        return _Jpeg
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if head.startswith(b"BM"):
        return BmpImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _require_usual_tags(file)
        return _Tiff
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return _heif_decoder(path)
    raise ValueError("it is empty" if not head else "it is no JPEG, PNG, WebP, BMP, GIF, TIFF or HEIC")


def _heif_decoder(path: Path) -> type[ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise InputError(f"{path}: HEIC needs pip install 'petseg-lightning[heic]'; or save it as JPEG") from error
    return HeifImageFile


def require_limits(path: Path, width: int, height: int, max_pixels: float) -> None:
    """Raise TooLargeError for a picture of so many pixels, or of such sides."""
    if width * height > max_pixels:
        excess = f"more than {max_pixels / 10**6:.3g} million pixels"
    elif max(width, height) > MAX_SIDE:
        excess = f"a side of more than {MAX_SIDE:,} pixels"
    elif max(width, height) > MAX_ASPECT * min(width, height):
        excess = f"a side more than {MAX_ASPECT} times as long as the other"
    else:
        return
    raise TooLargeError(f"{path}: has {excess} ({width} x {height}); save it smaller, or cut it into pieces")


def _require_few_scans(file: _Metered, pixels: int) -> None:
    """A scan of a progressive JPEG may have 50 bytes, and takes the time of all pixels."""
    start, scans = file.tell(), 0
    file.seek(0)
    while block := file.read(2**20):
        scans += block.count(b"\xff\xda")
    file.seek(start)
    if scans * pixels > _SCANS * 10**6:
        raise ValueError(f"it has {scans} scans")


def _require_usual_tags(file: _Metered) -> None:
    """Raise ValueError for a TIFF whose tags would take much more memory than the file has bytes."""
    head = file.read(16)
    order, large = "<" if head[:1] == b"I" else ">", b"+" in head[:4]
    number_format, entry_format = (f"{order}Q", f"{order}HHQQ") if large else (f"{order}H", f"{order}HHII")
    file.seek(struct.unpack_from(f"{order}Q", head, 8)[0] if large else struct.unpack_from(f"{order}I", head, 4)[0])
    (number,) = struct.unpack(number_format, file.read(struct.calcsize(number_format)))
    entries = file.read(min(number, _MANY) * struct.calcsize(entry_format))
    tile = [1, 1]
    for tag, kind, count, value in struct.iter_unpack(entry_format, entries):
        if count > _MANY and (kind not in (1, 2, 6, 7) or tag in (273, 324)):  # bytes and text; strips and tiles
            raise ValueError(f"its tag {tag} has {count} values")
        if tag in (322, 323):  # in big-endian files a short value stands in the upper half
            tile[tag - 322] = value >> 16 if kind == 3 and order == ">" and not large else value
    if tile[0] * tile[1] > _TILE:
        raise ValueError(f"it has tiles of {tile[0]} x {tile[1]}")
    file.seek(0)


def _orientation(image: ImageFile) -> int:
    """The orientation of EXIF, 1..8, and 1 where there is none that can be understood."""
    if isinstance(image, _Tiff):
        found = image.tag_v2.get(274)
        return found if found in _TURNS else 1
    exif = image.info.get("exif") or b""
    if not isinstance(image, _Jpeg | PngImageFile | WebPImageFile) or not isinstance(exif, bytes):  # HEIC is upright
        return 1
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is not None:
        with suppress(struct.error):
            (start,) = struct.unpack_from(f"{order}I", exif, 4)
            (number,) = struct.unpack_from(f"{order}H", exif, start)
            for entry in range(number):
                tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
                if (tag, kind) == (274, 3):
                    return value if value in _TURNS else 1
    return 1


def _upright(image: ImageFile) -> Image.Image:
    """The decoded picture, turned."""
    turn, promised = _TURNS.get(_orientation(image)), image.size  # before it is decoded: a TIFF forgets it then
    image.load()
    if image.size != promised:  # of a HEIC
        raise ValueError("its pixels are of another size than its head says")
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    """The same as RGB; in strips, so that what is between takes little memory."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > _LARGEST_PROFILE:
        profile = None
    if image.mode == "RGB" and not image.has_transparency_data:
        result = image
    else:
        result, convert = Image.new("RGB", image.size), _converter(image, profile)
        rows = max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(top + rows, image.height))
            result.paste(convert(image.crop(box)), box)
    has_colours = image.mode in ("RGB", "RGBA", "P")  # the profile of grey values or inks does not describe the result
    result.info = {"icc_profile": profile} if profile and has_colours else {}
    return result


def _converter(image: Image.Image, profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """What turns a part of a picture into RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _greys_to_rgb(65535 if image.mode != "F" else 1 if cast(float, image.getextrema()[1]) <= 1 else 255)
    if image.mode == "CMYK" and profile is not None:
        with suppress(ImageCms.PyCMSError, OSError):  # of something else, or damaged
            inks, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            return _inks_to_rgb(ImageCms.buildTransform(inks, srgb, "CMYK", "RGB"))
    return _on_white if image.has_transparency_data else lambda part: part.convert("RGB")


def _greys_to_rgb(full: int) -> Callable[[Image.Image], Image.Image]:
    def convert(part: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(part, np.float32)) * (255 / full)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")

    return convert


def _inks_to_rgb(transform: ImageCms.ImageCmsTransform) -> Callable[[Image.Image], Image.Image]:
    def convert(part: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(part, transform)
        assert converted is not None  # it is not done in place
        return converted

    return convert


def _on_white(part: Image.Image) -> Image.Image:
    part = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB")
