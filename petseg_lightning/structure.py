"""Whether a configuration has the parts and the kinds of values that conf/ gives it."""

from collections.abc import Iterator
from typing import Any

from petseg_lightning.checks import rule_of
from petseg_lightning.conf_tree import flatten, shown
from petseg_lightning.rules import is_number

# Parts that take keys of any name, besides those that are handed to a `_target_` as its arguments.
OPEN = ("data", "paths", "loss.weights", "search")


def misfits(values: dict[str, Any], default: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is wrong with the parts of a configuration, beside the one that the same choices give without settings.

    Args:
        values: a composed configuration as plain containers.
        default: of the chosen options alone.

    Returns:
        A line about each part that is missing or of another kind, and the keys that nothing reads.
    """
    there, expected = flatten(values), flatten(default)
    problems = [
        *(_removed(key) for key in expected if key not in there and _is_told(key, there) and not _may_go(key, default)),
        *(
            f"{key}={shown(there[key])} must be {kind}"
            for key, usual in expected.items()
            if key in there and (kind := _other_kind(key, there[key], usual))
        ),
        *(
            f"{key} cannot be added: leave it out"
            for key in there
            if key.endswith("._partial_") and key not in expected and key.rpartition(".")[0] in expected
        ),
        *(
            f"{key}={shown(there[key])} must be a part with a _target_, or null"
            for key in there
            if key not in expected and _is_collection(_parent(key, default)) and not _is_built(there[key])
        ),
    ]
    return problems, list(_unread(there, expected, default))


def _removed(key: str) -> str:
    return f"{key} cannot be removed: give it another value"


def _is_told(key: str, there: dict[str, Any]) -> bool:
    """Whether what the key belongs to is there: else that is said of it."""
    above = key.rpartition(".")[0]
    return not above or isinstance(there.get(above), dict)


def _may_go(key: str, default: dict[str, Any]) -> bool:
    return _is_collection(_parent(key, default)) or key.startswith("loss.weights.")


def _other_kind(key: str, value: Any, usual: Any) -> str | None:
    """What the value had to be, if it is of another kind than usual."""
    if key.endswith("_target_"):
        return None if isinstance(value, str) and value else "the import path of a class or function"
    if key.endswith("._partial_"):
        return None if value is usual else shown(usual)
    if isinstance(usual, dict):
        optional = value is None and "_target_" in usual and "." in key
        return None if isinstance(value, dict) or optional else f"a part with keys of its own ({key}.<key>=...)"
    if isinstance(value, dict) and "_target_" in value:  # an object of the user's own, in place of a plain value
        return None
    if value is None and usual == "???":
        return "a value of its own"
    if value == "???" or usual in (None, "???") or rule_of(key) is not None:
        return None
    for kind, holds in KINDS.items():
        if holds(usual):
            return None if holds(value) else kind
    return None


KINDS = {
    "true or false": lambda value: isinstance(value, bool),
    "a number": is_number,
    "text": lambda value: isinstance(value, str),
    "a list": lambda value: isinstance(value, list),
}


def _unread(there: dict[str, Any], expected: dict[str, Any], default: dict[str, Any]) -> Iterator[str]:
    for key in there:
        above = key.rpartition(".")[0]
        if key in expected or (above and above not in expected):
            continue
        part = _parent(key, default)
        if isinstance(part, dict) and "_target_" not in part and above not in OPEN and not _is_collection(part):
            yield key


def _parent(key: str, default: dict[str, Any]) -> Any:
    """The default of what a key belongs to."""
    part: Any = default
    for name in key.split(".")[:-1]:
        part = part.get(name) if isinstance(part, dict) else None
    return part


def _is_collection(part: Any) -> bool:
    """Whether it holds things by names that anybody may choose, such as `callbacks`."""
    return isinstance(part, dict) and bool(part) and all(isinstance(v, dict) and "_target_" in v for v in part.values())


def _is_built(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("_target_"), str))
