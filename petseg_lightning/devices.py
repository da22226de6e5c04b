"""What a device can do, and what it is told before it computes."""

import ctypes
from contextlib import suppress

import torch
from torch import Tensor, nn

from petseg_lightning.errors import InputError

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
BF16_OF_A_CPU = ("avx512_bf16", "amx_bf16")  # instructions for which PyTorch has both passes of a convolution
FEW_CHANNELS = 8  # fewer of them, last in memory, do not fill a vector of a CPU


def lay_channels_last(network: nn.Module) -> None:
    """Order the values of a network's weights, and so those of its features, with the channels last.

    On a CPU, batch normalization of few channels gets them first all the same, which is ten times faster there.
    """
    network.to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.num_features < FEW_CHANNELS:
            layer.register_forward_pre_hook(_channels_first_on_cpu)


def _channels_first_on_cpu(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (features,) = inputs
    return (features.contiguous() if features.device.type == "cpu" else features,)


def keep_freed_memory() -> None:
    """Let the allocator keep what tensors free, instead of giving it back and asking for it at every step.

    The kernel clears each page that it hands out, which takes up to a third of a forward pass on a CPU. Where the C
    library is not glibc, nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Let the allocator give back what it keeps; of large pictures that is as much again as they take."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def has_units_for(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device is known to compute in a short floating-point type by itself; without, it can be very slow."""
    if device.type == "cpu":
        units = torch.cpu.get_capabilities()
        return dtype is torch.bfloat16 and any(units.get(name, False) for name in BF16_OF_A_CPU)
    if device.type == "cuda":
        return dtype is torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def usable_precision(precision: str, device: torch.device) -> str:
    """The precision of a training where the device has units for it, or else 32-true."""
    dtype = AUTOCAST.get(precision)
    return precision if dtype is None or has_units_for(dtype, device) else "32-true"


def require_accelerator(name: str) -> None:
    """Raises InputError where a trainer's accelerator is a GPU and there is none."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(name, True):
        raise InputError(
            f"trainer.accelerator={name}: torch finds no such device here; choose trainer=auto or trainer=cpu, or see "
            "whether nvidia-smi lists a GPU and torch.version.cuda is not None"
        )


def usable_device(name: str) -> str:
    """The device of a name, `auto` for the fastest here. Raises InputError where it cannot be used."""
    if name == "auto":
        return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"device={name} cannot be used here ({reason}); give auto or cpu") from error
    return name
