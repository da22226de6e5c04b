"""OpenVINO's intermediate representation: a .xml of the graph beside a .bin of the weights."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular
from petseg_lightning.inference.backends import onnx
from petseg_lightning.inference.description import read_description
from petseg_lightning.inference.graphs import INPUT, METADATA, contract
from petseg_lightning.plain_files import parse_json, read_bytes
from petseg_lightning.segmenter import Segmenter

PRECISIONS = ("fp32", "fp16", "int8")
_LARGEST_GRAPH = 2**26  # bytes of a .xml
_PROGRAMS = {"If", "Loop", "TensorIterator", "Broadcast", "Tile", "Range", "RandomUniform", "Eye", "OneHot"}


def save(module: Segmenter, path: Path, precision: str = "fp32", images: Iterable[np.ndarray] = ()) -> None:
    """Write a model as OpenVINO's .xml and, beside it, .bin.

    Args:
        module: the trained model, on the CPU.
        path: of the .xml.
        precision: fp32; fp16: the weights; int8: weights and activations, by NNCF.
        images: what int8 is calibrated on, uint8 (B,3,S,S) each.
    """
    import openvino

    with TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.save(module, file)
        model = openvino.convert_model(file)
    if precision == "int8":
        import nncf

        calibration = list(images)
        model = nncf.quantize(model, nncf.Dataset(calibration), subset_size=len(calibration))
    model.set_rt_info(contract(module, precision), METADATA)
    try:
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
    except RuntimeError as error:
        raise InputError(f"{path} cannot be written ({error}): free some space, or choose another out=") from error


@cache
def _core() -> Any:
    """The only one of this process: with one that ends goes a stack on which later signals are handled: a crash."""
    import openvino

    return openvino.Core()


def load(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The function of a model on the CPU, uint8 images (B,3,H,W) -> logits (B,K,H,W), and its description.

    Raises:
        InputError: not a file of this package, or another device than the CPU.
    """

    if device.type != "cpu":
        raise InputError(f"device={device} does not go with OpenVINO here; give device=cpu")
    weights, graph = path.with_suffix(".bin"), read_bytes(path, _LARGEST_GRAPH)
    core = _core()
    try:
        open_regular(weights).close()
        model = core.read_model(path, weights)
        told = model.get_rt_info(METADATA).astype(str)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a model of petseg_lightning, or not a whole one; export it again") from error
    wrong = sorted({one.get_type_name() for one in model.get_ops()} & _PROGRAMS)
    if wrong or b"<!DOCTYPE" in graph:
        raise InputError(f"{path}: its graph has {', '.join(wrong) or 'programs'}; export it again")
    description = read_description(parse_json(told, f"{path}: its metadata"), path)
    if "export" not in description or [len(model.inputs), len(model.outputs)] != [1, 1]:
        raise InputError(f"{path} is not a model of petseg_lightning, or not a whole one; export it again")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if description["export"]["precision"] != "fp16":  # it would use bf16 where the processor has it
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _cannot(path) from error

    def forward(images: Tensor) -> Tensor:
        try:
            return torch.from_numpy(compiled({INPUT: images.contiguous().numpy()})[0].copy())
        except RuntimeError as error:
            raise _cannot(path) from error

    return forward, description


def _cannot(path: Path) -> InputError:
    return InputError(f"{path}: its graph cannot be computed; export it again")
