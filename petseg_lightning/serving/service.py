"""A predictor for many at once: limits that are checked before work begins, and few pictures at a time."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from PIL import Image

from petseg_lightning.data.picture_file import TooLargeError, read_image
from petseg_lightning.devices import give_back_freed_memory
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Prediction, Predictor
from petseg_lightning.inference.tiling import windows

_PIXELS, _BYTES = 2_000_000, 2**21  # of pictures that are done beside each other; larger ones wait for each other
_WINDOWS = 16  # in the network at once; a picture of more is large, too
_WAITING = 32  # pictures that may wait for their turn, of either size
_PREVIEW = 1280  # longer side, in pixels, of what the page shows
_QUICK = 1  # level of PNG compression

T = TypeVar("T")
log = logging.getLogger(__name__)


class BusyError(Exception):
    """There is more to do than can be done in time; trying again later helps."""


@dataclass
class Service:
    """What the page and the endpoint share.

    Args:
        predictor: the model.
        max_megabytes: of a picture's file.
        max_megapixels: of a picture.
        concurrency: ordinary pictures at a time; beside them one large one, as it takes gigabytes.
        timeout: seconds that a picture may wait and be predicted.
    """

    predictor: Predictor
    max_megabytes: float
    max_megapixels: float
    concurrency: int
    timeout: float
    _ordinary: "_Line" = field(init=False)
    _large: "_Line" = field(init=False, default_factory=lambda: _Line(1, _step_back))
    _network: threading.Lock = field(
        init=False, default_factory=threading.Lock
    )  # not every runtime takes two calls at once

    def __post_init__(self) -> None:
        self._ordinary = _Line(self.concurrency)
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.concurrency))  # more wait for each other, spinning

    async def predict(self, name: str, file: BinaryIO, use: Callable[[Prediction], T]) -> T:
        """What `use` makes of the prediction of an uploaded file, when it is its turn.

        Raises:
            TooLargeError: it is beyond a limit.
            InputError: it cannot be read or predicted.
            BusyError: too many wait, or it would take too long.
        """
        try:
            async with asyncio.timeout(self.timeout):
                try:
                    return await self._ordinary.run(self._predict, name, file, use, False)
                except (TooLargeError, _LargeError):
                    return await self._large.run(self._predict, name, file, use, True)
        except TimeoutError as error:
            raise BusyError(f"{name}: not done within {self.timeout:g} seconds") from error

    def _predict(self, name: str, file: BinaryIO, use: Callable[[Prediction], T], large: bool) -> T:
        size = file.seek(0, os.SEEK_END)
        if size > self.max_megabytes * 2**20:
            raise TooLargeError(f"{name}: has more than {self.max_megabytes:g} MB; save it smaller")
        if not large and size > _BYTES:
            raise _LargeError
        file.seek(0)
        max_pixels = self.max_megapixels * 1e6
        try:
            image = read_image(Path(name), file, max_pixels if large else min(_PIXELS, max_pixels))
            if not large and len(windows(*image.size, self.predictor.tiling)) > _WINDOWS:
                raise _LargeError
            self.predictor.require_room(*image.size)
            return use(self.predictor.finish(image, self._logits(image)))
        except (InputError, _LargeError):
            raise
        except Exception as error:
            log.exception("%s: cannot be predicted", name)
            raise InputError(f"{name}: cannot be predicted; the log of the server says why") from error
        finally:
            if large:
                give_back_freed_memory()

    def _logits(self, image: Image.Image) -> list[torch.Tensor]:
        """Of each member the logits of all windows; others have their turn between some windows and the next."""
        places = windows(*image.size, self.predictor.tiling)
        parts = []
        for start in range(0, len(places), _WINDOWS):
            crops = [image if len(places) == 1 else image.crop(place) for place in places[start : start + _WINDOWS]]
            with self._network:
                parts.append(self.predictor.logits(crops))
        return [torch.cat([logits for part in parts for logits in part[m]]) for m in range(len(parts[0]))]


class _LargeError(Exception):
    """A picture is large."""


class _Line:
    """Threads, and calls that wait for one: whoever waited longest is next."""

    def __init__(self, threads: int, begin: Callable[[], None] = lambda: None) -> None:
        self._pool = ThreadPoolExecutor(threads, initializer=begin)
        self._most = threads + _WAITING
        self._unfinished: set[Future] = set()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call it in a thread. Where this is cancelled, a call that has not begun never begins."""
        self._unfinished = {future for future in self._unfinished if not future.done()}
        if len(self._unfinished) >= self._most:
            raise BusyError("too many pictures wait")
        future = self._pool.submit(function, *arguments)
        self._unfinished.add(future)
        return await asyncio.wrap_future(future)


def _step_back() -> None:
    """Let other threads go first, where a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def png(prediction: Prediction, kind: str) -> bytes:
    """The cutout, overlay or mask as the file of a PNG."""
    picture: Image.Image = getattr(prediction, kind)
    profile = None if kind == "mask" else prediction.image.info.get("icc_profile")
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=_QUICK, icc_profile=profile)
    return buffer.getvalue()


def preview(picture: Image.Image, prediction: Prediction) -> bytes:
    """A picture as large as a screen, as the file of a WebP."""
    small = picture.convert("RGB") if picture.mode == "P" else picture.copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=85, method=2, icc_profile=prediction.image.info.get("icc_profile"))
    return buffer.getvalue()
