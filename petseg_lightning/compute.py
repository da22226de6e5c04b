"""How the arithmetic of a training is done: precision, memory format, compilation; chosen by measuring."""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from petseg_lightning.data.dataset import Batch
from petseg_lightning.devices import (
    AUTOCAST,
    device_name,
    has_units_for,
    keep_freed_memory,
    lay_channels_last,
    synchronize,
)
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json
from petseg_lightning.module import SegmentationModule

log = logging.getLogger(__name__)

WORTH_MEASURING = 200  # steps; a shorter training is over before a choice has paid
WORTH_COMPILING = 600.0  # seconds of training, since compiling takes up to one minute
MIN_GAIN = 1.1  # how many times faster than the plain way another one must be
X86 = ("x86_64", "AMD64")
CPU_BATCH = 4  # pictures: per picture as fast as more of them, and measured sooner


@dataclass(frozen=True)
class Compute:
    """One way to do the arithmetic. The default is the plain one."""

    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        order = "last" if self.channels_last else "first"
        return f"{self.precision}, channels {order}, {'compiled' if self.compile else 'eager'}"


def choose(
    wanted: Mapping[str, Any],
    module: SegmentationModule,
    batch: Batch,
    device: torch.device,
    *,
    steps: int,
    processes: int = 1,
) -> Compute:
    """What a training should use, said in one line of the log with the reason.

    Args:
        wanted: `precision`, `channels_last` and `compile`, each a value or "auto".
        module: untrained; it is not changed.
        batch: on the CPU, of the size and type that the training has.
        device: where the training runs.
        steps: of the whole training.
        processes: that train together.

    Raises:
        InputError: `compile` is asked for and does not work here.
    """
    keep_freed_memory()
    fixed = {key: wanted[key] for key in ("precision", "channels_last", "compile") if wanted[key] != "auto"}
    plain = Compute(**fixed)
    if wanted["compile"] is True:
        _require_compiler(device)
    if len(fixed) == 3 or plain.precision not in AUTOCAST:
        chosen, reason = plain, "as configured"
    elif processes > 1:
        precision = _by_capability(device) if device.type == "cuda" else "32-true"  # few CPUs are faster in bf16
        chosen = Compute(**{"precision": precision, "channels_last": True, **fixed})
        reason = "by the device's abilities, as every process must choose the same"
    elif steps < WORTH_MEASURING:
        chosen, reason = plain, f"a training of {steps} steps is too short to measure what is faster"
    else:
        chosen, reason = _measured(plain, fixed, module, batch, device, steps)
    log.info("Compute: %s (%s)", chosen, reason)
    return chosen


def random_batch(batch_size: int, image_size: int, num_parts: int) -> Batch:
    """A batch of noise in the types and memory format of a real one."""
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, image_size, image_size)
    return Batch(
        image=torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2),
        parts=torch.randint(num_parts, size, dtype=torch.uint8, generator=generator),
        index=torch.arange(batch_size),
    )


def use(module: SegmentationModule, compute: Compute, batch_size: int, *, tf32: bool) -> None:
    """Prepare the module and the libraries for it. The precision is the trainer's part."""
    keep_freed_memory()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it costs time, and nothing here reads such memory
    if compute.channels_last:
        lay_channels_last(module.network)
    if compute.compile:
        module.compile_training(batch_size)


def _measured(
    plain: Compute, fixed: Mapping[str, Any], module: SegmentationModule, batch: Batch, device: torch.device, steps: int
) -> tuple[Compute, str]:
    """The fastest way, and why; measured once for a machine, a model and a size, then remembered."""
    long = steps * len(batch["image"])
    key = _key(fixed, module, batch, device, long)
    known, when = _recall(key), "measured earlier"
    if known is None:
        log.info("Measuring what is fastest here, once for this machine, model and size; a wide model takes a minute")
        known, when = _measure(plain, fixed, module, batch, device, long), "measured now"
        _remember(key, known)
    chosen, gain = Compute(**known["chosen"]), known["gain"]
    return chosen, f"{when}: {gain:.2f} times {plain}" if chosen != plain else f"{when}: nothing else is clearly faster"


