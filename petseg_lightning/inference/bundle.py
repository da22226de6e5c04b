"""A trained model as a folder to hand on: weights, configuration, card and a sample of what it says.

    config.json         what rebuilds the network, classes, colours, preprocessing, temperature
    model.safetensors   the network's weights
    golden.png          a picture at the model's size, and
    golden.safetensors  the logits for it
    SHA256SUMS          of all these, as sha256sum writes it
    README.md           the model card

Nothing in it is executed: tensors are safetensors, and the network is a class of this package.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from petseg_lightning.data.picture_file import read_image
from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular, replacing_folder, write_json, write_text
from petseg_lightning.inference.description import read_description
from petseg_lightning.pictures import class_colours
from petseg_lightning.plain_files import read_json, read_text
from petseg_lightning.segmenter import Segmenter

FORMAT = 1  # to be raised with every change of what a bundle holds
CONFIG, WEIGHTS, CARD, SUMS = "config.json", "model.safetensors", "README.md", "SHA256SUMS"
GOLDEN_PICTURE, GOLDEN_LOGITS = "golden.png", "golden.safetensors"
HASHED = (CONFIG, WEIGHTS, GOLDEN_PICTURE, GOLDEN_LOGITS)
TOLERANCE = 0.01  # part of the golden logits' range by which another machine's may differ
_LARGEST_HEADER = 2**22  # bytes of names and shapes in a file of tensors
_LARGEST_TENSORS = 2**31  # bytes of such a file
_CLASSES_DIFFER = 0.001  # part of the golden pixels whose class may then be another


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a folder that looks like a bundle, whole or not."""
    return any((Path(path) / name).exists() for name in (CONFIG, WEIGHTS, SUMS))


def write_bundle(folder: Path, module: Segmenter, golden: Image.Image, card: str) -> None:
    """Write a bundle, whole or not at all; another bundle in the folder is replaced.

    Args:
        folder: is made; what else it holds is refused.
        module: the trained model, on the CPU.
        golden: the picture of the sample, RGB, of any size.
        card: Markdown.

    Raises:
        InputError: the folder exists and is no bundle.
    """
    if folder.exists() and any(folder.iterdir()) and not is_bundle(folder):
        raise InputError(f"{folder} exists and is no bundle; give another out=")
    with replacing_folder(folder) as partial:
        size = module.description["preprocessing"]["image_size"]
        picture = golden.resize((size, size), Image.Resampling.BILINEAR)
        picture.save(partial / GOLDEN_PICTURE)
        (partial / GOLDEN_LOGITS).write_bytes(save({"logits": golden_logits(module, picture)}))
        state = {name: tensor.contiguous().clone() for name, tensor in module.network.state_dict().items()}
        (partial / WEIGHTS).write_bytes(save(state))
        content = {"format": FORMAT, **module.description, "colors": class_colours(module.target.class_names)}
        write_json(partial / CONFIG, content)
        write_text(partial / CARD, card)
        write_text(partial / SUMS, "".join(f"{_sha256(partial / name)}  {name}\n" for name in HASHED))


def read_bundle(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of a bundle's model and the network's weights; every file is what was written.

    Raises:
        InputError: a file is missing, changed, or of another version of this package.
    """
    sums = _sums(folder)
    for name in HASHED:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing, or no file; get the bundle again")
    _require_same(folder, CONFIG, sums)
    content = read_json(folder / CONFIG)
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int:
        raise InputError(f"{folder} is not a bundle of petseg_lightning (it says no format); export it again")
    if found != FORMAT:
        raise InputError(f"{folder} is a bundle of format {found}, and this version reads {FORMAT}; export it again")
    description = read_description(content, folder)
    size = description["preprocessing"]["image_size"]
    logits = (len(description["target"]["class_names"]), size, size)
    if _header(folder / GOLDEN_LOGITS, sums) != {"logits": logits}:
        raise InputError(f"{folder / GOLDEN_LOGITS} does not hold logits of {logits} values; get the bundle again")
    _header(folder / WEIGHTS, sums)
    for name in HASHED:
        _require_same(folder, name, sums)
    return description, load_file(folder / WEIGHTS)


def golden_logits(module: Segmenter, picture: Image.Image) -> Tensor:
    """The logits (K,S,S) of a picture of the model's size S, in fp32."""
    images = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return module.eval()(images)[0].float().contiguous()


def require_golden(folder: Path, module: Segmenter) -> None:
    """Refuse a model that does not say of the golden picture what it said when it was exported.

    Raises:
        InputError: by how much it differs.
    """
    expected = load_file(folder / GOLDEN_LOGITS)["logits"].float()
    picture = read_image(folder / GOLDEN_PICTURE)
    if picture.size != expected.shape[:0:-1]:
        raise InputError(f"{folder / GOLDEN_PICTURE} is not of the model's size; get the bundle again")
    found = golden_logits(module, picture)
    difference, span = float((found - expected).abs().max()), float(expected.max() - expected.min())
    changed = float((found.argmax(0) != expected.argmax(0)).float().mean())
    if not (difference <= TOLERANCE * span and changed <= _CLASSES_DIFFER):
        raise InputError(
            f"{folder} does not reproduce its golden sample: logits differ by up to {difference:.3g} (of a range of "
            f"{span:.3g}) and {changed:.1%} of the pixels have another class; get the bundle again, or export it with "
            "this version"
        )


def _header(path: Path, sums: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file, read without them. Raises InputError for a file of something else."""
    with open_regular(path) as file:
        header, size = int.from_bytes(file.read(8), "little"), file.seek(0, 2)
    if size > _LARGEST_TENSORS:
        raise InputError(f"{path} has {size:,} bytes, more than any model here; get the bundle again")
    try:
        if header > _LARGEST_HEADER:
            raise SafetensorError("its header is too long")
        with safe_open(path, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        _require_same(path.parent, path.name, sums)
        raise InputError(f"{path.parent} is not a bundle of petseg_lightning ({error}); export it again") from error


def _sums(folder: Path) -> Mapping[str, str]:
    try:
        lines = read_text(folder / SUMS).split("\n")
        sums = {name: digest for digest, name in (line.split("  ") for line in lines if line)}
        if set(sums) != set(HASHED):
            raise ValueError(f"it must list {', '.join(HASHED)}")
    except ValueError as error:
        raise InputError(f"{folder / SUMS} cannot be used ({error}); get the bundle again") from error
    return sums


def _require_same(folder: Path, name: str, sums: Mapping[str, str]) -> None:
    if _sha256(folder / name) != sums[name]:
        raise InputError(f"{folder / name} is not the file that was exported; get the bundle again")


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
