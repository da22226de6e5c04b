"""What a model's file says of itself (a checkpoint, a bundle, an export), as plain values within bounds.

It may be from anybody. So it names classes of this package alone and gives them plain arguments, none of which is
resolved; and the data that it was trained on are read where they are, but never drawn, downloaded or written to there.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from torch import nn

from petseg_lightning import models
from petseg_lightning.checks import PRECISION, RULES
from petseg_lightning.data.disk_cache import user_cache
from petseg_lightning.data.shards import is_address
from petseg_lightning.data.targets import IGNORE, Target
from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import brief, require_plain
from petseg_lightning.rules import Rule, any_of, between, is_number, list_of, one_of, optional, whole

_TOLD = 3  # problems of a file
_BATCH_PIXELS = 2**24  # that the batches of a file's own size have, in all their pictures
_MODELS = f"{models.__name__}."

TEXT = Rule("printable text", lambda v: isinstance(v, str) and len(v) <= 2**16 and v.isprintable())
NAME = Rule("printable text of 1 to 200 characters", lambda v: TEXT.holds(v) and 0 < len(v) <= 200)
SIZE = whole(0, 2**20)
PLACE = Rule(
    "a path, or an http, https, gs or s3 address", lambda v: TEXT.holds(v) and 0 < len(v) <= 4096 and _is_place(v)
)
BELOW_ROOT = Rule(
    "paths below data.root",
    lambda v: (
        isinstance(v, dict)
        and all(NAME.holds(one) and not Path(one).is_absolute() and ".." not in Path(one).parts for one in v.values())
    ),
)


def _numbers(text: str, low: float, high: float, length: int | None = None) -> Rule:
    return list_of(text, Rule("", lambda v: is_number(v) and low <= v <= high), length)


def _names(fewest: int) -> Rule:
    return Rule(
        f"a list of {fewest} to 254 different printable names",
        lambda v: isinstance(v, list) and fewest <= len(v) <= 254 and all(map(NAME.holds, v)) and len(set(v)) == len(v),
    )


NEEDED = {
    "target.name": NAME,
    "target.label": TEXT,
    "target.class_names": _names(2),
    "target.part_names": _names(1),
    "target.part_to_class": list_of("a list of class ids, or 255", whole(0, IGNORE)),
    "preprocessing.mean": _numbers("three numbers from -1000 to 1000", -1000, 1000, 3),
    "preprocessing.std": _numbers("three numbers from 0.0001 to 1000", 1e-4, 1000, 3),
    "preprocessing.image_size": RULES["data.image_size"],
}
FURTHER: dict[str, Rule] = {
    "version": NAME,
    "temperature": Rule("a number from 0.001 to 1000", lambda v: is_number(v) and 1e-3 <= v <= 1e3),
    "compute.precision": Rule("a precision", lambda v: PRECISION.holds(v) and v != "auto"),
    "compute.channels_last": one_of(True, False),
    "compute.compile": one_of(True, False),
    "forecast.pictures": whole(1),
    "forecast.slope": Rule("a number", is_number),
    "forecast.intercept": Rule("a number", is_number),
    "forecast.errors": Rule(
        "2 to 1000 numbers in rising order",
        lambda v: isinstance(v, list) and 2 <= len(v) <= 1000 and all(map(is_number, v)) and v == sorted(v),
    ),
    "export.precision": RULES["precision"],
    "export.input": TEXT,
    "export.output": TEXT,
}

_OF_ALL_DATA: dict[str, Rule] = {"root": PLACE} | {
    key: RULES[f"data.{key}"]
    for key in (
        *("image_size", "batch_size", "val_fraction", "num_folds", "fold", "train_fraction", "split_seed"),
        *("num_workers", "cache", "cache_dir", "device_augment"),
    )
}
_OF_PETS = _OF_ALL_DATA | {key: RULES[f"data.{key}"] for key in ("target", "border")}
_PALETTE = list_of("", _numbers("", 0, 255, 3))
DATA: dict[str, dict[str, Rule]] = {  # the classes of data that a file may name, with their arguments
    "petseg_lightning.data.pets.OxfordPetDataModule": _OF_PETS | {"download": RULES["data.download"]},
    "petseg_lightning.data.synthetic.SyntheticPetDataModule": _OF_PETS
    | {key: RULES[f"data.{key}"] for key in ("num_trainval", "num_test", "picture_size", "synthetic_seed")}
    | {"draw": one_of(True, False)},
    "petseg_lightning.data.stream.StreamDataModule": _OF_PETS | {"shuffle_buffer": RULES["data.shuffle_buffer"]},
    "petseg_lightning.data.folder.FolderDataModule": _OF_ALL_DATA
    | {
        "class_names": _names(2),
        "ignore_value": RULES["data.ignore_value"],
        "mask_values": optional(list_of("a list of whole numbers from 0 to 65535", whole(0, 65535))),
        "palette": optional(Rule("a list of colours, three numbers from 0 to 255 each", _PALETTE.holds)),
        "split_lists": optional(BELOW_ROOT),
        "test_fraction": between(0, 1),
    },
}

# arguments of architectures and encoders: none of them reads a file or asks the network
OPTIONS = re.compile(
    r"(encoder|decoder|psp|upsampling|atrous|aspp|activation|pyramid|segmentation|dynamic|norm|act|img|patch|window"
    r"|drop|proj_drop|attn_drop|pos_drop|patch_drop)(_(?!weights|name|path|params)\w+|_rate)?|drop_path_rate"
    r"|output_stride"
)


def read_description(content: Any, file: str | Path, own_data: bool = True) -> dict[str, Any]:
    """The description of a model that a file holds, checked: known keys, with values of their types and bounds.

    Args:
        content: what the file says, of any type.
        file: of which the error speaks.
        own_data: whether the data must be of a class of this package; others may be trained on, but are never built.

    Returns:
        "model", "target", "preprocessing" and "data" with all that they need; "version", "temperature", "compute",
        "forecast" and "export" where they are there. What else there was is left out.

    Raises:
        InputError: everything that is wrong with it.
    """
    try:
        require_plain(content)
        if not isinstance(content, dict):
            raise ValueError("it describes no model")
        problems = [*_interpolations(content), *_problems(content)]
    except ValueError as error:
        content, problems = {}, [str(error)]
    if problems:
        version = content.get("version")
        told = "; ".join(problems[:_TOLD]) + (f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else "")
        raise InputError(
            f"{file} does not fit this version of petseg_lightning ({told}); get it again, or use the version that "
            f"wrote it ({brief(version) if isinstance(version, str) else 'unknown'})"
        )
    description = _known(content)
    if own_data:
        require_own_data(description, file)
    return description


def require_own_data(description: Mapping[str, Any], file: str | Path) -> None:
    """Raises InputError where a model's data are of a class that is none of this package's."""
    if (target := description["data"]["_target_"]) not in DATA:
        names = ", ".join(name.rpartition(".")[2] for name in DATA)
        raise InputError(
            f"{file}: data._target_={brief(target)} must be one of this package's data ({names}), as nothing else is "
            "made of what a file says; get a model from somebody you know"
        )


def network_class(target: Any) -> type[nn.Module]:
    """The class of a network by its import path: one that is defined in this package's models. Raises InputError."""
    module_name, _, name = str(target).removeprefix(_MODELS).partition(".")
    if str(target).startswith(_MODELS) and module_name in {module.name for module in iter_modules(models.__path__)}:
        module = import_module(_MODELS + module_name)
        found = vars(module).get(name)
        if isinstance(found, type) and found.__module__ == module.__name__ and issubclass(found, nn.Module):
            network: type[nn.Module] = found
            if "num_classes" in signature(network).parameters:
                return network
    raise InputError(f"the checkpoint asks for {brief(target)}; only models of {_MODELS[:-1]} are built from a file")


