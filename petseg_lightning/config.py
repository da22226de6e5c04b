"""The configuration as an interface: composing it from Python, and the frame of every door.

A door is a program with a root in conf/ (`train`, `evaluate`, ...); its module says `main = door(name, run)`.
The frame adds the help, the checks, and errors of one line in place of Hydra's. PETSEG_TRACEBACK=1 shows the
tracebacks of those.
"""

import argparse
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from petseg_lightning.checks import check, check_any
from petseg_lightning.conf_tree import config_dir, doors, flatten, groups, options, root
from petseg_lightning.errors import InputError, StoppedError
from petseg_lightning.failures import HINT, remove_if_unused, report, report_of_thread
from petseg_lightning.help_text import door_help
from petseg_lightning.own_folder import OwnFolder
from petseg_lightning.resume_command import require_harmless, with_settings
from petseg_lightning.structure import misfits
from petseg_lightning.suggestions import nearest_key, unknown_door, unknown_key, unknown_option
from petseg_lightning.sweeping.identity import folder_name
from petseg_lightning.sweeping.job import Fingerprint, own_overrides, run_job
from petseg_lightning.sweeping.jobs import Sweep, hydra_of, values
from petseg_lightning.sweeping.run import jobs_to_check, run_sweep

__all__ = ["build", "build_all", "compose", "config_dir", "door", "given", "overrides", "plain"]

# Hydra's flags for a configuration from elsewhere, which it composes without our help; and those for none.
FOREIGN = ("config_path", "config_name")
SHOWN = ("cfg", "info", "resolve", "shell_completion", "hydra_help")  # nothing runs


OmegaConf.register_new_resolver("job_folder", folder_name, replace=True)


class UsageError(InputError):
    """A command line that cannot be read: exit code 2."""


def compose(
    door: str,
    overrides: Sequence[str] = (),
    output_dir: str | os.PathLike[str] | None = None,
    own_configs: str | None = None,
) -> DictConfig:
    """The configuration that a door would get from these overrides, with everything resolved.

    Args:
        door: `train`, `evaluate`, ...
        overrides: as on the command line, e.g. `["model=fcn", "optimizer.lr=1e-2"]`.
        output_dir: the run folder; where none is given, the one that the door would choose. It is not made.
        own_configs: a folder of YAMLs laid out like conf/, which come before those.

    Raises:
        InputError: every override that is wrong, each with the nearest one that is right; a part of the configuration
            that is missing or of another kind. Values are left to `petseg_lightning.checks.check`, and `???` stays.
    """
    if door not in doors():
        raise InputError(unknown_door(door))
    given, overrides = overrides, with_settings(door, overrides)
    cfg = _resolved(door, overrides, output_dir, own_configs)
    choices = _choices(door, overrides)
    if len(choices) < len(overrides):
        default = _default(door, tuple(choices), own_configs)
        problems, unread = misfits(plain(cfg), default)
        problems += [unknown_key(key, {*flatten(default), *groups(door)}) for key in unread]
        if problems:
            raise InputError("; ".join(problems))
    if cfg.get("resume") is not None:
        require_harmless(cfg, given)
    return cfg


@cache  # the jobs of a sweep share it
def _default(door: str, choices: tuple[str, ...], own_configs: str | None) -> dict[str, Any]:
    """What the chosen options say, as plain values."""
    return plain(_resolved(door, choices, None, own_configs))


def _resolved(
    door: str, overrides: Sequence[str], output_dir: str | os.PathLike[str] | None, own_configs: str | None
) -> DictConfig:
    """What Hydra composes, without its own settings. Raises InputError for what does not compose."""
    before = HydraConfig.instance().cfg
    try:
        cfg = _load(door, overrides, own_configs)
        HydraConfig.instance().set_config(cfg)
        with read_write(cfg.hydra):
            place = output_dir or cfg.get("resume") or cfg.hydra.run.dir
            cfg.hydra.runtime.output_dir = str(Path(place).absolute())
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.resolve(cfg)
    except Exception as error:  # conf/ composes, so it is about the overrides
        raise InputError(_words_of_hydra(error) if own_configs else _explain(door, overrides, error)) from error
    finally:
        HydraConfig.instance().cfg = before
    return cfg


