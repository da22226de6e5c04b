"""torch.export's .pt2: the graph without its Python code, but a program all the same.

torch.export.load may run what a file asks it to, in more ways than can be closed here. So `Member.load` asks the user
before it comes here with a file.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular
from petseg_lightning.inference.description import read_description
from petseg_lightning.inference.graphs import METADATA, contract, trace
from petseg_lightning.plain_files import parse_json
from petseg_lightning.segmenter import Segmenter

PRECISIONS = ("fp32",)
_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def save(
    module: Segmenter,
    path: Path,
    precision: str = "fp32",
    images: Iterable[np.ndarray] = (),  # noqa: ARG001
) -> None:
    """Write a model, on the CPU, as .pt2, in fp32."""
    content = BytesIO()  # torch ends the process where it cannot write a file
    torch.export.save(trace(module), content, extra_files={METADATA: contract(module, precision)})
    path.write_bytes(content.getbuffer())


def load(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The function of a .pt2, uint8 images (B,3,H,W) on the CPU -> logits (B,K,H,W), and its description.

    Raises:
        InputError: not a file of this package.
    """
    open_regular(path).close()
    further = {METADATA: ""}
    try:
        with _tensors_only():
            program = torch.export.load(path, extra_files=further)
    except Exception as error:  # of zip, JSON, pickle and torch
        raise InputError(f"{path} is not a .pt2 of petseg_lightning, or not a whole one; export it again") from error
    description = read_description(parse_json(further[METADATA], f"{path}: its metadata"), path)
    network = move_to_device_pass(program, device).module()

    def forward(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images.to(device))

    return forward, description


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.export.load unpickles what a file asks it to; within this nothing but tensors."""
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before
