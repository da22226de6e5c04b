"""A launcher for Ray: jobs as tasks of a cluster, or of this machine's cores."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class RayLauncher(Launcher):
    """Runs every job of a batch as a Ray task in a process of its own, as many at a time as the resources allow.

    Hydra's own plugin does the same and pins old versions of packages that are needed elsewhere (cloudpickle).

    Args:
        init: arguments of `ray.init`; `address` joins a cluster.
        remote: what a task needs, as arguments of `ray.remote`.
    """

    def __init__(self, init: dict[str, Any], remote: dict[str, Any]) -> None:
        self.init, self.remote = init, remote

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for them. Raises Ray's error for a task whose process died, when all have ended."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        ray.init(**{key: value for key, value in self.init.items() if value is not None})
        try:
            task = ray.remote(**self.remote)(_run)
            shared = ray.put((self.hydra_context, self.task_function, self.config, Singleton.get_state(), Path.cwd()))
            jobs = [
                task.remote(shared, list(overrides), number)
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            ray.wait(jobs, num_returns=len(jobs))
            return ray.get(jobs)
        finally:
            ray.shutdown()  # what the jobs printed is shown by then


def _run(shared: tuple[Any, ...], overrides: list[str], number: int) -> JobReturn:
    hydra_context, task_function, config, singletons, folder = shared
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(singletons)
    job = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.num, job.hydra.job.id = number, f"ray_{number}"
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=job,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
