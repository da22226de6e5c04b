"""Trained models on disk, loaded without executing anything from the file."""

import pickle
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from petseg_lightning.data.targets import Target
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing
from petseg_lightning.inference.bundle import is_bundle, read_bundle, require_golden
from petseg_lightning.inference.exported import find_export
from petseg_lightning.segmenter import CHECKPOINT_KEY, Segmenter

BUILTIN = "builtin"  # the name of the model in the box: a small U-Net, its card says more
BUILTIN_FOLDER = Path(__file__).parents[1] / "builtin"
MODELS_PACKAGE = "petseg_lightning.models."
NOT_A_CHECKPOINT = (  # what torch.load, or a look into its result, raises for any other file
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
)


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
    """The contents of a checkpoint of this package, on the CPU. Raises InputError for any other file."""
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            description = checkpoint[CHECKPOINT_KEY]
            assert {"model", "target", "preprocessing", "data"} <= description.keys()
        except NOT_A_CHECKPOINT as error:
            raise InputError(
                f"{path} is not a checkpoint of petseg_lightning, or not a whole one; "
                "give a .ckpt file that its training wrote"
            ) from error
    return checkpoint


def add_to_description(path: Path, further: Mapping[str, Any]) -> None:
    """Write a checkpoint again, whole or not at all, with more plain values in its description."""
    checkpoint = read_checkpoint(path)
    checkpoint[CHECKPOINT_KEY] |= further
    with replacing(path) as temporary, temporary.open("wb") as file:  # of a path, torch would store the name
        torch.save(checkpoint, file)


def build_network(model: dict[str, Any], num_classes: int) -> nn.Module:
    """The network that a checkpoint describes, `_target_` and arguments; only classes of this package's models."""
    arguments = dict(model)
    name = str(arguments.pop("_target_"))
    if not name.startswith(MODELS_PACKAGE):
        raise InputError(f"the checkpoint asks for {name}; only models of {MODELS_PACKAGE[:-1]} are built from a file")
    module_name, class_name = name.rsplit(".", 1)
    return getattr(import_module(module_name), class_name)(num_classes=num_classes, **arguments)


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


def target_of(description: dict[str, Any]) -> Target:
    """The classes of the model that a description is of."""
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description["target"].items()
    }
    return Target(**stored)


def _model(path: Path, description: dict[str, Any], weights: dict[str, Tensor]) -> Segmenter:
    try:
        target = target_of(description)
        network = build_network(description["model"], len(target.class_names))
        preprocessing = {key: description["preprocessing"][key] for key in ("mean", "std")}
        network.load_state_dict(weights)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path} does not fit this version of petseg_lightning ({' '.join(str(error).split())}); "
            f"use the version that wrote it ({description.get('version', 'unknown')})"
        ) from error
    return Segmenter(network, target, description=description, **preprocessing).eval()
