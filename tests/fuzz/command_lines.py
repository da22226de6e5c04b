"""Command lines as nobody means them, and what becomes of one whose door does nothing."""

import contextlib
import io
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from omegaconf import OmegaConf

from petseg_lightning.conf_tree import doors, flatten, groups, options, root
from petseg_lightning.config import compose, door

SECONDS = 60  # a command line that takes longer hangs

WORDS = json.loads((Path(__file__).parent / "corpus" / "words.json").read_text(encoding="utf-8"))
GIVEN = {"ckpt": "builtin", "source": "x", "run": "x"}


@cache
def composed(name: str, *choices: str) -> dict[str, Any]:
    """The configuration of a door with these choices, as plain containers."""
    values: Any = OmegaConf.to_container(compose(name, choices))
    return values


@cache
def keys(name: str) -> list[str]:
    """All groups and keys of a door."""
    return [*groups(name), *flatten(composed(name))]


def values() -> st.SearchStrategy[str]:
    """The text of a value."""
    return st.sampled_from(WORDS["values"]) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def settings_of(name: str) -> st.SearchStrategy[str]:
    """A setting, an addition or a removal of keys that the door has, or of others below them."""
    key = st.sampled_from(keys(name))
    below = st.builds("{}.{}".format, key, st.sampled_from(["x", "0", "_target_", "_partial_", "_args_"]))
    sign = st.sampled_from(["", "", "", "+", "++", "~"])
    return st.one_of(
        st.builds("{}{}={}".format, sign, key, values()),
        st.builds("{}{}={}".format, sign, below, values()),
        st.builds("~{}".format, key),
    )


def arguments(name: str) -> st.SearchStrategy[list[str]]:
    """One or two arguments of a command line of the door."""
    hydra = ["run.dir", "sweep.dir", "sweep.subdir", "job.name", "verbose", "mode", "launcher", "sweeper", "callbacks"]
    hydra += ["output_subdir", "sweeper.params", "sweeper.max_batch_size", "job_logging", "job.chdir", "searchpath"]
    listed = [f"{group}={option}" for group in groups(name) for option in options(group)] or ["seed=1"]
    one = st.one_of(
        settings_of(name),
        settings_of(name),
        settings_of(name),
        st.sampled_from(listed),
        st.builds("hydra.{}={}".format, st.sampled_from(hydra), values()),
        st.sampled_from(WORDS["odd"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    )
    return one.map(lambda text: [text]) | st.sampled_from(WORDS["flags"])


@st.composite
def command_lines(draw: st.DrawFn, name: str | None = None) -> list[str]:
    """A door and its arguments, which half of the time give what must be given."""
    chosen = name or draw(st.sampled_from(doors()))
    must = [f"{key}={GIVEN[key]}" for key, value in root(chosen).items() if value == "???"]
    several = draw(st.lists(arguments(chosen), min_size=1, max_size=3))
    return [chosen, *(must if draw(st.booleans()) else []), *(text for part in several for text in part)]


@dataclass(frozen=True)
class Outcome:
    """What became of a command line."""

    is_sweep: bool
    """Its jobs have a line each."""
    code: Any
    out: str
    err: str
    left: list[str]
    """Files in the working folder."""

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None where it ran, or was refused in one line that leaves nothing."""
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if "Traceback" in self.err:
            return "a traceback"
        if self.code == 0:
            return None
        lines = self.err.splitlines()
        if not lines or not all(line.startswith("error: ") for line in lines) or (len(lines) > 1 and not self.is_sweep):
            return "not one line"
        return "files left behind" if self.left and not self.is_sweep else None


class _HangError(BaseException):
    pass


def _nothing(cfg: Any) -> None:
    OmegaConf.to_container(cfg, resolve=True)


def outcome(line: list[str], run: Callable[[Any], Any] = _nothing) -> Outcome:
    """What becomes of a command line whose door does only `run`, in a folder of its own."""
    name, *given = line
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with _alone() as folder, mock.patch.object(sys, "argv", [name, *given]), warnings.catch_warnings(action="ignore"):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                door(name, run)()
            except SystemExit as stopped:
                code = stopped.code
            except _HangError:
                code = f"none in {SECONDS} seconds"
            except BaseException as error:  # Python would print its traceback
                places = traceback.extract_tb(error.__traceback__)[:-6:-1]
                code = " < ".join([f"{error!r}", *(f"{Path(place.filename).name}:{place.lineno}" for place in places)])
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    is_sweep = any(argument in ("-m", "--multirun") or argument.startswith("sweep=") for argument in given)
    return Outcome(is_sweep, code, out.getvalue(), err.getvalue(), left)


@contextlib.contextmanager
def _alone() -> Iterator[Path]:
    """A working folder, with logging and the environment as before afterwards."""

    def stop(*_: Any) -> None:
        raise _HangError

    before, logger = Path.cwd(), logging.getLogger()
    level, handlers = logger.level, list(logger.handlers)
    alarm = signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        os.environ.pop("PETSEG_TRACEBACK", None)
        os.chdir(folder)
        signal.alarm(SECONDS)
        try:
            yield Path(folder)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, alarm)
            os.chdir(before)
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logging.disable(logging.NOTSET)
