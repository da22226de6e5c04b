"""A search with Optuna, whose trials are jobs: launched like those of a grid, and resumed like them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import hydra.utils
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import OmegaConf

from petseg_lightning.errors import InputError
from petseg_lightning.sweeping.identity import digest
from petseg_lightning.sweeping.jobs import Sweep, resolved, values
from petseg_lightning.sweeping.state import FINISHED, PRUNED, State, score
from petseg_lightning.sweeping.table import Row

if TYPE_CHECKING:
    import optuna

Launch = Callable[[Sequence[Sequence[str]], int], None]


class Search:
    """The search that a sweep's `search` describes, over all overrides with several values.

    Its trials are in `search.storage`, from which a search that was killed goes on. The draws of a trial depend on the
    sampler's seed, the trial's number and the results before it.

    Raises:
        InputError: Optuna is missing, or there is nothing to search.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.options = sweep, sweep.config.search
        self.space = {o.get_key_element(): distribution(o) for o in sweep.overrides if o.is_sweep_override()}
        if not self.space:
            raise InputError("nothing to search: give a key several values or a range, e.g. optimizer=adam,sgd")

    def run(self, launch: Launch) -> list[Row]:
        """Run the trials that are missing, `search.parallel` at a time; returns a row for each trial."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep.folder.mkdir(parents=True, exist_ok=True)
        name = digest([self.sweep.fixed, {key: repr(value) for key, value in self.space.items()}])
        storage = hydra.utils.instantiate(resolved(self.sweep.config, "search.storage"))
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
        while batch := self._next(study):
            jobs = {trial.number: self._job(trial, name) for trial in batch}
            different = {tuple(self.sweep.own(job)): job for job in reversed(jobs.values())}
            launch([*different.values()], batch[0].number)
            for trial in batch:
                self._tell(study, trial, jobs[trial.number])
        trials = study.get_trials(deepcopy=False)
        _print_best(study)
        jobs = {trial.number: self._job(trial, name) for trial in trials}
        return [Row(n, " ".join(self.sweep.own(job)), self.sweep.folder_of(job, n)) for n, job in jobs.items()]

    def _next(self, study: "optuna.Study") -> list[Any]:
        """Trials that were interrupted, else new ones; none at the end."""
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        if waiting := [trial for trial in trials if trial.state == TrialState.RUNNING]:
            return waiting[: self.options.parallel]
        new = range(len(trials), min(len(trials) + self.options.parallel, self.options.trials))
        return [self._ask(study, number) for number in new]

    def _ask(self, study: "optuna.Study", number: int) -> "optuna.trial.FrozenTrial":
        sampler: Any = OmegaConf.to_container(self.options.sampler, resolve=True)
        if sampler.get("seed") is not None:
            sampler["seed"] += number
        study.sampler = hydra.utils.instantiate(sampler)
        asked = study.ask(self.space)
        return study.get_trials(deepcopy=False)[asked.number]

    def _job(self, trial: "optuna.trial.FrozenTrial", study: str) -> list[str]:
        chosen = [f"{key}={value}" for key, value in trial.params.items()]
        return [*self.sweep.fixed, *chosen, f"search.trial={trial.number}", f"search.study={study}"]

    def _tell(self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial", job: Sequence[str]) -> None:
        from optuna.trial import TrialState

        folder = self.sweep.folder_of(job, trial.number)
        state = State.read(folder)
        name = self.options.monitor.removeprefix("val/")
        if state is not None and state.status == FINISHED and (value := score(folder, "val", name)) is not None:
            study.tell(trial.number, value)
        else:
            pruned = state is not None and state.status == PRUNED
            study.tell(trial.number, state=TrialState.PRUNED if pruned else TrialState.FAIL)


def distribution(override: Override) -> "optuna.distributions.BaseDistribution":
    """What Optuna draws from for `a,b`, `choice(a,b)`, `range(1,5)`, `interval(0,1)`, `tag(log,interval(1e-4,1))`.

    `int(interval(1,8))` draws whole numbers. Raises InputError where Optuna is missing.
    """
    try:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    except ImportError as error:
        raise InputError("a search needs Optuna, which is not here: pip install 'petseg-lightning[optuna]'") from error
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)  # type: ignore[arg-type]
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = list(value.range())
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(value.step))
        return FloatDistribution(float(numbers[0]), float(numbers[-1]), step=float(value.step))
    return CategoricalDistribution([text.partition("=")[2] for text in values(override)])


def samples(sweep: Sweep) -> list[list[str]]:
    """Jobs in which each value, and both ends of each range, is there once: to check them all before a search."""
    choices = {}
    for override in sweep.overrides:
        key, value = override.get_key_element(), override.value()
        ends = [f"{key}={end}" for end in (value.start, value.end)] if isinstance(value, IntervalSweep) else None
        choices[key] = ends or values(override)
    first = {key: texts[0] for key, texts in choices.items()}
    others = [{**first, key: text}.values() for key, texts in choices.items() for text in texts[1:]]
    return [list(job) for job in [first.values(), *others]]


def _print_best(study: "optuna.Study") -> None:
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    if finished:
        best = max(finished, key=lambda trial: trial.value or 0.0)
        chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
        print(f"best of {len(finished)} finished trials: job {best.number} with {best.value:.4f} ({chosen})")
