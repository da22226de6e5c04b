"""ONNX files, computed by ONNX Runtime."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from petseg_lightning.errors import InputError
from petseg_lightning.inference.description import read_description
from petseg_lightning.inference.graphs import INPUT, METADATA, OUTPUT, contract, trace
from petseg_lightning.plain_files import brief, parse_json, read_bytes
from petseg_lightning.segmenter import Segmenter

PRECISIONS = ("fp32", "fp16", "int8")
_OPSET = 20
_LARGEST = 2**31  # bytes of a file
_PROGRAMS = {  # operators that run a graph again and again, or make any amount of data from nothing
    *("If", "Loop", "Scan", "SequenceMap", "ConstantOfShape", "EyeLike", "Expand", "OneHot", "Range", "Tile"),
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def save(module: Segmenter, path: Path, precision: str = "fp32", images: Iterable[np.ndarray] = ()) -> None:
    """Write a model as ONNX.

    Args:
        module: the trained model, on the CPU.
        path: of the file.
        precision: fp32; fp16: weights and arithmetic; int8: 8-bit activations, 7-bit weights per channel, as 8 bits
            overflow on processors without VNNI.
        images: what int8 is calibrated on, uint8 (B,3,S,S) each.
    """
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            trace(module), (), input_names=[INPUT], output_names=[OUTPUT], opset_version=_OPSET, verbose=False
        )
    assert program is not None
    model = program.model_proto
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    model.metadata_props.add(key=METADATA, value=contract(module, precision))
    if precision == "int8":
        _save_int8(model, path, images)
    else:
        path.write_bytes(model.SerializeToString())


def load(path: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The function of an ONNX file, uint8 images (B,3,H,W) -> logits (B,K,H,W), and its description.

    Raises:
        InputError: not a file of this package, one that needs other files or operators, or a device that this ONNX
            Runtime does not know.
    """
    import onnxruntime

    provider = _PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"device={device} is none of this onnxruntime's; give cpu, or install its build for the device"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    content = read_bytes(path, _LARGEST)
    description = read_description(_metadata(content, path), path)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime's own have no common class
        raise _no_export(path) from error
    names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if names != [INPUT, OUTPUT]:
        raise _no_export(path)

    def forward(images: Tensor) -> Tensor:
        try:
            logits = session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0]
        except Exception as error:  # of a graph that does not fit together
            raise InputError(
                f"{path}: its graph cannot be computed ({type(error).__name__}); export it again"
            ) from error
        return torch.from_numpy(logits)

    return forward, description


def _metadata(content: bytes, path: Path) -> Any:
    """What a file says of itself. Raises InputError for one whose graph is more than arithmetic on its own tensors."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _no_export(path) from error
    graph = model.graph
    operators = {(node.domain, node.op_type) for node in graph.node}
    wrong = sorted(name for domain, name in operators if domain not in ("", "ai.onnx") or name in _PROGRAMS)
    nested = any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)
    if wrong or nested or model.functions or model.training_info:
        raise InputError(f"{path}: its graph has {brief(', '.join(wrong) or 'programs')}; export it again")
    constants = (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
    if graph.sparse_initializer or any(one.external_data for one in (*graph.initializer, *constants)):
        raise InputError(f"{path}: its graph has tensors in other files, which are not read; export it again")
    told = [entry.value for entry in model.metadata_props if entry.key == METADATA]
    if len(told) != 1:
        raise _no_export(path)
    return parse_json(told[0], f"{path}: its metadata")


def _no_export(path: Path) -> InputError:
    return InputError(f"{path} is not an ONNX file of petseg_lightning, or not a whole one; export it again")


def _save_int8(model: Any, path: Path, images: Iterable[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    with TemporaryDirectory() as folder:
        whole, prepared = Path(folder, "whole.onnx"), Path(folder, "prepared.onnx")
        whole.write_bytes(model.SerializeToString())
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
