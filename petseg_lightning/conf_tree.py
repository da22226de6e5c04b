"""What conf/ holds, read as text: its doors, groups and options, and what their comments say.

The files explain themselves by two conventions: the first comment line of a YAML says what it is (further
ones, in the root of a door, are examples of use), and a comment behind a key says what its value means. An
option whose name begins with an underscore is a fragment that others share, and no choice of its own.
"""

import re
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

LONGEST = 200  # characters of a value that is shown


def config_dir() -> Path:
    """The absolute folder of the configuration: the package's own copy (a wheel), else the checkout's."""
    package = Path(__file__).resolve().parent
    own = package / "conf"
    return own if own.is_dir() else package.parent / "conf"


def doors() -> list[str]:
    """Names of the programs: each has a root in conf/ and is the module `petseg_lightning.<door>`."""
    return sorted(file.stem for file in config_dir().glob("*.yaml"))


@cache
def root(door: str) -> dict[str, Any]:
    """The root YAML of a door as plain containers, its defaults list included."""
    return yaml.safe_load((config_dir() / f"{door}.yaml").read_text(encoding="utf-8"))


def groups(door: str) -> dict[str, str | None]:
    """Groups that the door's defaults lists name, each with its default option; of Hydra's own those in conf/."""
    found: dict[str, str | None] = {}
    for item in root(door)["defaults"]:
        if isinstance(item, dict):
            found |= {group: option for group, option in item.items() if group != "hydra"}
            found |= _hydra_groups(item["hydra"]) if "hydra" in item else {}
        elif item != "_self_":  # the root of another door, taken over
            found |= groups(item)
    return found


def _hydra_groups(option: str) -> dict[str, str | None]:
    content = yaml.safe_load((config_dir() / "hydra" / f"{option}.yaml").read_text(encoding="utf-8"))
    chosen = {
        f"hydra/{key.removeprefix('override ')}": value for item in content["defaults"] for key, value in item.items()
    }
    return {group: value for group, value in chosen.items() if (config_dir() / group).is_dir()}


def options(group: str) -> list[str]:
    """What can be chosen with `group=<option>`."""
    return sorted(f.stem for f in (config_dir() / group).glob("*.yaml") if not f.stem.startswith("_"))


def header(file: Path) -> list[str]:
    """The comment lines at the head of a YAML, without `#` and without the `@package` line."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    return [line.lstrip("# ") for line in lines if not line.startswith("# @package")]


def explanation(name: str) -> str:
    """What a door (`train`) or an option (`model/unet`) is, in one line; empty where nothing says so."""
    return next(iter(header(config_dir() / f"{name}.yaml")), "")


def comment(key: str, option: str | None = None) -> str:
    """What is written behind a key in conf/, in `option` of its group, or the root of that name, or else another.

    Of others, one that wants the key to be given (`???`) comes first.
    """
    group, _, leaf = key.rpartition(".")
    folder = config_dir() / group
    pattern = re.compile(rf"^\s*{re.escape(leaf)}:(.*?)\s#\s*(.+)$", re.MULTILINE)
    files = (folder if folder.is_dir() else config_dir()).glob("*.yaml")
    found = ((f, pattern.search(f.read_text("utf-8"))) for f in files)
    ranked = sorted((f.stem != option, "???" not in match[1], f, match[2]) for f, match in found if match)
    return ranked[0][-1] if ranked else ""


def options_with(key: str) -> list[str]:
    """The choices `group=option` that have the key: `optimizer=sgd` for `optimizer.momentum`."""
    group, _, path = key.partition(".")
    return [f"{group}={option}" for option in options(group) if path in _keys_in(group, option)]


def _keys_in(group: str, option: str) -> set[str]:
    content = yaml.safe_load((config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8"))
    shared = [item for item in content.get("defaults", []) if isinstance(item, str) and item != "_self_"]
    return set(flatten(content)).union(*(_keys_in(group, other) for other in shared))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every key of nested dicts by its dotted path, the dicts themselves included; lists are values."""
    flat = {}
    for key, value in values.items():
        flat[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
    return flat


def shown(value: Any) -> str:
    """A value as one would write it in an override; long text is cut short."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{shown(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}..."
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
