"""A job of a sweep, in whatever process its launcher puts it."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from petseg_lightning.checks import check
from petseg_lightning.errors import PrunedError
from petseg_lightning.failures import in_one_line, report
from petseg_lightning.git import git
from petseg_lightning.sweeping.identity import digest, identity
from petseg_lightning.sweeping.state import FAILED, FINISHED, PRUNED, RUNNING, State, claimed

Run = Callable[[DictConfig], Any]
Fingerprint = Callable[[DictConfig], str]


def run_job(cfg: DictConfig, *, run: Run, fingerprint: Fingerprint | None, command: Sequence[str]) -> None:
    """Run a job, or the rest of it, unless its folder says that it was run; its state.json says how it ended.

    Args:
        cfg: of the job.
        run: what the door does.
        fingerprint: of the data of a config; None for a door whose jobs are always run.
        command: the command line of the sweep.
    """
    sys.argv = list(command)  # a launcher's worker has another
    if multiprocessing.get_start_method() == "loky":  # joblib's, which cannot start the workers of a DataLoader
        multiprocessing.set_start_method(None, force=True)
    job = HydraConfig.get()
    folder, overrides = Path(job.runtime.output_dir), list(job.overrides.task)
    label = f"job {job.job.num} ({' '.join(own_overrides(overrides))})"
    with claimed(folder) as mine:
        if not mine:
            print(f"{label}: another process runs it")
            return
        state = State(RUNNING, overrides, commit=git("rev-parse", "HEAD"))
        try:
            check(cfg, multirun=True)
            if fingerprint is not None:
                state = state.known_as(identity(cfg, fingerprint(cfg)))
                before = _same_job(folder, state)
                if before is not None and before.status in (FINISHED, PRUNED):
                    commit = f" by another commit ({before.commit})" if before.commit != state.commit else ""
                    print(f"{label}: {before.status} before{commit}, not run again")
                    return
                if before is not None and (folder / "checkpoints").is_dir():
                    print(f"{label}: resumed in {folder}")
                    cfg.resume = str(folder)
            state.write(folder)
            run(cfg)
            state.ended(FINISHED).write(folder)
        except PrunedError as reason:
            print(f"{label}: pruned, {reason}")
            state.ended(PRUNED, str(reason)).write(folder)
        except Exception as error:
            report(error, label)
            before = State.read(folder)
            if state.identity or before is None or before.identity is None:  # else it may be another job's
                state.ended(FAILED, in_one_line(error)).write(folder)


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Those in which the running job differs from others of its sweep."""
    common = HydraConfig.get().job.config.override_dirname.exclude_keys
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [str(override.input_line) for override in parsed if override.key_or_group not in common]


def _same_job(folder: Path, state: State) -> State | None:
    """What is known of the same job from before.

    A job of another identity (the data changed) makes way: its folder gets a name of its own, under which it is found
    again if the data change back.
    """
    before = State.read(folder)
    if before is None or before.identity in (None, state.identity):
        return before if before is not None and before.identity else None
    kept, earlier = (folder.with_name(f"{folder.name}_{digest(one.identity)[:8]}") for one in (before, state))
    folder.rename(kept)
    print(f"{folder} was of other data or code and is now {kept.name}")
    if earlier.is_dir():
        earlier.rename(folder)
    else:
        shutil.copytree(kept / ".hydra", folder / ".hydra")
    return State.read(folder)
