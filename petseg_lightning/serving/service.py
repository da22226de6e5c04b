"""A predictor for many at once: limits, few pictures at a time, and results that do not stay."""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Lock
from time import time
from typing import BinaryIO, TypeVar

import anyio
from PIL import Image

from petseg_lightning.data.picture_file import TooLargeError, read_image
from petseg_lightning.inference.predictor import Prediction, Predictor
from petseg_lightning.predicting.results import LARGE

KINDS = ("cutout", "overlay", "mask")  # pictures of a prediction
KEPT = 600  # seconds that a result waits for its download
_PREVIEW = 1280  # longer side, in pixels, of what the page shows
_QUICK = 1  # level of PNG compression

T = TypeVar("T")


@dataclass
class Service:
    """What the page and the endpoint share.

    Args:
        predictor: the model.
        folder: for results of the page, in `results`, and what gradio writes, in `uploads`.
        max_megabytes: of a picture's file.
        max_megapixels: of a picture.
        concurrency: pictures at a time.
    """

    predictor: Predictor
    folder: Path
    max_megabytes: float
    max_megapixels: float
    concurrency: int
    _limiter: anyio.CapacityLimiter = field(init=False)
    _network: Lock = field(init=False, default_factory=Lock)  # not every runtime takes two calls at once
    _large: Lock = field(init=False, default_factory=Lock)  # each takes gigabytes

    def __post_init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(self.concurrency)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it in a thread, when it is its turn; whoever waited longest is next."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)

    def predict(self, name: str, file: BinaryIO, use: Callable[[Prediction], T]) -> T:
        """What `use` makes of the prediction of an uploaded file; of large pictures one at a time.

        Raises:
            TooLargeError: it is beyond a limit.
            InputError: it cannot be read.
        """
        size = file.seek(0, os.SEEK_END)
        if size > self.max_megabytes * 2**20:
            raise TooLargeError(f"{name}: has more than {self.max_megabytes:g} MB; save it smaller")
        file.seek(0)
        image = read_image(Path(name), file, self.max_megapixels * 1e6)
        with self._large if image.width * image.height > LARGE else nullcontext():
            with self._network:
                logits = self.predictor.logits([image])
            return use(self.predictor.finish(image, [one[0] for one in logits]))

    def store(self, prediction: Prediction) -> str:
        """Write what the page shows, and what it offers; the name of the new folder, which nobody can guess."""
        token = secrets.token_urlsafe()
        folder = self.folder / "results" / token
        folder.mkdir()
        _write_preview(prediction.image, folder / "picture.webp", prediction)
        for kind in KINDS:
            picture: Image.Image = getattr(prediction, kind)
            (folder / f"{kind}.png").write_bytes(_png(picture, kind, prediction))
            _write_preview(picture.convert("RGB") if kind == "mask" else picture, folder / f"{kind}.webp", prediction)
        return token

    def remove_older(self, seconds: float) -> None:
        """Remove the results, and the uploads that broke off, that are older."""
        for path in (*self.folder.glob("results/*"), *self.folder.glob("uploads/tmp*")):
            if path.stat().st_mtime < time() - seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def png(prediction: Prediction, kind: str) -> bytes:
    """One of KINDS, as the file of a PNG."""
    return _png(getattr(prediction, kind), kind, prediction)


def _png(picture: Image.Image, kind: str, prediction: Prediction) -> bytes:
    profile = None if kind == "mask" else prediction.image.info.get("icc_profile")
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=_QUICK, icc_profile=profile)
    return buffer.getvalue()


def _write_preview(picture: Image.Image, path: Path, prediction: Prediction) -> None:
    small = picture.copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    small.save(path, quality=85, method=2, icc_profile=prediction.image.info.get("icc_profile"))
