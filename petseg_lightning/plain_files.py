"""Files that may be from somebody else, read as plain values: regular files of bounded size, in which nothing resolves.

A value is plain where it is null, a bool, a number, text, or a list or dict (whose keys are text) of plain values.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular

LARGEST = 2**20  # bytes
DEEPEST = 32  # lists and dicts in one another
_MOST = 100_000  # values in all
_LARGEST_NUMBER = 1e15
_SHOWN = 60  # characters of a wrong value
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TextLoader(_Loader):
    """YAML's plain types; a date is text, as in Hydra's own files."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - of the library
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_bytes(path: Path, largest: int = LARGEST, inside: Path | None = None) -> bytes:
    """The content of a file.

    Args:
        path: of it.
        largest: bytes that it may have.
        inside: a folder that it must be in, also where it is a link.

    Raises:
        InputError: it cannot be read, is larger, or elsewhere.
    """
    if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
        raise InputError(f"{path} is a link that leaves {inside}, and is not followed; remove it")
    try:
        with open_regular(path) as file:
            content = file.read(largest + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); get it again, or correct the path") from error
    if len(content) > largest:
        raise InputError(f"{path} has more than {largest:,} bytes, too many for a file of its kind; get it again")
    return content


def read_text(path: Path, largest: int = LARGEST, inside: Path | None = None) -> str:
    """The content of a UTF-8 file. Raises InputError as `read_bytes` does, or where it is no text."""
    try:
        return read_bytes(path, largest, inside).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text (byte {error.start:,}); get it again") from error


def read_json(path: Path, largest: int = LARGEST, inside: Path | None = None) -> Any:
    """The plain value in a JSON file, as `parse_json` has it. Raises InputError as that and `read_text` do."""
    return parse_json(read_text(path, largest, inside), str(path), most=largest)


def parse_json(text: str, name: str, most: int = _MOST) -> Any:
    """The plain value of a JSON text, of at most so many values. Raises InputError, which names it, for another one."""
    try:
        value = json.loads(text)
        require_plain(value, most)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not valid JSON of its kind ({error}); get it again") from error
    return value


def read_yaml(path: Path, inside: Path | None = None) -> Any:
    """The plain value in a YAML file. Raises InputError as `read_text` and `parse_yaml`."""
    return parse_yaml(read_text(path, inside=inside), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """The plain value of a YAML text without anchors and tags; what looks like an interpolation stays as it is.

    Raises:
        InputError: it is another text, with the name.
    """
    try:
        _require_simple(yaml.parse(text, Loader=_Loader))
        value = yaml.load(text, Loader=_TextLoader)
        require_plain(value)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = f"{getattr(error, 'problem', None) or 'it is damaged'}{where}"
        raise InputError(f"{name} cannot be read as YAML ({reason}); get it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} cannot be read as YAML ({error}); get it again") from error
    return value


def _require_simple(events: Iterator[Any]) -> None:
    """Raises ValueError before anything is built where aliases could multiply values, or they are nested deeply."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias")
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and dicts are in one another")


def require_plain(value: Any, most: int = _MOST) -> None:
    """Raises ValueError where a value is not plain, nested deeply, or of very many values or a number beyond 1e15."""
    count, waiting = 0, [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        count += 1
        if count + len(waiting) + (len(one) if isinstance(one, dict | list) else 0) > most:
            raise ValueError(f"it has more than {most:,} values")
        if isinstance(one, dict | list) and type(one) in (dict, list):
            if depth >= DEEPEST:
                raise ValueError(f"more than {DEEPEST} lists and dicts are in one another")
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise ValueError("a key is no text")
                one = [*one.values()]
            waiting += [(item, depth + 1) for item in one]
        elif isinstance(one, int | float) and type(one) in (bool, int, float):
            if abs(one) > _LARGEST_NUMBER and not (isinstance(one, float) and math.isinf(one)):
                raise ValueError("a number is beyond 1e15")
        elif one is not None and type(one) is not str:
            raise ValueError(f"it holds a {type(one).__name__}")


def brief(value: Any) -> str:
    """A value of a file in a few printable characters."""
    text = "".join(sign if sign.isprintable() else "?" for sign in str(value)[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
