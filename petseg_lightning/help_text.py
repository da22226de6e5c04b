"""The text of `--help`, made from conf/."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from petseg_lightning.conf_tree import (
    comment,
    config_dir,
    doors,
    explanation,
    flatten,
    groups,
    header,
    options,
    root,
    shown,
)

# Keys of the groups that are worth a line each; those that a door has of its own are all shown.
COMMON_KEYS = (
    "data.root",
    "data.target",
    "data.border",
    "data.image_size",
    "data.batch_size",
    "data.num_workers",
    "model.base_channels",
    "loss.class_weights",
    "optimizer.lr",
    "trainer.max_epochs",
    "trainer.devices",
    "trainer.precision",
    "paths.log_dir",
)

FLAGS = {
    "-m, --multirun": "one run per combination of values, e.g. optimizer.lr=1e-3,3e-3",
    "--cfg job": "print the composed configuration and stop; --resolve fills in the references",
    "--package KEY": "with --cfg: only this part, e.g. --package trainer",
    "--config-dir DIR": "a folder of your own YAMLs, laid out like conf/",
    "--hydra-help": "Hydra's own flags",
}


def door_help(door: str, cfg: DictConfig) -> str:
    """What the door does, its choices, its most used keys with the values in `cfg`, and the flags."""
    sections = {
        f"Usage: petseg {door} [group=option ...] [key=value ...] [flags]": [
            f"  {example}" for example in header(config_dir() / f"{door}.yaml")[1:]
        ],
        "Choices (group=option, * is the default)": list(_choices(door)),
        "Keys (key=value, with their present values)": columns(_keys(door, cfg)),
        "Flags": columns(FLAGS.items()),
    }
    blocks = ["\n".join([title, *lines]) for title, lines in sections.items() if lines]
    end = f"The same without the petseg command: python -m petseg_lightning.{door}"
    return "\n\n".join([explanation(door), *blocks, end])


def overview() -> str:
    """What `petseg --help` prints: the doors."""
    lines = columns((door, explanation(door)) for door in doors())
    return "\n".join(["Usage: petseg <door> [key=value ...]", "", *lines, "", "petseg <door> --help explains each."])


def columns(rows: Iterable[tuple[str, str]], margin: int = 2) -> list[str]:
    """Rows (name, meaning) as two columns that fit the terminal, at most 100 characters wide."""
    rows = list(rows)
    width = min(100, shutil.get_terminal_size().columns)
    indentation = margin + min(24, max(len(name) for name, _ in rows)) + 2
    lines = []
    for name, meaning in rows:
        start = f"{' ' * margin}{name}  ".ljust(indentation)
        wrapped = textwrap.wrap(
            meaning, width, initial_indent=start, subsequent_indent=" " * indentation, break_on_hyphens=False
        )
        lines += wrapped or [start.rstrip()]
    return lines


def _choices(door: str) -> Iterator[str]:
    for group, default in groups(door).items():
        yield f"  {group}"
        marked = ((f"{'*' if o == default else ' '} {o}", explanation(f"{group}/{o}")) for o in options(group))
        yield from columns(marked, margin=4)


def _keys(door: str, cfg: DictConfig) -> list[tuple[str, str]]:
    values: Any = OmegaConf.to_container(cfg)
    flat = flatten(values)
    own = [
        key
        for key in flat
        if key.partition(".")[0] in root(door) and not isinstance(flat[key], dict) and "._" not in key
    ]
    common = [key for key in COMMON_KEYS if key in flat]
    return [
        (f"{key}={shown(flat[key])}", comment(key, groups(door).get(key.partition(".")[0], door)))
        for key in [*own, *common]
    ]