def _measure(
    plain: Compute,
    fixed: Mapping[str, Any],
    module: SegmentationModule,
    batch: Batch,
    device: torch.device,
    images: int,
) -> dict[str, Any]:
    """The fastest way to train on so many images, and how many times faster than the plain one it is."""
    few = batch if device.type != "cpu" else _first(batch, CPU_BATCH)
    precisions = dict.fromkeys([plain.precision] if "precision" in fixed else [plain.precision, _by_capability(device)])
    orders = [plain.channels_last] if "channels_last" in fixed else [False, True]
    rates = _rates([Compute(*way) for way in product(precisions, orders)], module, few, device)
    base = next(iter(rates))
    best = max(rates, key=lambda way: rates[way])
    chosen = best if rates[best] > MIN_GAIN * rates[base] else base
    gain = rates[chosen] / rates[base]
    if "compile" in fixed:
        chosen = replace(chosen, compile=plain.compile)
    elif images / rates[chosen] > WORTH_COMPILING:
        compiled = replace(chosen, compile=True)
        try:
            pair = _rates([chosen, compiled], module, batch, device)
        except Exception as error:  # whatever a compiler raises that is missing or fails
            log.info("torch.compile does not work here: %s", str(error).strip().partition("\n")[0])
        else:
            if pair[compiled] > MIN_GAIN * pair[chosen]:
                chosen, gain = compiled, gain * pair[compiled] / pair[chosen]
    return {"chosen": asdict(chosen), "gain": round(gain, 2)}


def _rates(
    ways: list[Compute], module: SegmentationModule, batch: Batch, device: torch.device, rounds: int = 5
) -> dict[Compute, float]:
    """Pictures per second of whole optimizer steps: the best of `rounds`, in turn, after a warm-up."""
    steps = {way: training_step(module, way, batch, device) for way in ways}
    seconds: dict[Compute, list[float]] = {way: [] for way in ways}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(1 + rounds):
            for way, step in steps.items():
                begin = perf_counter()
                step()
                synchronize(device)
                seconds[way].append(perf_counter() - begin)
    return {way: len(batch["image"]) / min(times[1:]) for way, times in seconds.items()}


def training_step(
    module: SegmentationModule, compute: Compute, batch: Batch, device: torch.device
) -> Callable[[], Tensor]:
    """A function that does one optimizer step of a copy of the module, always on this batch, and returns the loss."""
    copy = deepcopy(module).to(device)
    if compute.channels_last:
        lay_channels_last(copy.network)
    if compute.compile:
        copy.compile_training(len(batch["image"]))
    on_device: Batch = {key: value.to(device) for key, value in batch.items()}  # type: ignore[attr-defined, assignment]
    assert copy.build_optimizer is not None
    optimizer = copy.build_optimizer(copy.parameters())
    getattr(optimizer, "train", lambda: None)()  # of a schedule-free one
    dtype = AUTOCAST[compute.precision]
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def step() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = copy.training_loss(on_device)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step


def _by_capability(device: torch.device) -> str:
    """The fastest precision that the device has units for.

    Of a CPU that is no x86 it is not known, but measured; one that is emulates without units, at many times the cost.
    """
    if device.type == "cuda":
        return "bf16-mixed" if has_units_for(torch.bfloat16, device) else "16-mixed"
    may_be_fast = has_units_for(torch.bfloat16, device) or platform.machine() not in X86
    return "bf16-mixed" if device.type == "cpu" and may_be_fast else "32-true"


def _first(batch: Batch, number: int) -> Batch:
    return {key: value[:number] for key, value in batch.items()}  # type: ignore[index, return-value]


def _require_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"compute.compile=true: torch.compile does not work here ({first}); install a C++ compiler, or leave it "
            "out with compute.compile=false"
        ) from error


def _key(fixed: Mapping[str, Any], module: SegmentationModule, batch: Batch, device: torch.device, images: int) -> str:
    """What a measurement depends on. Of the length, on which compiling depends, only its power of two."""
    parts = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": str(module.network),
        "loss": str(module.loss),
        "image": list(batch["image"].shape),
        "images": images.bit_length(),
        "fixed": dict(fixed),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _store() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petseg_lightning" / "compute.json"


def _recall(key: str) -> dict[str, Any] | None:
    try:
        known = json.loads(_store().read_text("utf-8"))[key]
        Compute(**known["chosen"])
        return known if known["gain"] > 0 else None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        return None


def _remember(key: str, known: dict[str, Any]) -> None:
    """Add to what is stored; a home that is not there or cannot be written only means measuring again."""
    with suppress(OSError, RuntimeError):  # of a user without a home, or of a file system without locks
        store = _store()
        store.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{store}.lock"):
            try:
                content = dict(json.loads(store.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                content = {}
            write_json(store, {**content, key: known})
