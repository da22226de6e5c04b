"""Trained models on disk, loaded without executing anything from the file."""

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular, replacing
from petseg_lightning.inference.bundle import is_bundle, read_bundle, require_golden
from petseg_lightning.inference.description import network_class, read_description, require_own_data, target_of
from petseg_lightning.inference.exported import find_export
from petseg_lightning.segmenter import CHECKPOINT_KEY, Segmenter

BUILTIN = "builtin"  # the name of the model in the box: a small U-Net, its card says more
BUILTIN_FOLDER = Path(__file__).parents[1] / "builtin"
_LARGEST_PICKLE = 2**23  # bytes of what a checkpoint holds beside tensors
_PICKLED = re.compile(  # what makes tensors and plain values; torch would also make a bytearray of any size
    r"collections (OrderedDict|defaultdict|Counter)|_codecs encode|builtins (set|complex)|torch Size|torch device"
    r"|torch (\w+Storage|u?int\d+|b?float\d+|bool)|torch\.storage \w+Storage|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor_v2|tensor_v3|parameter)"
)
_LARGEST_LISTING = 2**24  # bytes in which a zip names its files
_SPARE_TENSORS = 1000  # that a network may have while it is built, beyond those of its file
_SPARE_BYTES = 2**28  # of buffers that no file holds
_PROBE = 64  # pixels, the side of the picture that a model is tried on


def find_checkpoint(path: str | Path, name: str = "best.ckpt") -> Path:
    """The checkpoint file of a run folder, or the file itself. Raises InputError where there is none."""
    path = Path(path)
    checkpoint = path / "checkpoints" / name if path.is_dir() else path
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint at {checkpoint.absolute()}; give a .ckpt file or the folder of a training run")
    return checkpoint


def find_model(path: str | Path) -> Path:
    """The folder of a bundle (`builtin`: the one in the box), the file of an export, or a checkpoint, best of its run.

    Raises:
        InputError: nothing there.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"ckpt={path}: one model is meant here; several are an ensemble in petseg predict and evaluate"
        )
    if str(path) == BUILTIN:
        return BUILTIN_FOLDER
    if get_close_matches(str(path), [BUILTIN]) and not Path(path).exists():
        raise InputError(f"ckpt={path} is not there, did you mean ckpt={BUILTIN}?")
    if is_bundle(path):
        return Path(path)
    export = find_export(path)
    return find_checkpoint(path) if export is None else export[1]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint of this package, on the CPU, its description checked and its tensors mapped.

    Raises:
        InputError: any other file; one whose tensors have more values than the file can hold, or that says more than
            tensors and plain values.
    """
    try:
        size = _require_plain_pickle(path)
        with warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except Exception as error:  # whatever zipfile and torch meet in the bytes of another file
        raise _no_checkpoint(path) from error
    if not isinstance(checkpoint, dict) or not {CHECKPOINT_KEY, "state_dict"} <= checkpoint.keys():
        raise _no_checkpoint(path)
    _require_dense(checkpoint["state_dict"], size, path)
    checkpoint[CHECKPOINT_KEY] = read_description(checkpoint[CHECKPOINT_KEY], path, own_data=False)
    return checkpoint


def add_to_description(path: Path, further: Mapping[str, Any]) -> None:
    """Write a checkpoint again, whole or not at all, with more plain values in its description."""
    checkpoint = read_checkpoint(path)
    checkpoint[CHECKPOINT_KEY] |= further
    write_checkpoint(path, checkpoint)


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any], previous: Path | None = None) -> None:
    """Write a checkpoint, whole and on the disk or not at all; the one that was there is kept as `previous`."""
    buffer = BytesIO()
    torch.save(checkpoint, buffer)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)


