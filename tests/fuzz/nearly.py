"""Inputs that are nearly right: plain values, text and bytes with a few random changes, the same for the same seed."""

import copy
import json
import random
from pathlib import Path
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, 0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *(
        2**31,
        2**53,
        2**63,
        -(2**63),
        10**400,
        "",
        "x",
        "None",
        "nan",
        "${oc.env:HOME}",
        "${a.b}",
        "???",
        "\x00",
        "\x1b[",
    ),
    *("\x1b[", "../..", "/", "/etc/passwd", "pipe:touch executed", "http://127.0.0.1:9/x", "file:///etc", "é" * 300),
    *("\ud800", [], {}, [[]], [None], {"": None}, {"_target_": "os.system"}, {"_args_": []}, [1] * 400, ["a", "a"]),
    "1" * 5000,
)
PIECES = (b"", b"\x00", b"\xff", b"${", b"}", b"[", b"{", b'"', b"\\u0000", b"9" * 30, b"-1", b"1e999", b"NaN", b"null")
PIECES += (
    b"\n",
    b"&a",
    b"*a",
    b"!!python/name:os.system",
    b": ",
    b"- ",
    b",",
    b"<<: *a",
    b"\t",
    b"'",
    b"|",
    b"\r",
    b"\xef\xbb\xbf",
)


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one to three changes anywhere in it."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = [([], None), *_places(value)]
        holder, key = rng.choice(places)
        if key is None:
            if rng.random() < 0.02:
                return copy.deepcopy(rng.choice(ODD))
            continue
        kind = rng.random()
        if kind < 0.6:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind < 0.7:
            del holder[key]
        elif kind < 0.8:
            other, name = rng.choice(places)
            holder[key] = copy.deepcopy(holder[key] if name is None else other[name]) if name != key else [holder[key]]
        elif kind < 0.9 and isinstance(holder, dict):
            holder[rng.choice(["_target_", "x", "", "root", "${oc.env:HOME}", str(key) + "_"])] = holder[key]
        elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = rng.choice([-holder[key], holder[key] * 1000, str(holder[key]), [holder[key]]])
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 5000:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            found.append((node, key))
            waiting.append(child)
    return found


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """A copy with one to four changes anywhere in it."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(content))
        end = min(len(content), start + rng.choice([0, 1, 1, 2, 8, 64, 4096]))
        piece = rng.choice(
            [
                rng.choice(PIECES),
                rng.randbytes(rng.randint(1, 8)),
                content[start:end] * rng.randint(1, 3),
                content[end:start],
            ]
        )
        content = content[:start] + piece + content[end:]
    return content


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def corpus(parser: str) -> list[Path]:
    """The inputs that were found, kept."""
    return sorted(path for path in (Path(__file__).parent / "corpus" / parser).glob("*") if path.is_file())


def require_line(error: Exception) -> None:
    """What a user reads: one line, of reasonable length, without signs for the terminal."""
    assert str(error).isprintable()
    assert len(str(error)) < 3000