def build(node: Any, kind: Any = object, /, **arguments: Any) -> Any:
    """What a part of the configuration describes: objects for its `_target_`s, else plain lists and dicts.

    Args:
        node: a config node, or plain containers like it.
        kind: the class that the result must be of.
        arguments: further arguments of the outermost target; they are handed over as they are.

    Raises:
        InputError: a target that cannot be made from its arguments, or makes something of another kind.
        OSError: of a target, as it is.
    """
    try:
        built = hydra.utils.instantiate(node, _convert_="all", **arguments)
    except Exception as error:  # of a constructor, about its arguments; or of Hydra, about the node
        cause = error.__cause__
        if isinstance(cause, InputError | OSError):
            raise cause from None
        where = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else _target_of(node)
        raise InputError(f"{where}: {_words(cause or error)} {HINT}") from error
    return _of_kind(built, kind, _target_of(node))


def build_all(nodes: DictConfig, kind: Any = object) -> list[Any]:
    """The objects of a group such as `callbacks`; one that is set to null is left out. Raises what `build` does."""
    return [_of_kind(built, kind, _target_of(nodes[key])) for key, built in build(nodes).items() if built is not None]


@contextmanager
def settings_of(part: str) -> Iterator[None]:
    """Whatever is raised inside is about the settings of this part, and an InputError that says so."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        raise InputError(f"{part}: {_words(error)} {HINT}") from error


def _of_kind(built: Any, kind: Any, name: str) -> Any:
    if not isinstance(built, kind):
        raise InputError(f"_target_={name} makes a {type(built).__name__}, where a {kind.__name__} is needed")
    return built


def _target_of(node: Any) -> str:
    return str(node["_target_"]) if "_target_" in node else "null"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A part of the configuration as plain dicts and lists, with everything resolved."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def overrides() -> list[str]:
    """The overrides of the running door, as they were written; none outside of a door."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def given() -> dict[str, Any]:
    """What the command line of the running door chose: values by key, options by group; empty outside of a door.

    In a sweep only what differs between its jobs.
    """
    if not HydraConfig.initialized():
        return {}
    chosen = own_overrides(overrides()) if HydraConfig.get().mode is RunMode.MULTIRUN else overrides()
    parsed = OverridesParser.create().parse_overrides(chosen)
    return {override.get_key_element().lstrip("+"): override.value() for override in parsed if not override.is_delete()}


def _load(door: str, overrides: Sequence[str], own_configs: str | None = None) -> DictConfig:
    running = GlobalHydra.instance().hydra  # of the door that asks for it, if any
    GlobalHydra.instance().clear()
    try:
        return hydra_of(door, own_configs).compose_config(door, list(overrides), RunMode.RUN, from_shell=False)
    finally:
        GlobalHydra.instance().hydra = running


def _choices(door: str, overrides: Sequence[str]) -> list[str]:
    """Those overrides that choose an option of a group, and where further ones are."""
    known = {*groups(door), "hydra.searchpath"}
    parsed, _ = _parse(door, overrides)
    return [str(one.input_line) for one in parsed if one.key_or_group in known and not one.is_delete()]


def _explain(door: str, overrides: Sequence[str], error: Exception) -> str:
    """All overrides that are wrong by themselves, in one line; where none is, the words of the error."""
    parsed, problems = _parse(door, overrides)
    choices, keys = [], []
    for override in parsed:
        key, text, value = override.key_or_group, str(override.input_line), override.value()
        if override.is_sweep_override():
            problems.append(f"{text} has several values: add -m to run each, or write a list as {key}=[...]")
        elif key not in groups(door):
            keys += [] if text.startswith("+") else [re.sub(r"(\.\d+)+$", "", key)]  # the list of an item
        elif text.startswith("+"):
            problems.append(f"{text} is a choice and no new key: write {text.lstrip('+')}")
        elif override.is_delete() and value not in ("", *options(key)):
            problems.append(f"{text} removes no option: write ~{key}")
        elif override.is_delete() or value in options(key):
            choices.append(text)
        else:
            problems.append(unknown_option(key, None if value is None else str(value)))
    with suppress(HydraException, OmegaConfBaseException, yaml.YAMLError):  # in conf/ itself: `error` is about it
        valid = _valid_keys(door, choices, error)
        problems += [unknown_key(key, _of_same_kind(key, valid)) for key in keys if key not in valid]
    return "; ".join(problems) or _words_of_hydra(error)


def _parse(door: str, overrides: Sequence[str], loader: ConfigLoader | None = None) -> tuple[list[Override], list[str]]:
    """The overrides that can be read, and a line about each other one; glob() needs the loader."""
    parser = OverridesParser.create(loader)
    given = {text.partition("=")[0] for text in overrides}
    missing = [key for key, value in root(door).items() if value == "???" and key not in given]
    words = [text for text in overrides if re.fullmatch(r"[\w./+-]+", text)]
    each = [[key] for key in missing] if len(words) >= len(missing) else [missing] * len(words)
    meant = dict(zip(words, each, strict=False))
    parsed, problems = [], []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
        except (HydraException, RecursionError):
            override = None
        if override is None or not override.key_or_group:
            problems.append(f"'{text}' cannot be read: write it as {_as_setting(text, meant.get(text, []))}")
        else:
            parsed.append(override)
    return parsed, problems