def target_of(description: Mapping[str, Any]) -> Target:
    """The classes of the model that a description is of."""
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description["target"].items()
    }
    return Target(**stored)


def stored_data(description: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a model was trained on, as `config.build` takes them, at the model's image size.

    They must be there already. Where the file alone says where, nothing is written there, and no address is called.

    Args:
        description: of `read_description`.
        given: the user's own values in place of the file's; None: the file's.

    Raises:
        InputError: the data are not there, or at an address that only the file names.
    """
    require_own_data(description, "the model's file")
    own = {key: value for key, value in given.items() if value is not None}
    left = ("cache_dir", "num_workers", "device_augment")  # about the machine of whoever trained it
    stored = {key: value for key, value in description["data"].items() if key not in left}
    size = description["preprocessing"]["image_size"]
    fitting = max(1, _BATCH_PIXELS // size**2)
    data = {**stored, "batch_size": min(stored.get("batch_size", 16), fitting), **own, "image_size": size}
    name = str(data["_target_"]).rpartition(".")[2]
    if name == "OxfordPetDataModule":
        data["download"] = False
    if name == "SyntheticPetDataModule":
        data["draw"] = False
    if "root" not in own:
        _require_there(str(data["root"]), name)
        data = {"cache": "none", "cache_dir": str(user_cache()), **{k: v for k, v in data.items() if k != "cache"}}
        data |= {key: own[key] for key in ("cache", "cache_dir") if key in own}
    return data


def _require_there(root: str, name: str) -> None:
    remedy = "give the folder of the data as data.root=<folder>"
    if "://" in root:
        raise InputError(f"the model's file alone names {brief(root)}, and no address is called for it; {remedy}")
    if not Path(root).is_dir():
        raise InputError(f"the data that the model was trained on are not in {root}; {remedy}")
    layouts = ("images", "masks"), ("train", "test")
    if name == "FolderDataModule" and not any(
        all(Path(root, folder).is_dir() for folder in layout) for layout in layouts
    ):
        raise InputError(f"{root} holds neither images/ and masks/ nor train/ and test/; {remedy}")


def _interpolations(node: Any, key: str = "") -> Iterator[str]:
    """Text that OmegaConf would resolve, wherever it is, and keys that Hydra would obey."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name.startswith("_") and f"{key}.{name}" not in (".model._target_", ".data._target_"):
                yield f"{brief(f'{key}.{name}'[1:])} is a key with a meaning of its own, which no file may have"
            yield from _interpolations(value, f"{key}.{name}")
            yield from _interpolations(name, f"{key}.{name}")
    elif isinstance(node, list):
        for value in node:
            yield from _interpolations(value, key)
    elif isinstance(node, str) and ("${" in node or node == "???"):
        yield f"{brief(key[1:])}={brief(node)} must be a value, not the place of one"


def _problems(content: dict[str, Any]) -> Iterator[str]:
    for section in ("model", "target", "preprocessing", "data", "compute", "forecast", "export"):
        found = content.get(section)
        if not (isinstance(found, dict) or (found is None and section in ("compute", "forecast", "export"))):
            yield f"{section}={brief(found)} must be a dict"
            return
    for key, rule in (NEEDED | FURTHER).items():
        value = _value(content, key)
        if (value is not None or key in NEEDED) and not rule.holds(value):
            yield _wrong(key, value, rule)
    target, forecast = content["target"], content.get("forecast")
    if forecast and not {"pictures", "slope", "intercept", "errors"} <= forecast.keys():
        yield "forecast lacks a value"
    if all(NEEDED[f"target.{key}"].holds(target.get(key)) for key in ("class_names", "part_names", "part_to_class")):
        classes, merged = len(target["class_names"]), target["part_to_class"]
        if len(merged) != len(target["part_names"]) or any(one >= classes and one != IGNORE for one in merged):
            yield f"target.part_to_class={brief(merged)} must have one of {classes} classes for each part"
    yield from _model_problems(content["model"])
    yield from _data_problems(content["data"])


def _model_problems(model: dict[str, Any]) -> Iterator[str]:
    try:
        known = signature(network_class(model.get("_target_"))).parameters
    except InputError as error:
        yield str(error)
        return
    for key, value in model.items():
        if key in ("_target_", "encoder_weights"):
            continue
        if key not in known or key == "num_classes":
            yield f"model.{brief(key)}={brief(value)} is no argument of {model['_target_']}"
        elif key == "options":
            yield from _option_problems(value)
        else:
            rules = RULES.get(f"model.{key}"), any_of(Rule("plain text", _is_word), SIZE, one_of(True, False, None))
            rules = (rules[0] or rules[1], Rule("at most 2**20", lambda v: not isinstance(v, int) or v <= 2**20))
            yield from (_wrong(f"model.{key}", value, rule) for rule in rules if not rule.holds(value))


def _option_problems(options: Any) -> Iterator[str]:
    if options is not None and not isinstance(options, dict):
        yield f"model.options={brief(options)} must be a dict"
    number = Rule("", lambda v: is_number(v) and abs(v) <= 4096)
    scalar = any_of(number, Rule("", _is_word), one_of(True, False, None))
    rule = Rule(
        "plain text, a number up to 4096, or a list of these",
        lambda v: scalar.holds(v) or (isinstance(v, list) and len(v) <= 64 and all(map(scalar.holds, v))),
    )
    for key, value in (options or {}).items() if isinstance(options, dict) else ():
        if not OPTIONS.fullmatch(key):
            yield f"model.options.{brief(key)} is none that a file may give"
        elif not rule.holds(value):
            yield _wrong(f"model.options.{key}", value, rule)


def _data_problems(data: dict[str, Any]) -> Iterator[str]:
    target = data.get("_target_")
    if not NAME.holds(target):
        yield _wrong("data._target_", target, NAME)
    rules = DATA.get(str(target), {})
    if rules and "root" not in data:
        yield "data.root is missing"
    for key, value in data.items() if rules else ():
        if key != "_target_" and key not in rules:
            yield f"data.{brief(key)}={brief(value)} is no argument of {target}"
        elif key != "_target_" and not rules[key].holds(value):
            yield _wrong(f"data.{key}", value, rules[key])


def _known(content: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {
        "model": {key: value for key, value in content["model"].items() if key != "encoder_weights"},
        "data": content["data"],
    }
    for key in (*NEEDED, *FURTHER):
        section, _, name = key.rpartition(".")
        if (value := _value(content, key)) is not None:
            (known.setdefault(section, {}) if section else known)[name] = value
    return known


def _value(content: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return ((content.get(section) or {}) if section else content).get(name)


def _wrong(key: str, value: Any, rule: Rule) -> str:
    return f"{brief(key)}={brief(value)} must be {rule.text}"


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.\-]{0,100}", value) is not None


def _is_place(value: str) -> bool:
    """Whether it is a path, in which nothing is a scheme, or one of the addresses."""
    try:
        return is_address(value) or True
    except InputError:
        return False
