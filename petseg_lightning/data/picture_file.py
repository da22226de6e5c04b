"""A picture's file -> RGB: the one reader of training and prediction."""

import io
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from petseg_lightning.errors import InputError

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
_HEIF = (".heic", ".heif")


class TooLargeError(InputError):
    """A picture beyond a limit."""


def read_image(path: Path, file: BinaryIO | None = None, max_pixels: float = float("inf")) -> Image.Image:
    """A decoded picture as RGB, as a viewer shows it: upright by its EXIF, the first frame of several.

    What is transparent becomes white, 16 bits become 8, and CMYK is converted by the profile in the file. `info` of
    the result has the "icc_profile" of the pixels, where the file has one.

    Args:
        path: of the file.
        file: its content, where that is elsewhere; `path` is its name then.
        max_pixels: that it may have, beside Pillow's own limit.

    Raises:
        TooLargeError: it has more pixels; they are not decoded.
        InputError: it cannot be read, with the reason.
    """
    if str(path).lower().endswith(_HEIF):
        _register_heif(path)
    try:
        with Image.open(path if file is None else file) as image:
            if image.width * image.height > max_pixels:
                raise TooLargeError(_too_large(path, max_pixels))
            return _as_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise TooLargeError(_too_large(path, min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or 0)))) from error
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there; restore it, or correct the path") from error
    except UNREADABLE as error:
        unnamed = str(error).replace(f" {(str(path) if file is None else file)!r}", "")
        reason = getattr(error, "strerror", None) or unnamed
        raise InputError(f"{path}: cannot be read as a picture ({reason}); repair or remove it") from error


def _too_large(path: Path, max_pixels: float) -> str:
    return f"{path}: has more than {max_pixels / 10**6:.3g} million pixels; save it smaller, or cut it into pieces"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float32)
        full = 1 if image.mode == "F" and values.max() <= 1 else 255 if image.mode == "F" else 65535
        return Image.fromarray((values * (255 / full)).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK":
        return _cmyk_as_rgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode != "RGB":
        image.info.pop("icc_profile", None)  # of grey values
    return image.convert("RGB")


def _cmyk_as_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.pop("icc_profile", None)
    if profile is not None:
        srgb = ImageCms.createProfile("sRGB")
        with suppress(ImageCms.PyCMSError, OSError):  # of something else, or damaged
            inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, inks, srgb, outputMode="RGB")
            assert converted is not None  # it is not done in place
            return converted
    return image.convert("RGB")


def _register_heif(path: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise InputError(f"{path}: HEIC needs pip install 'petseg-lightning[heic]'; or save it as JPEG") from error
    register_heif_opener()
