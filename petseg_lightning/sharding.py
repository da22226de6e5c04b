"""From any data source to tar shards (WebDataset format) and their index, for `data=stream`."""

import io
import json
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from petseg_lightning.data.datamodule import SPLITS, SegmentationDataModule
from petseg_lightning.data.samples import Sample, read_parts, read_resized
from petseg_lightning.data.shards import FORMAT, GENERATOR, INDEX
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing_folder, write_json
from petseg_lightning.training import build_datamodule

_ANY_SIZE = 8  # decoding to it checks a picture and its mask


def write_shards(cfg: DictConfig) -> Path:
    """Write train, val and test of a data source into `<out>/<split>-<number>.tar`, whole or not at all.

    A picture is three members of one stem: the bytes of its file, `.mask.png` with its parts (255 is ignored) and
    `.json` with name, breed, species and index in the split. The train split is written in random order, so that a
    reader that mixes only neighbours still mixes breeds. Memory is that of a shard.

    Args:
        cfg: what conf/shard.yaml composes to.

    Returns:
        The folder of the shards.

    Raises:
        InputError: a picture that cannot be used, or a folder that was not written by this function.
    """
    folder, console = Path(cfg.out), Console()
    _require_own(folder)
    datamodule = build_datamodule(cfg)
    with replacing_folder(folder) as partial:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            index = _write(partial, datamodule, cfg.shard_size, progress)
        write_json(partial / INDEX, index)
    for split, content in index["splits"].items():
        console.print(f"{split:<6} {content['count']:,} pictures in {len(content['shards']):,} shards", highlight=False)
    console.print(f"shards  {folder}", soft_wrap=True, highlight=False)
    return folder


def _require_own(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        if json.loads((folder / INDEX).read_text())["generator"] == GENERATOR:
            return
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"{folder} exists without the {INDEX} of {GENERATOR} and is not overwritten; give another out=")


@dataclass(frozen=True)
class _Picture:
    """What a shard holds of a picture; `shares` of its pixels belong to each part, float64 (256,)."""

    members: dict[str, bytes]
    shares: np.ndarray


def _write(folder: Path, datamodule: SegmentationDataModule, shard_size: int, progress: Progress) -> dict[str, Any]:
    """Write the shards of all splits and return their index."""
    part_names = datamodule.target.part_names
    shares, splits = np.zeros(256), dict[str, dict[str, Any]]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in SPLITS:
            samples = datamodule.splits[split]
            bar = progress.add_task(split, total=len(samples))
            order = np.arange(len(samples))
            if split == "train":
                np.random.default_rng(datamodule.split_seed).shuffle(order)
            shards = []
            for number, start in enumerate(range(0, len(order), shard_size)):
                path, indices = folder / f"{split}-{number:06}.tar", order[start : start + shard_size].tolist()
                with tarfile.open(path, "w") as tar:
                    for picture in pool.map(_read, indices, (samples[index] for index in indices)):
                        _add(tar, picture.members)
                        shares += picture.shares if split == "train" else 0
                        progress.advance(bar)
                shards.append({"name": path.name, "count": len(indices), "bytes": path.stat().st_size})
            splits[split] = {"count": len(samples), "shards": shards}
    return {
        "generator": GENERATOR,
        "format": FORMAT,
        "source": datamodule.description(),
        "part_names": list(part_names),
        "part_shares": (shares[: len(part_names)] / splits["train"]["count"]).tolist(),
        "splits": splits,
    }


def _read(index: int, sample: Sample) -> _Picture:
    """A picture as it will be stored. Raises InputError for one that cannot be used."""
    read_resized(sample, _ANY_SIZE)
    parts = read_parts(sample)
    mask = io.BytesIO()
    Image.fromarray(parts).save(mask, "png")
    stem = f"{index:08}_{re.sub(r'[^A-Za-z0-9-]+', '_', sample.name)[-80:]}"
    row = {"name": sample.name, "breed": sample.breed, "species": sample.species, "index": index}
    members = {
        f"{stem}{sample.image.suffix.lower()}": sample.image.read_bytes(),
        f"{stem}.mask.png": mask.getvalue(),
        f"{stem}.json": json.dumps(row).encode(),
    }
    return _Picture(members, np.bincount(parts.ravel(), minlength=256) / parts.size)


def _add(tar: tarfile.TarFile, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
