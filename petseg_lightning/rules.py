"""Conditions on one value of a configuration, each with its words."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from petseg_lightning.conf_tree import shown


@dataclass(frozen=True)
class Rule:
    """A condition on one value, and the words that complete "must be ..."."""

    text: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63  # as the libraries count


def is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def matches(pattern: str) -> Callable[[Any], bool]:
    """Whether a value is text that all of a regular expression describes."""
    return lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number from `low` to `high`, both included."""
    text = f"a whole number from {low} to {high}" if high is not None else f"a whole number, at least {low}"
    return Rule(text, lambda v: _is_whole(v) and low <= v and (high is None or v <= high))


def above(low: float) -> Rule:
    """A finite number larger than `low`."""
    return Rule(f"a number above {low}", lambda v: is_number(v) and v > low)


def at_least(low: float) -> Rule:
    """A finite number, `low` or larger."""
    return Rule(f"a number, at least {low}", lambda v: is_number(v) and v >= low)


def from_to(low: float, high: float) -> Rule:
    """A number from `low` to `high`, both included."""
    return Rule(f"a number from {low} to {high}", lambda v: is_number(v) and low <= v <= high)


def between(low: float, high: float) -> Rule:
    """A number strictly between `low` and `high`."""
    return Rule(f"a number between {low} and {high}, both excluded", lambda v: is_number(v) and low < v < high)


def one_of(*allowed: Any) -> Rule:
    """One of the values given; true is not 1."""
    *names, last = map(shown, allowed)
    return Rule(f"{', '.join(names)} or {last}", lambda v: any(type(v) is type(a) and v == a for a in allowed))


def any_of(*rules: Rule) -> Rule:
    """A value that meets one of the rules."""
    return Rule(", or ".join(rule.text for rule in rules), lambda v: any(rule.holds(v) for rule in rules))


def optional(rule: Rule) -> Rule:
    """null, or a value that meets the rule."""
    return Rule(f"null, or {rule.text}", lambda v: v is None or rule.holds(v))


def list_of(text: str, rule: Rule, length: int | None = None) -> Rule:
    """A list, of `length` where that is given, whose items meet the rule; `text` names all of it."""
    return Rule(
        text,
        lambda v: isinstance(v, list) and bool(v) and length in (None, len(v)) and all(map(rule.holds, v)),
    )
