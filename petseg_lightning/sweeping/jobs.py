"""The jobs of a sweep, from a command line and a preset; and their launcher."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from petseg_lightning.conf_tree import config_dir
from petseg_lightning.errors import InputError

MOST_JOBS = 10_000  # of a sweep


def hydra_of(door: str, own_configs: str | None = None) -> Hydra:
    """Hydra with the configuration of a door, and before it a folder of the user's own."""
    version.setbase("1.3")
    path = create_automatic_config_search_path(None, None, str(config_dir()))
    if own_configs is not None:
        path.prepend("command-line", f"file://{Path(own_configs).absolute()}", SearchPathQuery(provider="schema"))
    engine = Hydra.create_main_hydra2(task_name=door, config_search_path=path)
    GlobalHydra.instance().clear()  # configurations are composed one by one beside it
    return engine


@dataclass(frozen=True)
class Sweep:
    """What a command line asks for."""

    hydra: Hydra
    config: DictConfig
    """What the jobs have in common, with the settings of Hydra itself."""
    overrides: list[Override]
    """Of the preset, then of the command line; some have several values."""

    @classmethod
    def read(cls, hydra_: Hydra, door: str, overrides: Sequence[str]) -> "Sweep":
        """Compose what is common, and add the values of a preset.

        Raises:
            HydraException: an override that does not compose.
            InputError: a number of jobs at once that is none.
        """
        config = hydra_.compose_config(door, [*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        with read_write(config.hydra.sweep):  # some launchers read it where no job runs, and ${hydra:...} is unknown
            config.hydra.sweep.dir = str(Path(resolved(config, "hydra.sweep.dir")).absolute())
        if (size := config.hydra.sweeper.get("max_batch_size")) is not None and size < 1:
            raise InputError(f"hydra.sweeper.max_batch_size={size} must be null, or a whole number, at least 1")
        preset = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        parsed = OverridesParser.create(hydra_.config_loader).parse_overrides([*preset, *config.hydra.overrides.task])
        last = {
            override.get_key_element(): override for override in parsed
        }  # the command line's in place of the preset's
        return cls(hydra_, config, list(last.values()))

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir)

    @property
    def swept(self) -> list[Override]:
        """Those in which jobs differ; all, where there is one job."""
        return [override for override in self.overrides if override.is_sweep_override()] or self.overrides

    @property
    def fixed(self) -> list[str]:
        """Those that all jobs have, as they were written."""
        return [str(override.input_line) for override in self.overrides if not override.is_sweep_override()]

    def grid(self) -> list[list[str]]:
        """The overrides of each combination of values. Raises InputError for a continuous range, or too many jobs."""
        choices = [*map(values, self.overrides)]
        if (number := math.prod(map(len, choices))) > MOST_JOBS:
            raise InputError(f"{number:,} jobs are more than the {MOST_JOBS:,} of a sweep: give fewer values")
        return [list(job) for job in itertools.product(*choices)]

    def own(self, job: Sequence[str]) -> list[str]:
        """Those of a job's overrides in which jobs differ."""
        keys = {override.key_or_group for override in self.swept}
        parsed = OverridesParser.create().parse_overrides(list(job))
        return [str(override.input_line) for override in parsed if override.key_or_group in keys]

    def launched(self, job: Sequence[str]) -> list[str]:
        """A job's overrides, and Hydra's: where the sweep is, and which keys are not the job's own."""
        own = self.own(job)
        parsed = OverridesParser.create().parse_overrides([text for text in job if text not in own])
        common = ",".join(_quoted(override.key_or_group) for override in parsed)
        return [
            *job,
            f"hydra.sweep.dir={_quoted(str(self.folder))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{common}]",
        ]

    def folder_of(self, job: Sequence[str], number: int) -> Path:
        """The run folder of a job."""
        config = self.hydra.config_loader.load_sweep_config(self.config, self.launched(job))
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        return self.folder / resolved(config, "hydra.sweep.subdir")

    def launcher(self, task: Callable[[DictConfig], None]) -> Launcher:
        """The launcher that `hydra/launcher=` chose. Raises InputError where its package is missing."""
        node, choice = self.config.hydra.launcher, self.config.hydra.runtime.choices["hydra/launcher"]
        setup: dict[str, Any] = {
            "hydra_context": HydraContext(config_loader=self.hydra.config_loader, callbacks=Callbacks(self.config)),
            "task_function": task,
            "config": self.config,
        }
        if not OmegaConf.is_dict(node) or not isinstance(node.get("_target_"), str):
            raise InputError("hydra.launcher is no launcher: leave it as it is, or choose hydra/launcher=<option>")
        try:
            if Plugins.is_in_toplevel_plugins_module(node._target_):
                return Plugins.instance().instantiate_launcher(**setup)
            launcher: Launcher = hydra.utils.instantiate(node, _convert_="all")
        except (ImportError, RuntimeError, hydra.errors.InstantiationException) as error:
            extra = choice.partition("_")[0]
            raise InputError(
                f"hydra/launcher={choice} needs packages that are not here: pip install 'petseg-lightning[{extra}]'"
            ) from error
        launcher.setup(**setup)
        return launcher

    def save(self) -> None:
        """Write multirun.yaml, as Hydra does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")


def values(override: Override) -> list[str]:
    """An override with each of its values, as overrides.

    Raises:
        InputError: a continuous range, no value, or more values than a sweep has jobs.
    """
    if override.is_interval_sweep():
        raise InputError(
            f"{override.input_line} is a continuous range, from which a search draws: list values, or add sweep=optuna"
        )
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key, several = override.get_key_element(), override.value()
    if isinstance(several, RangeSweep) and not _length(several) <= MOST_JOBS:
        raise InputError(f"{override.input_line} has more than {MOST_JOBS:,} values: give fewer")
    each = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not each:
        raise InputError(f"{override.input_line} has no value: list some, e.g. {key}=0,1")
    return each


def _length(numbers: RangeSweep) -> float:
    """How many numbers a range has, about; as many as one likes without a step, or without an end."""
    start, stop, step = (float(number or 0) for number in (numbers.start, numbers.stop, numbers.step))
    return (stop - start) / step if step else math.inf


def resolved(config: DictConfig, key: str) -> Any:
    """A part of a composed configuration as plain values, with what it takes from Hydra's own."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(config)
        node = OmegaConf.select(config, key)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    finally:
        HydraConfig.instance().cfg = before


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
