"""What a benchmark shows: tables in the terminal, a picture, and one sentence about the bottleneck."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from petseg_lightning.benchmarking.rates import Rates, median
from petseg_lightning.compute import Compute
from petseg_lightning.files import replacing

LABELS = {
    "plain": "plain loop, fp32, eager, channels first",
    "same": "plain loop, the training's settings",
    "network": "the network alone, on one batch",
    "alone": "plain loop on one device, the training's settings",
    "training": "the training",
    "files": "one worker, from the files",
    "worker": "one worker, as configured",
    "loader": "the whole loader",
    "forward": "forward pass alone",
    "validate": "validation",
    "test": "test",
    "imports": "import torch and lightning",
    "data check": "data check",
    "first start": "first start, to the first step",
    "second start": "later start, to the first step",
}
OURS = ("training", "worker", "loader", "validate", "test", "first start", "second start")
TITLES = {
    "startup": "Start-up (seconds, less is better)",
    "data": "Data (images per second)",
    "train": "Training (images per second)",
    "inference": "Evaluation (images per second)",
}


def print_tables(results: dict[str, Any], folder: Path) -> None:
    """Medians with their spread, the ratios that matter, the bottleneck, and the run folder as the last line."""
    console = Console()
    for mode in (mode for mode in TITLES if mode in results):
        console.print(_table(TITLES[mode], _values(results[mode])))
    if costs := results.get("data", {}).get("cost_ms"):
        console.print(_parts_table("Augmentation of an image, on one core", costs, "of decoding", costs["decoding"]))
    if parts := results.get("train", {}).get("parts_ms"):
        console.print(_parts_table("A step of the training", parts, "share", sum(parts.values())))
    for line in conclusions(results):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"run folder  {folder}", soft_wrap=True, highlight=False)


def print_backends(results: dict[str, Any], folder: Path) -> None:
    """The backends of a trained model, and the run folder as the last line."""
    console = Console()
    title = f"{results['model']} on {results['threads']} threads"
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("backend", "images"):
        table.add_column(column, no_wrap=True)
    for column in ("ms", "95 % ms", "images/s", "speed", "MiB", "MB"):
        table.add_column(column, justify="right")
    for row in results["rows"]:
        named = (f"{row['backend']} {row['precision']}", f"{row['batch_size']} x {row['input_size']}²")
        times = (row["median_ms"], row["p95_ms"], row["images_per_second"])
        memory = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:,}"
        table.add_row(*named, *map(_number, times), f"{row['speedup']:.2f}", memory, _number(row["model_mb"]))
    console.print(table)
    console.print(f"run folder  {folder}", soft_wrap=True, highlight=False)


def conclusions(results: dict[str, Any]) -> list[str]:
    """What the figures say, a sentence each; the last one names the bottleneck of the training."""
    lines = []
    if startup := results.get("startup"):
        seconds = {name: median(values) for name, values in startup["seconds"].items()}
        ratio = seconds["second start"] / (seconds["imports"] + seconds["data check"])
        again = seconds["second start"] / seconds["first start"]
        lines.append(
            f"A later start takes {ratio:.2f} times the imports and the data check, {again:.2f} times the first."
        )
    if data := results.get("data"):
        lines.append(f"A worker is {data['per_worker']:.1f} times as fast as one that reads the files.")
    if inference := results.get("inference"):
        costs = f"{inference['validate_cost']:.2f} and test {inference['test_cost']:.2f}"
        lines.append(f"Validation costs {costs} times the forward pass.")
    if train := results.get("train"):
        lines.append(f"Compute: {Compute(**train['compute'])}; peak memory {_memory(train)}.")
        if "scaling_efficiency" in train:
            lines.append(f"{train['devices']} devices: scaling efficiency {train['scaling_efficiency']:.2f}.")
        else:
            lines.append(
                f"The training runs at {train['overhead']:.2f} of a plain loop with its settings and at "
                f"{train['speedup']:.2f} times the plain loop in fp32: {train['tflop_per_second']:.3g} TFLOP/s, "
                f"{100 * train['flop_utilization']:.0f} % of what a large matrix product does here."
            )
            lines.append(bottleneck(train["parts_ms"]))
    return lines


def bottleneck(parts: dict[str, float]) -> str:
    """Where most of the avoidable time of a step goes, in one sentence with what to change."""
    total = sum(parts.values())
    share = {name: value / total for name, value in parts.items()}
    if share["data wait"] > 0.1:
        return (
            f"Bottleneck: the data, waited for during {100 * share['data wait']:.0f} % of a step; use data.cache=disk, "
            "more data.num_workers, a lighter augmentation, or data.device_augment=true on a GPU."
        )
    if share["transfer"] > 0.1:
        return (
            f"Bottleneck: the transfer to the device, {100 * share['transfer']:.0f} % of a step; use larger batches, "
            "or data.device_augment=true, which keeps the pictures on the GPU."
        )
    if share["metrics, logging, callbacks"] > 0.1:
        return (
            f"Bottleneck: logging and callbacks, {100 * share['metrics, logging, callbacks']:.0f} % of a step; "
            "raise trainer.log_every_n_steps, or use larger batches."
        )
    network = share["forward and loss"] + share["backward"] + share["optimizer"]
    return (
        f"Bottleneck: the network itself, {100 * network:.0f} % of a step; only a faster device, compute=auto, or a "
        "smaller model.base_channels or data.image_size makes it faster."
    )


def write_picture(path: Path, results: dict[str, Any]) -> None:
    """Bars of the medians, one panel for each mode, the program's own in colour; lines from least to most."""
    modes = [mode for mode in TITLES if mode in results]
    heights = [len(_values(results[mode])) for mode in modes]
    figure, axes = plt.subplots(
        len(modes), 1, figsize=(8, 0.9 * len(modes) + 0.42 * sum(heights)), squeeze=False, height_ratios=heights,
        layout="constrained",
    )  # fmt: skip
    for axis, mode in zip(axes[:, 0], modes, strict=True):
        values = _values(results[mode])
        centres = [median(v) for v in values.values()]
        spread = [
            [c - min(v) for c, v in zip(centres, values.values(), strict=True)],
            [max(v) - c for c, v in zip(centres, values.values(), strict=True)],
        ]
        colours = ["#1f77b4" if name in OURS else "#b0b0b0" for name in values]
        bars = axis.barh([LABELS[name] for name in values], centres, xerr=spread, color=colours, capsize=3)
        axis.bar_label(bars, [*map(_number, centres)], padding=6)
        axis.invert_yaxis()
        axis.set_title(TITLES[mode], loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _number(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def _values(result: dict[str, Any]) -> Rates:
    return result["seconds"] if "seconds" in result else result["rates"]


def _table(title: str, values: Rates) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("median", "least", "most"):
        table.add_column(column, justify="right")
    for name, measured in values.items():
        style = "bold" if name in OURS else None
        cells = (median(measured), min(measured), max(measured))
        table.add_row(LABELS[name], *map(_number, cells), style=style)
    return table


def _parts_table(title: str, parts: dict[str, float], share: str, whole: float) -> Table:
    """Milliseconds, and their share of a whole."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_column(share, justify="right")
    for name, value in parts.items():
        table.add_row(name, f"{value:.2f}", f"{100 * value / whole:.1f} %")
    return table


def _memory(train: dict[str, Any]) -> str:
    text = f"{train['peak_memory_mib']:,} MiB"
    return f"{text}, on the GPU {train['peak_gpu_memory_mib']:,} MiB" if "peak_gpu_memory_mib" in train else text
