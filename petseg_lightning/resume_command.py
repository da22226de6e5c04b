"""`resume=<run folder>` on a command line, in place of the settings that the folder was trained with.

A run folder may be somebody else's, so that its settings choose only what conf/ offers, and no place outside of it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from petseg_lightning.conf_tree import config_dir, flatten
from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import read_yaml

OVERRIDES = Path(".hydra", "overrides.yaml")
_KEY = re.compile(r"(?:\+\+|\+|~)?([\w./@-]+)")
_OF_THE_COMMAND = ("resume", "ckpt_path", "hydra", "paths.log_dir", "paths.output_dir")  # never taken from a folder
_WRITING = ("callbacks.", "logger.", "trainer.")
_PLACES = ("dirpath", "save_dir", "root_dir", "default_root_dir", "log_dir", "filename", "name", "version")


def with_settings(door: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of a door, behind those of the run folder that `resume=` names, where there is one.

    What is certified is what is evaluated. A key that is given again has the given value alone.

    Raises:
        InputError: no settings there, or some that no file may choose.
    """
    if door == "evaluate" and not any(text.startswith("ckpt=") for text in overrides):
        return [
            *overrides,
            *(text.replace("certify=", "ckpt=", 1) for text in overrides if text.startswith("certify=")),
        ]
    folder = next((text.partition("=")[2] for text in overrides if text.startswith("resume=")), "null")
    folder = folder.strip("'").replace("\\'", "'")
    if door != "train" or folder in ("", "null"):
        return list(overrides)
    given = {_key(text) for text in overrides}
    return [*(text for text in _stored(Path(folder)) if _key(text) not in given), *overrides]


def require_harmless(cfg: DictConfig, given: Sequence[str]) -> None:
    """Refuse what settings of a resumed run folder may not choose, unless the command chooses it too.

    Args:
        cfg: composed; the data are not downloaded.
        given: the overrides of the command.

    Raises:
        InputError: a class that conf/ does not have, a place outside of the folder, or data that are not there.
    """
    keys, folder = {_key(text) for text in given}, Path(cfg.paths.output_dir)
    files = (file.read_text(encoding="utf-8") for file in config_dir().rglob("*.yaml"))
    known = {target for text in files for target in re.findall(r"_target_: *([\w.]+)", text)}
    for key, value in _leaves(OmegaConf.to_container(cfg, resolve=True)):
        name = key.rpartition(".")[2]
        foreign = name == "_target_" and value not in known
        elsewhere = name in _PLACES and key.startswith(_WRITING) and _is_outside(folder, value)
        if (foreign or elsewhere) and key not in keys:
            rule = "a class that conf/ does not have" if foreign else "a place outside of the run folder"
            raise InputError(
                f"{cfg.resume} asks for {key}={value}, {rule}; if you trust it, give this again beside resume="
            )
    root = cfg.data.get("root")
    if "data.root" not in keys and root is not None and not Path(root).is_dir():
        raise InputError(
            f"{cfg.resume} was trained on data in {root}, which is no folder here; give data.root=<their folder>"
        )
    if "download" in cfg.data and "data.download" not in keys:
        cfg.data.download = False


def _stored(folder: Path) -> list[str]:
    file = folder / OVERRIDES
    if not file.is_file():
        raise InputError(f"resume={folder}: {OVERRIDES} is missing there; give the folder of a run of petseg train")
    stored = read_yaml(file, inside=folder)
    if not isinstance(stored, list) or not all(isinstance(text, str) and _KEY.match(text) for text in stored):
        raise InputError(f"{file} is no list of settings; give the folder of another run")
    for text in stored:
        if re.search(r"\$\{[^}]*:", text):
            raise InputError(f"{file}: {text!r} asks for a value from outside of the configuration; take it out")
    return [text for text in stored if not _key(text).startswith(_OF_THE_COMMAND)]


def quoted(value: str) -> str:
    """A value as an override takes it, whatever its signs are."""
    return "'" + value.replace("'", "\\'") + "'"


def _key(text: str) -> str:
    match = _KEY.match(text)
    return match[1] if match else text


def _leaves(values: Any) -> Iterator[tuple[str, Any]]:
    for key, value in flatten(values).items():
        yield key, value
        for number, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, dict):
                yield from ((f"{key}.{number}.{name}", leaf) for name, leaf in _leaves(item))


def _is_outside(folder: Path, value: Any) -> bool:
    return isinstance(value, str) and not Path(folder, value).resolve().is_relative_to(folder.resolve())
