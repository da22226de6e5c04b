"""What somebody probably meant by a key or an option that does not exist."""

from collections.abc import Collection
from difflib import SequenceMatcher, get_close_matches

from petseg_lightning.conf_tree import doors, options, options_with

# Habits from other tools that no likeness of letters leads to: the keys here, of which a door has one.
HABITS: dict[str, tuple[str, ...]] = {
    "imgsz": ("data.image_size",),
    "img_size": ("data.image_size",),
    "resolution": ("data.image_size",),
    "batch": ("data.batch_size",),
    "batches": ("data.batch_size",),
    "bs": ("data.batch_size",),
    "dataset_path": ("data.root",),
    "data_path": ("data.root",),
    "epoch": ("trainer.max_epochs",),
    "gpu": ("trainer.devices",),
    "gpus": ("trainer.devices",),
    "num_gpus": ("trainer.devices",),
    "amp": ("trainer.precision",),
    "fp16": ("trainer.precision",),
    "lr0": ("optimizer.lr",),
    "learning_rate": ("optimizer.lr",),
    "wd": ("optimizer.weight_decay",),
    "backbone": ("model",),
    "arch": ("model",),
    "criterion": ("loss",),
    "transforms": ("augmentation",),
    "augment": ("augmentation",),
    "checkpoint": ("ckpt", "ckpt_path"),
    "checkpoint_path": ("ckpt", "ckpt_path"),
    "weights": ("ckpt", "ckpt_path"),
    "resume": ("ckpt_path", "ckpt"),
    "resume_from": ("ckpt_path", "ckpt"),
    "output_dir": ("paths.log_dir",),
    "project": ("paths.log_dir",),
    "random_seed": ("seed",),
}


def nearest_key(key: str, valid: Collection[str]) -> str | None:
    """The valid key that is most like this one, by the whole path or by its last part; None where none is."""
    leaf = key.rpartition(".")[2]
    for habit in HABITS.get(leaf, ()):
        if habit in valid:
            return habit

    def likeness(candidate: str) -> tuple[float, float]:
        path = SequenceMatcher(None, key, candidate).ratio()
        last = SequenceMatcher(None, leaf, candidate.rpartition(".")[2]).ratio()
        return max(path, 0.85 * last), path

    best = max(valid, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= 0.6 else None


def unknown_door(door: str) -> str:
    """One line about a program that does not exist."""
    near = get_close_matches(door, doors(), n=1, cutoff=0.5)
    advice = f", did you mean {near[0]}?" if near else ""
    return f"there is no {door}{advice} (doors: {', '.join(doors())})"


def unknown_key(key: str, valid: Collection[str]) -> str:
    """One line about a key that the chosen configuration does not have."""
    if key.partition(".")[0] in valid and (others := options_with(key)):
        return f"{key} is no key of the present choice, it belongs to {', '.join(others)}"
    suggestion = nearest_key(key, valid)
    advice = f"did you mean {suggestion}?" if suggestion else "--help lists the choices, --cfg job all keys"
    return f"unknown key {key}, {advice}"


def unknown_option(group: str, option: str | None) -> str:
    """One line about `group=option` where the group has no such option (None: null was given)."""
    if option is None:
        return f"{group}=null is no option: leave {group} out, or choose one (options: {', '.join(options(group))})"
    near = get_close_matches(option, options(group), n=1, cutoff=0.5)
    advice = f", did you mean {group}={near[0]}?" if near else ""
    return f"{group} has no option {option}{advice} (options: {', '.join(options(group))})"
