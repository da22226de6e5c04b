"""The shortest training loop, in this process or in one of its own; imports torch and no more, as a script would."""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE = 255  # mask value that counts for nothing


class PlainLoop:
    """The shortest loop that trains the same network, over normalized float tensors in memory on the device.

    Args:
        network: which is copied.
        images: normalized float (N,3,S,S).
        masks: int64 (N,S,S).
        optimizer: parameters -> optimizer.
        batch_size: B.
        device: where.
        dtype: of autocast; None: float32.
        channels_last: of the network's weights.
        compiled: whether the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        masks: Tensor,
        optimizer: Callable[..., torch.optim.Optimizer],
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = deepcopy(network).to(device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        if compiled:
            self.network.compile(dynamic=False)
        self.images, self.masks, self.batch_size = images.to(device), masks.to(device), batch_size
        self.device, self.dtype = device, dtype
        self.optimizer = optimizer(self.network.parameters())
        getattr(self.optimizer, "train", lambda: None)()  # of a schedule-free one

    def steps(self, batches: int) -> int:
        """So many steps on batches in a new order; returns the number of images."""
        order = torch.randperm(len(self.images), device=self.device).split(self.batch_size)
        taken = list(islice(cycle(order), batches))
        for indices in taken:
            self._step(self.images[indices], self.masks[indices])
        self._synchronize()
        return sum(map(len, taken))

    def steps_on_one(self, batches: int) -> int:
        """So many steps on the first batch: the network alone. Returns the number of images."""
        images, masks = self.images[: self.batch_size], self.masks[: self.batch_size]
        for _ in range(batches):
            self._step(images, masks)
        self._synchronize()
        return batches * len(images)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _step(self, images: Tensor, masks: Tensor) -> None:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), masks, ignore_index=IGNORE)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class PlainProcess:
    """A plain loop in a process of its own, which has the memory allocator as a script of its own would have it.

    `arguments` are those of `PlainLoop`.
    """

    def __init__(self, *arguments: Any) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self._pipe, others = context.Pipe()
        self._process = context.Process(target=_serve, args=(others, torch.get_num_threads(), arguments), daemon=True)
        self._process.start()
        others.close()

    def steps(self, batches: int) -> int:
        """As those of the loop."""
        self._pipe.send(batches)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, threads: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    loop = PlainLoop(*arguments)
    with suppress(EOFError):
        while True:
            pipe.send(loop.steps(pipe.recv()))
