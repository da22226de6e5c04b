"""A video's file -> its frames as RGB, upright, a few at a time; and its sound as it is."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from PIL import Image

from petseg_lightning.data.picture_file import MAX_MEGAPIXELS, require_limits
from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular

if TYPE_CHECKING:
    from av.packet import Packet

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"  # as FFmpeg calls them
VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")


class Frame(NamedTuple):
    """A frame, and when it is shown, in the video's `time_base`, later than the frame before."""

    image: Image.Image
    time: int


class VideoFile:
    """A video that is open for reading; a context manager.

    Its content says what it is: a playlist, which names other files and addresses, is none.

    Args:
        path: of the file.
        max_pixels: that a frame may have.

    Raises:
        InputError: it cannot be read, with the reason; also while it is read.
    """

    def __init__(self, path: Path, max_pixels: float = MAX_MEGAPIXELS * 1e6) -> None:
        try:
            import av
        except ImportError as error:
            raise InputError(f"{path}: a video needs pip install 'petseg-lightning[video]'") from error
        self.path, self._error = path, av.FFmpegError
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        try:
            self.container = av.open(self._file, "r", options={"format_whitelist": _FORMATS})
        except (av.FFmpegError, ValueError) as error:
            self._file.close()
            raise self._unreadable(getattr(error, "strerror", None) or str(error)) from error
        if not self.container.streams.video:
            self.close()
            raise self._unreadable("it has no pictures")
        self.stream = self.container.streams.video[0]
        try:
            require_limits(path, self.stream.width, self.stream.height, max_pixels)
        except InputError:
            self.close()
            raise
        self.stream.codec_context.options = {"max_pixels": str(int(max_pixels))}  # where the frames change their size
        self.stream.thread_type = "AUTO"
        self.sound = next(iter(self.container.streams.audio), None)
        self.rate: Fraction = self.stream.average_rate or Fraction(25)
        self.time_base: Fraction = self.stream.time_base or 1 / self.rate
        self.num_frames: int = self.stream.frames  # as the file says, 0 where it does not

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()
        self._file.close()

    def batches(self, size: int) -> Iterator[tuple[list[Frame], list["Packet"]]]:
        """At least one batch of up to `size` frames, all of the size of the first, with the sound between them."""
        frames: list[Frame] = []
        packets: list[Packet] = []
        width = height = 0
        step = max(1, round(1 / (self.rate * self.time_base)))
        time = -step
        try:
            for packet in self.container.demux(*filter(None, (self.stream, self.sound))):
                if packet.stream is not self.stream:
                    packets += [] if packet.dts is None else [packet]
                    continue
                for frame in self.stream.decode(packet):
                    width, height = width or frame.width, height or frame.height
                    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                    time = time + step if frame.pts is None else max(frame.pts, time + 1)
                    frames.append(Frame(Image.fromarray(np.rot90(pixels, round(frame.rotation / 90))), time))
                    if len(frames) == size:
                        yield frames, packets
                        frames, packets = [], []
        except self._error as error:
            raise self._unreadable(error.strerror) from error
        if not width:
            raise self._unreadable("it has no frames")
        if frames or packets:
            yield frames, packets

    def _unreadable(self, reason: str | None) -> InputError:
        return InputError(f"{self.path}: cannot be read as a video ({reason}); repair or remove it")
