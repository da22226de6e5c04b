"""How the arithmetic of a training is done: precision, memory format, compilation; chosen by what the device can do."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from petseg_lightning.devices import has_units_for, keep_freed_memory, lay_channels_last
from petseg_lightning.errors import InputError
from petseg_lightning.module import SegmentationModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """One way to do the arithmetic. The default is the plain one."""

    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        order = "last" if self.channels_last else "first"
        return f"{self.precision}, channels {order}, {'compiled' if self.compile else 'eager'}"


def choose(wanted: Mapping[str, Any], device: torch.device) -> Compute:
    """What a training should use, said in one line of the log.

    It depends on the arguments and on what the device can do, on nothing else: not on the model, the length of the
    training, or how busy the machine is.

    Args:
        wanted: `precision` and `channels_last`, each a value or "auto"; `compile`.
        device: where the training runs.

    Raises:
        InputError: `compile` is asked for and does not work here.
    """
    if wanted["compile"]:
        _require_compiler(device)
    by_rule = asdict(by_capability(device))
    chosen = Compute(**{key: value if wanted[key] == "auto" else wanted[key] for key, value in by_rule.items()})
    log.info("Compute: %s", chosen)
    return chosen


def by_capability(device: torch.device) -> Compute:
    """The short type of 16 bits that the device has units for, channels last; fp32 where it is not known to have them.

    docs/compute.md has the rule as a table.
    """
    if device.type not in ("cpu", "cuda"):
        return Compute()
    short = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
    precision = next((name for dtype, name in short.items() if has_units_for(dtype, device)), "32-true")
    return Compute(precision, channels_last=True)


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


def _require_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"compute.compile=true: torch.compile does not work here ({first}); install a C++ compiler, or leave it "
            "out with compute.compile=false"
        ) from error
