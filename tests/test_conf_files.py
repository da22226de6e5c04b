"""Every YAML of conf/ against the code that it configures: a new file is covered the moment it exists."""

import inspect
import itertools
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from petseg_lightning.checks import RULES, check
from petseg_lightning.conf_tree import config_dir, doors, flatten, groups, header, options, root
from petseg_lightning.config import build, compose

FILES = sorted(path.relative_to(config_dir()).as_posix() for path in config_dir().rglob("*.yaml"))
OWN_CHOICES = [door for door in doors() if isinstance(root(door)["defaults"][0], dict)]  # not those of another door
CHOICES = [(door, f"{group}={option}") for door in OWN_CHOICES for group in groups(door) for option in options(group)]
GIVEN = {"ckpt": "x", "run": "x", "data.class_names": "[a,b]", "data.root": "x"}


@cache
def composed(door: str, *overrides: str) -> dict[str, Any]:
    values = OmegaConf.to_container(compose(door, overrides, output_dir="run"))
    assert isinstance(values, dict)
    return values


def targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from targets(child)


def parameters(target: Any) -> set[str] | None:
    """Names that a callable takes; None where it takes any."""
    names = set()
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.add(parameter.name)
            continue
        hinted = target if inspect.isfunction(target) else target.__init__
        unpacked = get_args(get_type_hints(hinted, include_extras=True)[parameter.name])
        if not unpacked:
            return None
        names |= unpacked[0].__annotations__.keys()
    return names


@pytest.mark.parametrize("file", FILES)
def test_a_file_begins_with_what_it_is(file):
    lines = header(config_dir() / file)
    assert lines
    assert lines[0].endswith(".")
    assert len(lines[0]) <= 110


@pytest.mark.parametrize("file", FILES)
def test_a_file_can_be_chosen_with_some_door_or_is_a_root_or_fragment(file):
    group, _, name = file.removesuffix(".yaml").rpartition("/")
    if group == "hydra":
        assert any(
            {"hydra": name} in yaml.safe_load((config_dir() / f"{door}.yaml").read_text())["defaults"]
            for door in doors()
        )
    elif name.startswith("_"):
        users = [config_dir() / group / f"{option}.yaml" for option in options(group)]
        assert any(f"- {name}\n" in path.read_text() for path in users)
    else:
        assert not group or any(choice == f"{group}={name}" for _, choice in CHOICES)


@pytest.mark.parametrize(
    ("door", "choice"), [(d, c) for d, c in CHOICES if c != "data=checkpoint" or "ckpt" in root(d)]
)
def test_an_option_composes_and_its_values_pass_the_checks(door, choice):
    missing = OmegaConf.missing_keys(compose(door, [choice]))
    check(compose(door, [choice, *(f"{key}={GIVEN[key]}" for key in missing)]))


@pytest.mark.parametrize(("door", "choice"), CHOICES)
def test_the_keys_beside_a_target_are_its_parameters(door, choice):
    for node in targets(composed(door, choice)):
        names = parameters(get_object(node["_target_"]))
        keys = {key for key in node if not key.startswith("_")}
        assert names is None or keys <= names, node["_target_"]


@pytest.mark.parametrize("door", doors())
def test_the_examples_of_a_door_are_right(door):
    examples = header(config_dir() / f"{door}.yaml")[1:]
    assert examples
    for example in examples:
        petseg, name, *overrides = shlex.split(example)
        assert (petseg, name) == ("petseg", door)
        multirun = "-m" in overrides
        settings = [setting for setting in overrides if setting != "-m"]
        values = [setting.split("=")[1].split(",") if multirun else [setting.split("=")[1]] for setting in settings]
        for job in itertools.product(*values):
            check(compose(door, [f"{s.split('=')[0]}={v}" for s, v in zip(settings, job, strict=True)]))


def test_every_rule_is_about_a_key_that_exists():
    keys = set(itertools.chain.from_iterable(flatten(composed(door, choice)) for door, choice in CHOICES))
    keys |= set(itertools.chain.from_iterable(flatten(composed(door)) for door in doors()))
    assert set(RULES) <= keys


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in ("augmentation", "callbacks", "logger", "loss", "mixing", "model") for o in options(g)],
)
def test_the_parts_of_an_option_can_be_built(group, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose("train", [f"{group}={option}"], output_dir=tmp_path)
    needs = {"num_classes": 3} if group == "model" else {}
    for node in targets(OmegaConf.to_container(cfg[group])):
        assert build(node, **needs) is not None


def test_precisions_are_those_of_lightning():
    fabric = pytest.importorskip("lightning.fabric.connector")
    allowed = {*get_args(fabric._PRECISION_INPUT_STR), *get_args(fabric._PRECISION_INPUT_INT)}
    named = RULES["trainer.precision"].text.replace(" or ", ", ").split(", ")
    assert set(named) - {"auto"} <= set(map(str, allowed))
