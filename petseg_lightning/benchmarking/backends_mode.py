"""A trained model on every backend: latency, rate, memory and size, each backend in a process of its own."""

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from petseg_lightning.exporting.run import CALIBRATED, drawn_pictures
from petseg_lightning.inference.checkpoint import find_model, load_module
from petseg_lightning.inference.exported import FILES, runtime
from petseg_lightning.quiet import quiet_libraries

EAGER = "pytorch"  # the model as Python runs it, in fp32: what all others are compared with
_REPEATS = 5  # of a batch in a round


def measure_backends(cfg: DictConfig) -> dict[str, Any]:
    """Rows of backend, precision, batch size and input size with what they cost, measured in turns.

    Args:
        cfg: what conf/benchmark.yaml composes to, with a `ckpt`.

    Raises:
        InputError: no model, or packages that are not here.
    """
    path = find_model(cfg.ckpt)
    module, rows = load_module(path), []
    stored = module.description["preprocessing"]["image_size"]
    sizes = [stored] if cfg.input_sizes is None else list(cfg.input_sizes)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        files: dict[tuple[str, str], Path] = {(EAGER, "fp32"): path}
        for name in cfg.backends:
            backend = runtime(name)
            for precision in (one for one in cfg.precisions if one in backend.PRECISIONS):
                file = files[name, precision] = Path(folder, precision, FILES[name])
                file.parent.mkdir(exist_ok=True)
                backend.save(module, file, precision, _calibration(stored) if precision == "int8" else [])
        workers = {key: stack.enter_context(_worker(key[0], file)) for key, file in files.items()}
        for size in sizes:
            for batch_size in cfg.batch_sizes:
                seconds: dict[tuple[str, str], list[float]] = {key: [] for key in workers}
                for _ in range(cfg.rounds):
                    for key, ask in workers.items():
                        seconds[key] += ask((batch_size, size))
                for key, ask in workers.items():
                    milliseconds, eager = (1e3 * np.array(seconds[one]) for one in (key, (EAGER, "fp32")))
                    rows.append(
                        {
                            "backend": key[0],
                            "precision": key[1],
                            "batch_size": batch_size,
                            "input_size": size,
                            "median_ms": float(np.median(milliseconds)),
                            "p95_ms": float(np.quantile(milliseconds, 0.95)),
                            "images_per_second": float(1e3 * batch_size / np.median(milliseconds)),
                            "speedup": float(np.median(eager) / np.median(milliseconds)),
                            "peak_memory_mib": ask(None)[0],
                            "model_mb": _megabytes(files[key]),
                        }
                    )
    network = type(module.network).__name__
    return {"model": network, "threads": torch.get_num_threads(), "rows": rows}


@contextmanager
def _worker(name: str, file: Path) -> Iterator[Any]:
    """A process that has a model and answers (batch size, input size) with seconds, and None with its peak MiB."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, name, file, torch.get_num_threads()), daemon=True)
    process.start()

    def ask(question: tuple[int, int] | None) -> list[Any]:
        here.send(question)
        return here.recv()

    try:
        yield ask
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, name: str, file: Path, threads: int) -> None:
    quiet_libraries()
    torch.set_num_threads(threads)
    forward: Any = load_module(file) if name == EAGER else runtime(name).load(file, torch.device("cpu"))[0]
    random, warm = np.random.default_rng(0), set()
    while True:
        question = pipe.recv()
        if question is None:
            pipe.send([_peak_memory()])
            continue
        batch_size, size = question
        images = torch.from_numpy(random.integers(0, 256, (batch_size, 3, size, size), np.uint8))
        seconds = []
        with torch.inference_mode():
            for _ in range(_REPEATS + (question not in warm)):
                begin = perf_counter()
                forward(images)
                seconds.append(perf_counter() - begin)
        warm.add(question)
        pipe.send(seconds[-_REPEATS:])


def _peak_memory() -> int | None:
    """MiB of this process alone (getrusage remembers what it was forked from); None where the system has no /proc."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return None if found is None else round(int(found[1]) / 2**10)


def _calibration(size: int) -> list[np.ndarray]:
    """Drawn pictures, uint8 (1,3,S,S): speed does not depend on what is drawn."""
    return [picture.transpose(2, 0, 1)[None] for picture in drawn_pictures(CALIBRATED // 8, size)]


def _megabytes(file: Path) -> float:
    files = [file] if file.is_file() else list(file.iterdir())
    files += [file.with_suffix(".bin")] if file.suffix == ".xml" else []
    return round(sum(one.stat().st_size for one in files) / 1e6, 2)
