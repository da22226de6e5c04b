"""ONNX files, computed by ONNX Runtime."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from petseg_lightning.errors import InputError
from petseg_lightning.inference.graphs import INPUT, METADATA, OUTPUT, contract, trace
from petseg_lightning.segmenter import Segmenter

PRECISIONS = ("fp32", "fp16", "int8")
_OPSET = 20
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
        InputError: not a file of this package, or a device that this ONNX Runtime does not know.
    """
    import onnxruntime

    provider = _PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"device={device} is none of this onnxruntime's; give cpu, or install its build for the device"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
        description = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    except Exception as error:  # onnxruntime's own have no common class
        raise InputError(
            f"{path} is not an ONNX file of petseg_lightning, or not a whole one; export it again"
        ) from error

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0])

    return forward, description


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