def _valid_keys(door: str, choices: Sequence[str] = (), error: Exception | None = None) -> set[str]:
    """The keys of the door, Hydra's own included, with these choices of options; and its groups."""
    node = getattr(error and error.__cause__, "parent_node", None)  # in what was composed, if a key was missing
    values: Any = OmegaConf.to_container(_load(door, choices) if node is None else node._get_root())
    return set(flatten(values)) | set(groups(door))


def _of_same_kind(key: str, valid: set[str]) -> list[str]:
    """Hydra's own keys for a key of Hydra, the door's for others."""
    return sorted(k for k in valid if k.startswith("hydra") == key.startswith("hydra"))


def _as_setting(text: str, keys: Sequence[str]) -> str:
    """What somebody meant by it: a key and a value, or the value of one of these keys."""
    if match := re.fullmatch(r"\s*([\w./]+)\s*(?::|=|\s)\s*([a-zA-Z0-9_.+-]+)\s*", text):
        return f"{match[1]}={match[2]}"
    if match := re.fullmatch(r"([\w./]+)=([^\[\]{}'\"$]+)", text):  # a path with signs that Hydra does not read
        return f"'{match[1]}=\"{match[2]}\"'"
    return " or ".join(f"{key}={text}" for key in keys) or "key=value, in quotes where the value has signs of its own"


def _words(error: BaseException) -> str:
    """The message of a library's exception in one line, without what only its developers read."""
    text = re.split(r"Config search path|object_type=|\n *full_key: ", str(error) or str(error.__cause__ or ""))[0]
    return " ".join(text.split()) or type(error).__name__


def _words_of_hydra(error: Exception) -> str:
    """The same of an exception that Hydra did not mean to raise."""
    meant = isinstance(error, (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError))
    return (
        _words(error) if meant else f"Hydra cannot use these settings ({type(error).__name__}: {_words(error)}) {HINT}"
    )


