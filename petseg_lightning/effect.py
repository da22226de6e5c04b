"""Which values of a training's configuration its result depends on."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

_REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")  # to another key; resolvers have a colon
_DEEPEST, _LONGEST = 8, 4096  # references to references, and characters that come out

WITHOUT_EFFECT = (  # on the result: keys, with all below them
    "resume",
    "ckpt_path",  # a resumed training ends where an undisturbed one does
    "paths",
    "logger",
    "search",  # the overrides of a trial are in the config
    "data.root",  # the fingerprint of the data is compared
    "data.download",
    "data.cache",
    "data.cache_dir",
    "data.num_workers",
    "callbacks.best_checkpoint.dirpath",
    "callbacks.last_checkpoint",
    "callbacks.learning_rate",
    "callbacks.model_summary",
    "callbacks.progress_bar",
    "callbacks.pruning",  # of what was not pruned
    "callbacks.validation_pictures",
    "trainer.checkpoint_minutes",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)


def effective_values(config: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved values of a config by dotted key, without those that do not change the result, and these keys.

    Of plain dicts, which may be from a file, only references to other keys are resolved.
    """
    keys, values = (*WITHOUT_EFFECT, *leave_out), {}
    is_plain = isinstance(config, dict)
    for key, value in _leaves(config if is_plain else OmegaConf.to_container(config)):
        if is_below(key, keys):
            continue
        if is_plain:
            values[key] = _resolved(config, key, value)
        else:
            resolved = OmegaConf.select(config, key, throw_on_resolution_failure=False)
            values[key] = value if resolved is None or isinstance(value, list | dict) else resolved
    return values


def _resolved(config: dict[str, Any], key: str, value: Any, depth: int = 0) -> Any:
    """A value with what the references in it stand for; a reference to nothing, or to no single value, stays."""
    if not isinstance(value, str) or depth == _DEEPEST:
        return value

    def look_up(match: re.Match[str]) -> Any:
        parents = key.split(".")[: -len(match[1])] if match[1] else []
        path = ".".join([*parents, match[2]])
        node: Any = config
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return match[0] if node is None or isinstance(node, list | dict) else _resolved(config, path, node, depth + 1)

    if match := _REFERENCE.fullmatch(value):
        return look_up(match)
    for match in _REFERENCE.finditer(value):
        value = value.replace(match[0], str(look_up(match)))
        if len(value) > _LONGEST:
            return match.string
    return value


def is_below(key: str, others: Iterable[str]) -> bool:
    """Whether a dotted key is one of the others, or below one."""
    return any(f"{key}.".startswith(f"{other}.") for other in others)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dicts, and lists of dicts, are gone through; what is empty is a leaf."""
    if isinstance(node, dict) and node:
        children: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        children = enumerate(node)
    else:
        yield prefix, node
        return
    for key, child in children:
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
