"""Running a sweep: its jobs, launched, and what became of them."""

import sys
from collections.abc import Callable, Sequence

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from petseg_lightning.failures import report
from petseg_lightning.sweeping.jobs import Sweep
from petseg_lightning.sweeping.search import Search, samples
from petseg_lightning.sweeping.table import Row, print_table


def run_sweep(sweep: Sweep, task: Callable[[DictConfig], None]) -> int:
    """Run the jobs of a grid or a search, print what became of each, and return the exit code.

    Raises:
        InputError: a package that is missing.
    """
    launcher = sweep.launcher(task)
    sweep.save()
    try:
        rows = _run_all(sweep, launcher)
    except KeyboardInterrupt as error:
        hint = f"the same command with hydra.sweep.dir={sweep.folder} runs what is missing"
        raise KeyboardInterrupt(hint) from error
    failed = print_table(sweep.folder, rows)
    if failed:
        names = ", ".join(row.label for row in failed)
        print(f"error: {len(failed)} of {len(rows)} jobs failed: {names}", file=sys.stderr)
    return 1 if failed else 0


def _run_all(sweep: Sweep, launcher: Launcher) -> list[Row]:
    if sweep.config.get("search") is not None:
        return Search(sweep).run(lambda jobs, first: _launch(sweep, launcher, jobs, first))
    jobs = sweep.grid()
    size = sweep.config.hydra.sweeper.get("max_batch_size") or len(jobs)
    for first in range(0, len(jobs), size):
        _launch(sweep, launcher, jobs[first : first + size], first)
    return [Row(i, " ".join(sweep.own(job)), sweep.folder_of(job, i)) for i, job in enumerate(jobs)]


def jobs_to_check(sweep: Sweep) -> list[list[str]]:
    """Jobs in which every value of the sweep is there; for a search not in every combination."""
    return samples(sweep) if sweep.config.get("search") is not None else sweep.grid()


def _launch(sweep: Sweep, launcher: Launcher, jobs: Sequence[Sequence[str]], first: int) -> None:
    """Launch jobs and wait for them; a launcher that loses a job's process does not end the sweep."""
    try:
        launcher.launch([sweep.launched(job) for job in jobs], initial_job_idx=first)
    except Exception as error:
        report(error, "launcher")
