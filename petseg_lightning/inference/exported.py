"""Exported models on disk: which runtime a file is of, and the way to it."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from petseg_lightning.errors import InputError

FILES = {"torch": "model.pt2", "onnx": "model.onnx", "openvino": "model.xml"}  # by backend
PACKAGES = {"torch": (), "onnx": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("nncf", "onnxscript", "openvino")}


def runtime(name: str) -> Any:
    """The module of `petseg_lightning.inference.backends` of this name. Raises InputError where its packages miss."""
    missing = [package for package in PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise InputError(
            f"{name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not here: "
            f"pip install 'petseg-lightning[{name}]'"
        )
    return import_module(f"petseg_lightning.inference.backends.{name}")


def find_export(path: str | Path) -> tuple[str, Path] | None:
    """The backend and the file of an exported model, which may be given by its folder; None for anything else."""
    path = Path(path)
    for name, file in FILES.items():
        if path.suffix == Path(file).suffix and path.is_file():
            return name, path
        if (path / file).is_file():
            return name, path / file
    return None
