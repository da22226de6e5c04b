"""Weights from elsewhere into an encoder: which file, which of its tensors goes where."""

import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from petseg_lightning.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
PACKAGE = "package:"
SHOWN = 4  # names in a line


def find_weights(place: str) -> Path:
    """The file of weights that is meant: a path, or `package:<name>` for the only one in an installed package.

    Raises:
        InputError: no such file, or not one that can be chosen.
    """
    if not place.startswith(PACKAGE):
        if not Path(place).is_file():
            raise InputError(f"no file of encoder weights at {Path(place).absolute()}; give one of {_any(SUFFIXES)}")
        return Path(place)
    package = place.removeprefix(PACKAGE)
    spec = find_spec(package) if package.isidentifier() else None
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if not folders:
        raise InputError(f"{place} is no installed package: install it, or give the path of a file of weights")
    found = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if len(found) != 1:
        names = f": {_some(map(str, found))}" if found else ""
        raise InputError(f"{place} holds {len(found)} files of weights{names}; give the path of one file")
    return found[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, in the file's order, out of whatever a training wrapped around them.

    Args:
        file: .safetensors, or what `torch.save` wrote, of which nothing but tensors and plain values is loaded.

    Raises:
        InputError: the file holds something else.
    """
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    try:
        content = load_state_dict(str(file), weights_only=True)
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    except (
        pickle.UnpicklingError,
        SafetensorError,
        RuntimeError,
        EOFError,
        AttributeError,
        TypeError,
        KeyError,
    ) as error:
        raise InputError(f"{file} is no file of weights; give a state dict, as one of {_any(SUFFIXES)}") from error
    if not tensors:
        raise InputError(f"{file} holds no tensors; give a state dict, as one of {_any(SUFFIXES)}")
    return tensors


def load_weights(
    encoder: nn.Module, tensors: Mapping[str, Tensor], whole: Callable[[], nn.Module], source: str
) -> None:
    """Copy into an encoder what fits, and say in one line of the log what did and what did not.

    Tensors are matched by name, whatever prefix all of them have in the file. Where names leave some out, but the
    shapes of the file are those of the whole classifier or of the encoder, one after the other, they are matched
    in that order.

    Args:
        encoder: is changed.
        tensors: by name, in their order.
        whole: makes the classifier that the encoder was cut from, of which only names, order and shapes count.
        source: of the tensors, in words.

    Raises:
        InputError: nothing fits.
    """
    wanted = encoder.state_dict()
    loaded, how = _fitting(_by_name(tensors, wanted), wanted), "by name"
    if len(loaded) < len(wanted):
        in_order = _fitting(_by_order(tensors, whole(), encoder), wanted)
        if len(in_order) > len(loaded):
            loaded, how = in_order, "by order and shape"
    if not any(tensor.ndim for tensor in loaded.values()):  # counters of batches have the same name everywhere
        raise InputError(
            f"model.encoder_weights: none of the {len(tensors)} tensors of {source} ({_some(tensors)}) fits the "
            f"encoder ({_some(wanted)}), by name or by order and shape; give weights of the same encoder"
        )
    encoder.load_state_dict(loaded, strict=False)
    missing = [name for name in wanted if name not in loaded]
    log.log(
        logging.WARNING if missing else logging.INFO,
        "Encoder weights: %d of %d tensors from %s, %s; %d of the file are not used%s",
        len(loaded),
        len(wanted),
        source,
        how,
        len(tensors) - len(loaded),
        f"; not loaded: {_some(missing)}" if missing else "",
    )


def _by_name(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """The tensors under the names that are wanted, as far as the file knows them."""
    known = {_plain(name): tensor for name, tensor in tensors.items()}
    names = {name: _plain(name) for name in wanted}
    prefixes = {name.removesuffix(end) for name in known for end in names.values() if name.endswith(end)}
    prefix = max(sorted(prefixes), key=lambda p: sum(p + name in known for name in names.values()), default="")
    return {name: known[prefix + plain] for name, plain in names.items() if prefix + plain in known}


def _by_order(tensors: Mapping[str, Tensor], *candidates: nn.Module) -> dict[str, Tensor]:
    """The tensors under the names of the first module whose tensors have the same shapes, one after the other."""
    shapes = [tensor.shape for tensor in tensors.values()]
    for candidate in candidates:
        state = candidate.state_dict()
        if [tensor.shape for tensor in state.values()] == shapes:
            return dict(zip(state, tensors.values(), strict=True))
    return {}


def _fitting(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: given[name] for name in wanted if name in given and given[name].shape == wanted[name].shape}


def _plain(name: str) -> str:
    """A name as it is in the whole model and in an encoder cut from it, where timm writes `stages_0` for `stages.0`."""
    return name.replace("_", ".")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _any(suffixes: Iterable[str]) -> str:
    return ", ".join(suffixes)
