"""The model card: a README in the convention of model hubs."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petseg_lightning.inference.bundle import is_bundle
from petseg_lightning.inference.checkpoint import BUILTIN, BUILTIN_FOLDER
from petseg_lightning.report.run_folder import read_environment, read_metrics, read_overrides
from petseg_lightning.segmenter import Segmenter

_PLACES = ("data.root=", "data.cache_dir=", "paths.", "hydra.")
_ABSENT = "\N{EN DASH}"


def model_card(module: Segmenter, path: Path, folder: Path, license: str | None, format: str, precision: str) -> str:
    """The card of a model, in Markdown.

    Args:
        module: the model.
        path: of its checkpoint; scores and counts are those of its run folder, if it lies in one.
        folder: where the model will be.
        license: of the weights, as hubs abbreviate it; None: not stated.
        format, precision: of what the card goes with.
    """
    description = module.description
    run = path.parent.parent
    metrics = {} if is_bundle(path) or not (run / "metrics.json").is_file() else read_metrics(run)
    split = metrics.get("reported_split")
    reported = metrics.get("splits", {}).get(split, {})
    source = str(description["data"].get("_target_", "")).rpartition(".")[2].removesuffix("DataModule")
    arguments = {key: value for key, value in description["model"].items() if key != "_target_"}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("card.md.j2").render(
        title=folder.name,
        folder=BUILTIN if folder.absolute() == BUILTIN_FOLDER else folder,
        command=None if is_bundle(path) else _command(run),
        license=license,
        format=format,
        precision=precision,
        version=_text(description.get("version", "")),
        class_names=[_text(name) for name in module.target.class_names],
        network=description["model"]["_target_"].rpartition(".")[2],
        arguments="".join(f", {key}={value}" for key, value in arguments.items()),
        parameters=sum(p.numel() for p in module.network.parameters()),
        image_size=description["preprocessing"]["image_size"],
        temperature=description.get("temperature", 1.0),
        forecast_from=(description.get("forecast") or {}).get("pictures"),
        source=source,
        pets=source == "OxfordPet",
        counts=_counts(run) if metrics else None,
        scores=[
            {**row, "label": _text(row.get("label", "")), "iou": {_text(k): v for k, v in row.get("iou", {}).items()}}
            for row in reported.get("protocols", {}).values()
        ],
        split=split,
        num_images=reported.get("num_images"),
        number=lambda value: _ABSENT if value is None else f"{value:.3f}",
    )


def _command(run: Path) -> str | None:
    """What trained the model, without the places of whoever did; None where its run folder is not at hand."""
    overrides = read_overrides(run)
    if not overrides:
        return None
    kept = [one for one in overrides if not one.startswith(_PLACES)]
    return " ".join(["petseg train", *kept, "data.root=<data>"]).replace("`", "'")


def _counts(run: Path) -> dict[str, int] | None:
    counts = read_environment(run).get("data", {}).get("counts", {})
    return counts if {"train", "val", "test"} <= counts.keys() else None


def _text(value: object) -> str:
    """Text of a file as Markdown shows it, whatever signs it has."""
    return re.sub(r"([\\`*_{}\[\]()#!|])", r"\\\1", str(value).replace("&", "&amp;").replace("<", "&lt;"))
