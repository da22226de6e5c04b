"""Whatever is typed, a command runs or refuses it in one line, and is never lost in a traceback."""

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_lines import command_lines, composed, outcome, settings_of
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from petseg_lightning.checks import check
from petseg_lightning.conf_tree import doors, groups, options
from petseg_lightning.errors import InputError
from petseg_lightning.structure import misfits

CORPUS = Path(__file__).parent / "corpus" / "command_lines.txt"
FUZZ = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("line", CORPUS.read_text(encoding="utf-8").split("\n")[:-1])
def test_a_command_line_that_was_once_a_fault_is_none(line):
    assert outcome(shlex.split(line)).fault is None


@given(command_lines())
@settings(max_examples=40, phases=[Phase.generate], **FUZZ)
def test_a_command_line_runs_or_is_refused_in_one_line(line):
    result = outcome(line)
    assert result.fault is None, (shlex.join(line), result)


@pytest.mark.slow
@given(command_lines())
@settings(max_examples=2_000, phases=[Phase.generate], **FUZZ)
def test_two_thousand_command_lines(line):
    result = outcome(line)
    assert result.fault is None, (shlex.join(line), result)


@st.composite
def configs(draw: st.DrawFn) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Settings, the configuration that they make of a door's choices, and that of the choices alone."""
    name = draw(st.sampled_from(doors()))
    listed = [f"{group}={option}" for group in groups(name) for option in options(group)]
    default = composed(name, *draw(st.lists(st.sampled_from(listed), max_size=1) if listed else st.just([])))
    values, texts = copy.deepcopy(default), draw(st.lists(settings_of(name), min_size=1, max_size=3))
    for text in texts:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
            *path, last = override.key_or_group.split(".")
            node = values
            for part in path:
                node = node[part]
            if override.is_delete():
                node.pop(last, None)
            else:
                node[last] = override.value()
        except (HydraException, KeyError, TypeError, AttributeError, IndexError):  # no such place
            continue
    return texts, values, default


def judge(values: dict[str, Any], default: dict[str, Any]) -> None:
    """What a door does with a configuration before it does anything else."""
    try:
        cfg = OmegaConf.create(values)
        OmegaConf.resolve(cfg)
    except (OmegaConfBaseException, RecursionError, ValueError):  # Hydra composes no such thing
        return
    try:
        misfits(OmegaConf.to_container(cfg), default)
        check(cfg)
    except InputError:
        pass


@given(configs())
@settings(max_examples=300, phases=[Phase.generate], **FUZZ)
def test_a_configuration_is_judged_whatever_its_values_are(config):
    judge(*config[1:])


@pytest.mark.slow
@given(configs())
@settings(max_examples=18_000, phases=[Phase.generate], **FUZZ)
def test_eighteen_thousand_configurations(config):
    judge(*config[1:])