def door(name: str, run: Callable[[DictConfig], Any], fingerprint: Fingerprint | None = None) -> Callable[[], None]:
    """The `main` of a door: reads the command line, composes and checks the config, calls `run` with it.

    A mistake of the user (`InputError`, `OSError`) becomes one line on stderr and exit code 1; an unreadable
    command line has exit code 2, an interruption 130. Any other exception is a bug and keeps its traceback.
    In a sweep a job that fails is reported and the next one begins; a table at the end says what became of each.

    Args:
        name: of the root in conf/ and of the module `petseg_lightning.<name>`.
        run: from the configuration to a result; imports what is heavy only when it is called.
        fingerprint: from the configuration to that of its data, where a job that finished need not run again in the
            same sweep, and one that was interrupted resumes.
    """

    def main() -> None:
        code = 0
        try:
            code = _enter(name, run, fingerprint)
            sys.stdout.flush()
        except OSError as error:  # of what is printed
            if not (code or isinstance(error, BrokenPipeError)):  # of a reader like head, which has seen enough
                report(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        if code:
            sys.exit(code)

    return main


def _enter(name: str, run: Callable[[DictConfig], Any], fingerprint: Fingerprint | None) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands exceptions on, in place of printing them
    logging.raiseExceptions = False  # else a line of the log that cannot be written becomes a traceback
    threading.excepthook = report_of_thread
    try:
        arguments = _arguments(name)
        own = arguments.config_dir
        if arguments.help:
            print(door_help(name, compose(name, arguments.overrides, own_configs=own)))
            return 0
        shown = any(getattr(arguments, flag) for flag in SHOWN)
        foreign = any(getattr(arguments, flag) for flag in FOREIGN)
        try:
            if arguments.multirun and not shown:
                return _run_jobs(name, partial(run_job, run=run, fingerprint=fingerprint, command=sys.argv), arguments)
            if not (foreign or shown):
                check(compose(name, arguments.overrides, own_configs=own))
            return _run_alone(name, run, None if foreign or shown else arguments.overrides, own)
        except HydraException as error:
            raise InputError(_words(error) if foreign or own else _explain(name, arguments.overrides, error)) from error
    except KeyboardInterrupt as error:
        print("; ".join(["error: interrupted", *filter(None, [str(error)])]), file=sys.stderr)
        return 130
    except StoppedError as error:
        if int(os.environ.get("LOCAL_RANK", 0)):  # of several processes of one machine the first one tells
            return 0
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except InputError as error:
        report(error)
        return 2 if isinstance(error, UsageError) else 1


def _arguments(name: str) -> argparse.Namespace:
    """Hydra's command line; settings and flags may come in any order.

    Raises:
        UsageError: a flag that does not exist, its value, or text that is none.
    """
    for text in sys.argv[1:]:
        if any("\ud800" <= sign <= "\udfff" for sign in text):  # what Python makes of bytes that are no UTF-8
            raise UsageError(f"{text!a} is no text in UTF-8: rename what is meant by it")
    parser = get_args_parser()
    parser.exit_on_error = False
    parser.allow_abbrev = False
    try:
        arguments, unknown = parser.parse_known_intermixed_args()
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    if arguments.experimental_rerun is not None:
        raise UsageError("--experimental-rerun would run code from a file: give the settings of the run again")
    if arguments.config_dir is not None and not Path(arguments.config_dir).is_dir():
        raise UsageError(f"--config-dir {arguments.config_dir} is no folder: give one that is laid out like conf/")
    if "--" in sys.argv:
        unknown = ["--"]
    if unknown:
        key = unknown[0].lstrip("-").partition("=")[0].replace("-", "_")
        valid = _of_same_kind(key, _valid_keys(name))
        suggestion = nearest_key(key, valid)
        advice = f": did you mean {suggestion}=...?" if suggestion else ""
        raise UsageError(f"unknown flag {unknown[0]}, settings are written key=value without dashes{advice}")
    arguments.multirun |= any(text.startswith("sweep=") for text in arguments.overrides)
    flags = [argument for argument in sys.argv[1:] if argument not in arguments.overrides]
    sys.argv[1:] = [*arguments.overrides, *flags]  # the only order that Hydra's own parser reads
    return arguments


def _run_jobs(name: str, task: Callable[[DictConfig], None], arguments: argparse.Namespace) -> int:
    """Run a sweep.

    Raises:
        InputError: what is wrong with all of its jobs; a wrong override of any.
    """
    own = arguments.config_dir
    with _folder_errors():
        engine = hydra_of(name, own)
        parsed, problems = _parse(name, arguments.overrides, engine.config_loader)
        if problems:
            raise InputError("; ".join(problems))
        try:
            sweep = Sweep.read(engine, name, arguments.overrides)
            jobs = jobs_to_check(sweep)
        except (InputError, OSError):
            raise
        except Exception as error:  # conf/ composes, so it is about the overrides
            ranges = [one for one in parsed if not one.is_interval_sweep()]
            compose(name, [text for override in ranges for text in values(override)[:1]], own_configs=own)
            raise InputError(_words_of_hydra(error)) from error
        if not any(getattr(arguments, flag) for flag in FOREIGN):
            check_any([compose(name, job, own_configs=own) for job in jobs], multirun=True)
        return run_sweep(sweep, task)


def _run_alone(
    name: str, run: Callable[[DictConfig], Any], overrides: Sequence[str] | None, own_configs: str | None
) -> int:
    """Run one job, or without overrides what the flags of the command line ask of Hydra. Returns the exit code."""
    failed = False

    def task(cfg: DictConfig) -> Any:
        nonlocal failed
        try:
            check(cfg)
            return run(cfg)
        except Exception as error:
            failed = True
            report(error)
            if cfg.get("resume") is None:
                remove_if_unused(Path(HydraConfig.get().runtime.output_dir))

    task.__module__ = f"petseg_lightning.{name}"  # where Hydra takes the name of the job from
    with _folder_errors():
        try:
            if overrides is None:
                hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)(task)()
            else:  # the same, but for composing everything once more to learn that it is no sweep
                hydra_of(name, own_configs).run(name, task, [*with_settings(name, overrides), "hydra.mode=RUN"])
        except (AssertionError, AttributeError, LookupError, RecursionError, TypeError) as error:  # of Hydra itself
            raise InputError(_words_of_hydra(error)) from error
        except OSError:
            if OwnFolder.folder is not None:  # half of its configuration may be in it
                remove_if_unused(OwnFolder.folder)
            raise
    return int(failed)


@contextmanager
def _folder_errors() -> Iterator[None]:
    """What goes wrong around a job, in one line."""
    try:
        yield
    except HydraException:  # some are OSErrors too
        raise
    except InputError:
        raise
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise InputError(_words(error)) from error
    except OSError as error:
        raise InputError(
            f"the run folder cannot be written ({error}): choose another place with paths.log_dir=<folder>"
        ) from error
