"""From a video to a video: the classes over every frame."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rich.markup import escape
from rich.progress import Progress

from petseg_lightning.data.video_file import Frame, VideoFile
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.sources import Source
from petseg_lightning.predicting.results import LARGE, Results, describe, left_out, shown

if TYPE_CHECKING:
    from av.packet import Packet

_ENCODERS = {  # in the order of preference; not every build of FFmpeg has the first
    "libx264": {"crf": "20"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(4 * 118)},
}
_FINEST = Fraction(1, 60_000)  # of a second; MPEG-4 knows no finer time
_BT709 = 1  # how players turn colours back into RGB, by its number in H.273
_LIMITED = 1  # range of the values, as FFmpeg numbers it


def predict_videos(
    predictor: Predictor,
    sources: Sequence[Source],
    results: Results,
    batch_size: int,
    max_pixels: float,
    progress: Progress,
) -> Iterator[dict[str, Any] | InputError]:
    """A row for each video whose overlays are written, an error for each that cannot be predicted."""
    for source in sources:
        try:
            yield _predict_video(predictor, source, results, batch_size, max_pixels, progress)
        except Exception as error:
            yield left_out(source.path, error)


def _predict_video(
    predictor: Predictor, source: Source, results: Results, batch_size: int, max_pixels: float, progress: Progress
) -> dict[str, Any]:
    """The row of a video; no more than a batch of its frames is in memory, and no more pixels than of pictures."""
    begin, summary = perf_counter(), _Summary()
    with VideoFile(source.path, max_pixels) as video, ExitStack() as stack:
        pixels = video.stream.width * video.stream.height or 1
        predictor.require_room(video.stream.width, video.stream.height)
        paths = [stack.enter_context(replacing(path)) for path in results.paths(source)]
        writers = [stack.enter_context(_VideoWriter(path, video)) for path in paths]
        at_once = min(os.cpu_count() or 1, 1 + LARGE // pixels)
        pool = stack.enter_context(ThreadPoolExecutor(at_once, initializer=partial(torch.set_num_threads, 1)))
        task = progress.add_task(escape(shown(source.path.name)), total=video.num_frames or None)
        stack.callback(progress.remove_task, task)
        for frames, sound in video.batches(max(1, min(batch_size, 3 * LARGE // pixels))):
            logits = predictor.logits([frame.image for frame in frames]) if frames else []
            finished = list(pool.map(partial(_finish, predictor), frames, zip(*logits, strict=True)))
            for description, _ in finished:
                summary.add(description)
            overlays = [Frame(image, frame.time) for (_, image), frame in zip(finished, frames, strict=True)]
            for writer in writers:
                writer.write(overlays, sound)
            progress.advance(task, len(frames))
    return {**results.row(source, summary.row()), "seconds": round(perf_counter() - begin, 4)}


def _finish(predictor: Predictor, frame: Frame, logits: Sequence[torch.Tensor]) -> tuple[dict[str, Any], Image.Image]:
    prediction = predictor.finish(frame.image, logits)
    return describe(prediction), prediction.overlay


class _Summary:
    """Of the rows of frames one: means of the shares, the box around all boxes, the least confidence."""

    def __init__(self) -> None:
        self.frames, self._row = 0, dict[str, Any]()

    def add(self, row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            before = self._row.get(key)
            if value is None or before is None:
                self._row[key] = before if value is None else value
            elif key.startswith("share_"):
                self._row[key] = before + value
            elif key in ("left", "top", "confidence"):
                self._row[key] = min(before, value)
            elif key in ("right", "bottom"):
                self._row[key] = max(before, value)
        self.frames += 1

    def row(self) -> dict[str, Any]:
        means = {k: round(v / self.frames, 6) for k, v in self._row.items() if k.startswith("share_")}
        return {**self._row, **means, "frames": self.frames}


class _VideoWriter:
    """An MP4 of the times, the sound and the colours' meaning of another video; a context manager.

    Frames of an odd side are written without the usual halving of the colours' resolution, which needs even ones.
    """

    def __init__(self, path: Path, video: VideoFile) -> None:
        import av

        self._video = video
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        name = next(name for name in _ENCODERS if name in av.codecs_available)
        stream = self._container.add_stream(name, rate=video.rate, options=_ENCODERS[name])
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        context, original = self._stream.codec_context, video.stream.codec_context
        context.time_base = max(video.time_base, _FINEST)
        context.colorspace, context.color_range = _BT709, _LIMITED
        context.color_primaries, context.color_trc = original.color_primaries, original.color_trc
        self._sound = None
        if video.sound is not None and video.sound.codec_context.name in self._container.supported_codecs:
            self._sound = self._container.add_stream_from_template(video.sound)

    def __enter__(self) -> "_VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def write(self, frames: Sequence[Frame], sound: Sequence["Packet"]) -> None:
        """Add frames of one size, and packets of the other video's sound."""
        import av

        context = self._stream.codec_context
        for image, time in frames:
            if not context.is_open:
                context.width, context.height = image.size
                context.pix_fmt = "yuv444p" if any(side % 2 for side in image.size) else "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame = frame.reformat(format=context.pix_fmt, dst_colorspace="ITU709")
            frame.pts, frame.time_base = time, self._video.time_base
            self._container.mux(self._stream.encode(frame))
        for packet in sound if self._sound is not None else ():
            packet.stream = self._sound
            self._container.mux(packet)
