"""From files of pictures to a folder of results."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from petseg_lightning.config import plain
from petseg_lightning.data.picture_file import picture_size, read_image
from petseg_lightning.devices import give_back_freed_memory, usable_device
from petseg_lightning.errors import InputError
from petseg_lightning.inference.bundle import WEIGHTS, is_bundle
from petseg_lightning.inference.checkpoint import find_model
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.sources import Source, find_pictures
from petseg_lightning.predicting.results import KINDS, LARGE, Results, left_out, review_advice, shown
from petseg_lightning.predicting.video import predict_videos

NAMED = 3  # unreadable pictures that the last line names
ROOM = 3 * LARGE  # pixels of the pictures in a batch, of which up to three are in memory


def predict(cfg: DictConfig) -> list[dict[str, Any]]:
    """Predict the pictures of `cfg.source` into the folder `cfg.output`; what is there already is left as it is.

    Args:
        cfg: what conf/predict.yaml composes to.

    Returns:
        A row for each picture, as in predictions.json.

    Raises:
        InputError: no model or pictures, a folder with other results; after all others are done, pictures that cannot
            be read.
    """
    output, console = Path(cfg.output), Console(force_jupyter=False)  # its widgets need a package
    values = plain(cfg)
    models = [find_model(path) for path in (values["ckpt"] if isinstance(values["ckpt"], list) else [values["ckpt"]])]
    sources = find_pictures(values["source"], output)
    predictor = Predictor.load(
        *models,
        device=usable_device(cfg.device),
        tta=cfg.tta,
        tiling=cfg.tiling,
        backend=cfg.backend,
        trust_code=cfg.trust_code,
    )
    settings = {
        "models": [_digest(path) for path in models],
        "classes": list(predictor.class_names),
        "tta": cfg.tta,
        "tiling": cfg.tiling,
    }
    failed: list[str] = []
    with _alone(output):
        results = Results(output, [kind for kind in KINDS if cfg[kind]], settings, overwrite=cfg.overwrite)
        todo = [source for source in sources if not results.has(source)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console) as progress:
                bar = progress.add_task("Predicting", total=len(todo))
                pictures, videos = ([source for source in todo if source.is_video is kind] for kind in (False, True))
                outcomes = _outcomes(predictor, pictures, results, cfg.batch_size, cfg.max_megapixels * 1e6)
                of_videos = predict_videos(
                    predictor, videos, results, cfg.batch_size, cfg.max_megapixels * 1e6, progress
                )
                for outcome in chain(outcomes, of_videos):
                    if isinstance(outcome, InputError):
                        failed.append(shown(str(outcome)))
                    else:
                        results.add(outcome)
                    progress.advance(bar)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"what is done is in {output}, and the same command goes on from there") from error
        finally:  # also of what was done before the disk was full
            rows = results.write_tables(sources, predictor.forecast)
    noun = "file" if any(source.is_video for source in sources) else "picture"
    _print_end(console, rows, noun, len(rows) - (len(todo) - len(failed)), failed, output)
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise InputError(f"{len(failed)} of {len(sources)} {noun}s are missing: {'; '.join(failed[:NAMED])}{more}")
    return rows


_Outcome = dict[str, Any] | InputError  # a row for a picture whose files are written, or why they are not


class _Batch(NamedTuple):
    """Pictures that are in the network at once, how many pixels they have, and what was refused before them."""

    sources: list[Source]
    pixels: int
    refused: list[InputError]


def _batches(
    predictor: Predictor, sources: Sequence[Source], results: Results, batch_size: int, max_pixels: float
) -> Iterator[_Batch]:
    """Batches of at most `batch_size` pictures, and of fewer where they are large."""
    batch = _Batch([], 0, [])
    for source in sources:
        try:
            size = width, height = picture_size(source.path, max_pixels=max_pixels)
            predictor.require_room(*size)
            results.require_room(*size)
        except InputError as error:
            batch.refused.append(error if str(source.path) in str(error) else InputError(f"{source.path}: {error}"))
            continue
        if batch.sources and (len(batch.sources) == batch_size or batch.pixels + width * height > ROOM):
            yield batch
            batch = _Batch([], 0, [])
        batch = _Batch([*batch.sources, source], batch.pixels + width * height, batch.refused)
    yield batch


def _outcomes(
    predictor: Predictor, sources: Sequence[Source], results: Results, batch_size: int, max_pixels: float
) -> Iterator[_Outcome]:
    """A row for each picture whose files are written, an error for each that cannot be predicted.

    While the network has a batch, threads read the next one and write the last one; no more is in memory, and beside
    a very large picture nothing.
    """
    pool = ThreadPoolExecutor(os.cpu_count(), initializer=partial(torch.set_num_threads, 1))
    one_by_one = Lock()

    def read(batch: _Batch) -> list[Future[Image.Image | InputError]]:
        return [pool.submit(_read, source, max_pixels) for source in batch.sources]

    def write(batch: _Batch, pictures: Sequence[Image.Image | InputError]) -> list[InputError | Future[_Outcome]]:
        pairs = [(s, image) for s, image in zip(batch.sources, pictures, strict=True) if isinstance(image, Image.Image)]
        return [image for image in pictures if isinstance(image, InputError)] + [
            logits
            if isinstance(logits, InputError)
            else pool.submit(_write, predictor, results, source, image, logits, seconds, one_by_one)
            for source, image, logits, seconds in _logits(predictor, pairs)
        ]

    try:
        reading: list[Future[Image.Image | InputError]] = []
        writing: list[InputError | Future[_Outcome]] = []
        batches = _batches(predictor, sources, results, batch_size, max_pixels)
        for batch, following in pairwise(chain(batches, (_Batch([], 0, []),))):
            yield from batch.refused
            overlap = max(batch.pixels, following.pixels) <= ROOM
            pictures = [future.result() for future in reading or read(batch)]
            reading = read(following) if overlap else []
            finished, writing = writing, write(batch, pictures)
            del pictures
            yield from map(_outcome, finished)
            if not overlap:
                yield from map(_outcome, writing)
                writing = []
                give_back_freed_memory()
        yield from map(_outcome, writing)
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(written: InputError | Future[_Outcome]) -> _Outcome:
    return written if isinstance(written, InputError) else written.result()


def _logits(
    predictor: Predictor, pairs: Sequence[tuple[Source, Image.Image]]
) -> Iterator[tuple[Source, Image.Image, list[Tensor] | InputError, float]]:
    """Each picture with the logits of its windows, and the seconds that they took; what fails together, one by one."""
    begin = perf_counter()
    try:
        found = predictor.logits([image for _, image in pairs]) if pairs else []
    except Exception as error:
        if len(pairs) > 1:
            for pair in pairs:
                yield from _logits(predictor, [pair])
        else:
            source, image = pairs[0]
            yield source, image, left_out(source.path, error), 0.0
        return
    seconds = (perf_counter() - begin) / max(len(pairs), 1)
    for index, (source, image) in enumerate(pairs):
        yield source, image, [one[index] for one in found], seconds


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Raises InputError where another process is writing there."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", blocking=False):
            yield
    except Timeout as error:
        raise InputError(f"another petseg predict is writing into {output}; wait, or give another output=") from error


def _read(source: Source, max_pixels: float) -> Image.Image | InputError:
    try:
        return read_image(source.path, max_pixels=max_pixels)
    except InputError as error:
        return error


def _write(
    predictor: Predictor,
    results: Results,
    source: Source,
    image: Image.Image,
    logits: Sequence[Tensor],
    seconds: float,
    one_by_one: Lock,
) -> _Outcome:
    """Write the results of a picture; its row, with the seconds that it took in all."""
    with one_by_one if image.width * image.height > LARGE else nullcontext():
        begin = perf_counter()
        try:
            row = results.write(source, predictor.finish(image, logits))
        except Exception as error:
            return left_out(source.path, error)
        return {**row, "seconds": round(seconds + perf_counter() - begin, 4)}


def _digest(path: Path) -> str:
    """What tells a model from another: of the file with its weights."""
    weights = path / WEIGHTS if is_bundle(path) else path.with_suffix(".bin") if path.suffix == ".xml" else path
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except FileNotFoundError as error:
        raise InputError(f"{weights} is missing; get the model again") from error


class _Rate(ProgressColumn):
    """Pictures per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} pictures/s", style="progress.data.speed")


def _print_end(
    console: Console, rows: list[dict[str, Any]], noun: str, before: int, failed: list[str], output: Path
) -> None:
    there = f", {before:,} of them before" if before else ""
    console.print(f"{len(rows):,} {noun}{'' if len(rows) == 1 else 's'} predicted{there}", highlight=False)
    for message in failed[NAMED:]:  # the error after this names the first
        console.print(f"left out  {message}", soft_wrap=True, highlight=False, markup=False)
    if rows:
        least = sorted(rows, key=lambda row: row["confidence"])[:NAMED]
        names = ", ".join(f"{shown(row['name'])} ({row['confidence']:.2f})" for row in least)
        console.print(
            f"least sure  {names}; review.csv has all in this order", soft_wrap=True, highlight=False, markup=False
        )
        advice = review_advice(rows) or "how many are bad is not foretold for this model with these options"
        console.print(f"review  {advice}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"results  {output}", soft_wrap=True, highlight=False, markup=False)
