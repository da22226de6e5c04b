"""The largest batch that fits."""

import math
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from petseg_lightning.data.dataset import Batch
from petseg_lightning.errors import InputError
from petseg_lightning.module import SegmentationModule

T = TypeVar("T")
SMALLEST = 2  # pictures: batch normalization of one is often an error
PEAK = 2.0  # times what the backward pass needs of the forward pass: gradients, and copies on the way


class BatchSizeFinder:
    """The largest power of two of pictures with which a training step works and leaves memory to spare.

    Lightning's own finder returns its highest size without having tried it, and a CPU has no error for too little
    memory before the system ends the process: here the size is tried, and must also fit by the memory that it needs.

    Args:
        max_batch_size: the highest size that is tried, at least 1.
        memory_share: of the free memory that a training step may take, above 0, 1 at most.
    """

    def __init__(self, max_batch_size: int, memory_share: float) -> None:
        self.max_batch_size, self.memory_share = max_batch_size, memory_share

    def find(self, module: SegmentationModule, image_size: int, pictures: int, device: torch.device) -> int:
        """The size; neither the module nor any state of random numbers is changed.

        Args:
            module: untrained.
            image_size: side of the pictures in pixels.
            pictures: in the training split, more than which no batch holds.
            device: where the training runs.

        Raises:
            InputError: not even the smallest batch fits.
        """

        def step(size: int) -> Tensor:
            return training_step(module, random_batch(size, image_size, len(module.target.part_names)), device)

        found, size = 0, SMALLEST
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            allowed = self.memory_share * free_memory(device)
            kept = _unless_too_large(saved_bytes, partial(step, SMALLEST)) or math.inf
            most = min(self.max_batch_size, pictures, allowed / (PEAK * kept / SMALLEST))
            while size <= most and _unless_too_large(step, size) is not None:
                size, found = 2 * size, size
        if found == 0:
            raise InputError(
                f"find=batch_size: a batch of {SMALLEST} pictures of {image_size} pixels does not fit into the memory, "
                "the training split, or find.batch_size.max_batch_size; give data.batch_size=1, or make one of them "
                "larger"
            )
        return found


def random_batch(batch_size: int, image_size: int, num_parts: int) -> Batch:
    """A batch of noise in the types and memory format of a real one."""
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, image_size, image_size)
    return Batch(
        image=torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2),
        parts=torch.randint(num_parts, size, dtype=torch.uint8, generator=generator),
        index=torch.arange(batch_size),
    )


def training_step(module: SegmentationModule, batch: Batch, device: torch.device) -> Tensor:
    """The loss of one optimizer step of a copy of the module, in fp32, which takes more memory than a short type."""
    copy = deepcopy(module).to(device)
    on_device: Batch = {key: value.to(device) for key, value in batch.items()}  # type: ignore[attr-defined, assignment]
    assert copy.build_optimizer is not None
    optimizer = copy.build_optimizer(copy.parameters())
    getattr(optimizer, "train", lambda: None)()  # of a schedule-free one
    loss = copy.training_loss(on_device)
    loss.backward()
    optimizer.step()
    return loss


def _unless_too_large(action: Callable[..., T], *arguments: Any) -> T | None:
    """What the action returns; None where the memory is not enough for it."""
    try:
        return action(*arguments)
    except RuntimeError as error:
        if not is_oom_error(error):
            raise
        return None
    finally:
        garbage_collection_cuda()


def saved_bytes(step: Callable[[], Tensor]) -> int:
    """The bytes that the backward pass of a training step keeps of its forward pass."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values())


def free_memory(device: torch.device) -> float:
    """Bytes that a process may still take; infinite where the system does not say it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [math.inf]
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # of a container; "max" is no number
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free)