def build_network(model: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network of a config, `_target_` and arguments. Raises InputError for a class that is not in our models."""
    arguments = {key: value for key, value in model.items() if key != "_target_"}
    return network_class(model["_target_"])(num_classes=num_classes, **arguments)


def load_module(path: str | Path) -> Segmenter:
    """A trained model for evaluation or prediction, on the CPU, from a checkpoint, a run folder or a bundle.

    Raises:
        InputError: nothing there, or nothing that can be used; a bundle that was changed, or does not reproduce.
    """
    path = find_model(path)
    if find_export(path) is not None:
        raise InputError(
            f"{path} is an export, without the network itself; give the checkpoint or bundle it was made of"
        )
    if is_bundle(path):
        module = _model(path, *read_bundle(path))
        require_golden(path, module)
        return module
    checkpoint = read_checkpoint(path)
    weights = {name.removeprefix("network."): tensor for name, tensor in checkpoint["state_dict"].items()}
    return _model(path, checkpoint[CHECKPOINT_KEY], weights)


def _model(path: Path, description: dict[str, Any], weights: dict[str, Tensor]) -> Segmenter:
    require_own_data(description, path)
    target = target_of(description)
    try:
        with _on_meta(len(weights) + _SPARE_TENSORS):
            plan = build_network(description["model"], len(target.class_names))
        _require_fit(plan, weights)
        network = build_network(description["model"], len(target.class_names))
        network.load_state_dict(weights)
    except (InputError, RuntimeError, OverflowError) as error:  # the latter two: sizes that no tensor can have
        raise InputError(
            f"{path} does not fit this version of petseg_lightning ({' '.join(str(error).split())[:500]}); "
            f"use the version that wrote it ({description.get('version', 'unknown')})"
        ) from error
    preprocessing = {key: description["preprocessing"][key] for key in ("mean", "std")}
    module = Segmenter(network, target, description=description, **preprocessing).eval()
    _require_finite(path, module)
    return module


@contextmanager
def _on_meta(most: int) -> Iterator[None]:
    """Within this, tensors have a shape and no memory. Raises InputError where a module gets more of them than that."""
    count = 0

    def counted(module: nn.Module, name: str, tensor: Any) -> None:  # noqa: ARG001
        nonlocal count
        count += 1
        if count > most:
            raise InputError(f"its network has more than {most:,} tensors, far more than the file")

    register = nn.modules.module.register_module_parameter_registration_hook
    hook = register(counted)
    try:
        with torch.device("meta"), _RangesOnCPU():
            yield
    finally:
        hook.remove()


class _RangesOnCPU(TorchFunctionMode):
    """Some networks read the numbers of a range while they are built."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**({"device": "cpu"} if func is torch.linspace else {}), **(kwargs or {})})


def _require_fit(plan: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises InputError where a network has other tensors than a file, before it takes memory."""
    wanted = plan.state_dict()
    wrong = [
        f"{name}: {_shape(weights.get(name))} there, {_shape(wanted.get(name))} here"
        for name in {**wanted, **weights}
        if _shape(weights.get(name)) != _shape(wanted.get(name))
    ]
    if wrong:
        raise InputError(f"{len(wrong)} tensors are not those of its network ({'; '.join(wrong[:3])})")
    buffers = sum(tensor.numel() * tensor.element_size() for tensor in plan.buffers())
    if buffers > _SPARE_BYTES:
        raise InputError(f"its network has buffers of {buffers:,} bytes")


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else " x ".join(map(str, tensor.shape)) or "one number"


def _require_finite(path: Path, module: Segmenter) -> None:
    """Raises InputError for a model that cannot say anything, because a weight or what follows from it is no number."""
    broken = [
        name
        for name, tensor in module.network.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    multiple = getattr(module.network, "multiple", 1)
    side = max(getattr(module.network, "smallest", 0), -(-_PROBE // multiple) * multiple)
    images = torch.arange(3 * side * side, dtype=torch.int32).mul_(37).to(torch.uint8).view(1, 3, side, side)
    with torch.inference_mode():
        if not broken and torch.isfinite(module(images)).all():
            return
    where = f"{broken[0]} holds NaN or infinity" if broken else "they give no finite logits"
    raise InputError(f"{path}: its weights are damaged ({where}); get it again, or take an earlier checkpoint")


def _require_plain_pickle(path: Path) -> int:
    """The size of a file of `torch.save` whose entries are no larger than it and that makes nothing but plain values.

    Raises:
        InputError, and whatever zipfile and pickletools raise: another one.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(-min(size, 2**16 + 22), 2)
        _, _, end = file.read().rpartition(b"PK\x05\x06")
        if len(end) < 12 or int.from_bytes(end[8:12], "little") > _LARGEST_LISTING:
            raise _no_checkpoint(path)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if (
                len(pickles) != 1
                or pickles[0].file_size > _LARGEST_PICKLE
                or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
                or sum(entry.file_size for entry in entries) > size
            ):
                raise _no_checkpoint(path)
            if archive.testzip() is not None:  # of the checksums, which torch does not look at
                raise InputError(f"{path} was damaged after it was written; get it again, or give another checkpoint")
            content = archive.read(pickles[0])
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
            opcode.name == "GLOBAL" and not _PICKLED.fullmatch(str(argument))
        ):
            raise _no_checkpoint(path)
    return size


def _require_dense(state: Any, size: int, path: Path) -> None:
    """Raises InputError where the tensors of a file are not all there, each with values of its own."""
    if not isinstance(state, dict) or not all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        for name, tensor in state.items()
    ):
        raise _no_checkpoint(path)
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > size:
        raise InputError(f"{path}: its tensors have more values than the file; get it again")


def _no_checkpoint(path: Path) -> InputError:
    return InputError(
        f"{path} is not a checkpoint of petseg_lightning, or not a whole one; give a .ckpt file that its training wrote"
    )
