import itertools
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from petseg_lightning.comparing.folders import find_folders
from petseg_lightning.comparing.runs import (
    ABSENT,
    WITHOUT_EFFECT,
    differences,
    find_baseline,
    group,
    read_runs,
    require_comparable,
    setting_values,
)
from petseg_lightning.conf_tree import flatten
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError


def settings_of(*patterns):
    runs, skipped = read_runs(find_folders(patterns))
    return group(runs), skipped


def seeds(setting):
    return [run.seed for run in setting.runs]


@pytest.mark.parametrize("pattern", ["{0}", "{0}/*", "{0}/**", "{0}/[0-9]"])
def test_a_sweep_and_a_glob_are_its_runs_in_natural_order(sweep, write_run, truths, pattern):
    shutil.move(write_run("x", truths), sweep / "10")
    expected = [sweep / str(job) for job in range(6)] + ([] if "[" in pattern else [sweep / "10"])
    (sweep / "multirun.yaml").touch()
    assert find_folders([pattern.format(sweep)]) == expected
    assert find_folders([str(sweep / "1"), pattern.format(sweep)]) == expected


def test_seeds_are_the_repetitions_of_a_setting(sweep):
    settings, skipped = settings_of(str(sweep))
    assert [(setting.label, seeds(setting)) for setting in settings] == [
        ("optimizer.lr=0.001", [0, 1, 2]),
        ("optimizer.lr=0.1", [0, 1, 2]),
    ]
    assert skipped == []
    assert settings[0].mean("miou") > settings[1].mean("miou")


def test_what_has_no_effect_is_no_setting_of_its_own(write_run, truths, tmp_path):
    write_run("a", truths, {"seed": 0})
    write_run("b", truths, {"seed": 1, "paths.log_dir": "elsewhere", "data.cache": "memory", "ckpt_path": "a"})
    ((setting,), _) = settings_of(str(tmp_path / "runs"))
    assert setting.label == "defaults"
    assert seeds(setting) == [0, 1]


def test_the_difference_of_configs_is_exactly_what_differs(write_run, truths, tmp_path):
    light = [{"_target_": "Flip", "p": 0.5}, {"_target_": "Blur", "limit": [1, 3]}]
    write_run("a", truths, {"augmentation.transforms": light, "compute.precision": "bf16-mixed", "seed": 3})
    write_run("b", truths, {"trainer.max_epochs": 8, "data.root": "elsewhere"})
    settings, _ = settings_of(str(tmp_path / "runs"))
    first, second = sorted(settings, key=seeds, reverse=True)
    assert differences(first, second) == {
        "augmentation.transforms.0._target_": ("Flip", ABSENT),
        "augmentation.transforms.0.p": (0.5, ABSENT),
        "augmentation.transforms.1._target_": ("Blur", ABSENT),
        "augmentation.transforms.1.limit": ([1, 3], ABSENT),
        "augmentation.transforms": (ABSENT, []),
        "compute.precision": ("bf16-mixed", "auto"),
        "trainer.precision": ("bf16-mixed", "auto"),  # an interpolation, resolved
        "trainer.max_epochs": (4, 8),
    }
    assert differences(first, first) == {}


def test_keys_without_effect_are_keys_of_a_training():
    keys = set(flatten(OmegaConf.to_container(compose("train", ["sweep=optuna"])))) | {
        "data.download",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
    }
    assert set(WITHOUT_EFFECT) <= keys


def test_a_real_config_resolves_without_hydra(tmp_path):
    cfg = compose("train", ["data=synthetic", "seed=5"], output_dir=tmp_path)
    values = setting_values(cfg)
    assert values["data.num_test"] == cfg.data.num_test
    assert values["callbacks.best_checkpoint.monitor"] == "val/miou"
    assert not [key for key in values if "dirpath" in key or key.startswith(("paths", "logger")) or key == "seed"]
    assert not [
        value for value in values.values() if isinstance(value, str) and ("${" in value or str(tmp_path) in value)
    ]


def test_labels_are_what_sets_a_setting_apart(write_run, truths, tmp_path):
    for name, overrides in {
        "a": {"trainer.max_epochs": 9},
        "b": {"trainer.max_epochs": 9, "optimizer.lr": 0.01},
        "c": {"trainer.max_epochs": 9, "optimizer.lr": 0.02, "model.base_channels": 4},
    }.items():
        write_run(name, truths, overrides)
    config = tmp_path / "runs" / "d" / ".hydra" / "config.yaml"  # the code's defaults changed: no override tells
    write_run("d", truths, {"trainer.max_epochs": 9})
    config.write_text(config.read_text().replace("precision: auto", "precision: 32-true"))
    settings, _ = settings_of(str(tmp_path / "runs"))
    assert sorted(setting.label for setting in settings) == [
        "defaults (compute.precision=32-true trainer.precision=32-true)",
        "defaults (compute.precision=auto trainer.precision=auto)",
        "optimizer.lr=0.01",
        "optimizer.lr=0.02 model.base_channels=4",
    ]
    assert find_baseline(settings, "base_channels").label == "optimizer.lr=0.02 model.base_channels=4"
    assert find_baseline(settings, "0.01").label == "optimizer.lr=0.01"
    with pytest.raises(InputError, match=r"baseline=optimizer.lr is in 2 settings .*they are .*optimizer.lr=0.01"):
        find_baseline(settings, "optimizer.lr")
    with pytest.raises(InputError, match="in 0 settings"):
        find_baseline(settings, "nonsense")


def test_a_whole_override_or_value_goes_before_a_part(write_run, truths, tmp_path):
    write_run("a", truths, {"optimizer._target_": "adam"})
    write_run("b", truths, {"optimizer._target_": "adamw"})
    settings, _ = settings_of(str(tmp_path / "runs"))
    assert find_baseline(settings, "adam").label == "optimizer._target_=adam"


def test_runs_that_did_not_end_and_those_of_other_doors_are_left_out(sweep):
    (sweep / "0" / "metrics.json").unlink()
    (sweep / "1" / ".hydra" / "hydra.yaml").write_text("hydra: {job: {name: benchmark}}")
    (sweep / "2" / ".hydra" / "hydra.yaml").write_text("hydra: {job: {name: train}}")
    settings, skipped = settings_of(str(sweep))
    assert list(map(seeds, settings)) == [[2], [0, 1, 2]]
    assert [(one.path, one.reason) for one in skipped] == [
        (sweep / "0", "unfinished (no metrics.json)"),
        (sweep / "1", "a run of benchmark, not a training"),
    ]


def test_a_seed_again_is_no_second_repetition(sweep):
    again = shutil.copytree(sweep / "4", sweep / "9")
    environment = json.loads((again / "environment.json").read_text())
    (again / "environment.json").write_text(json.dumps(environment | {"finished": "99"}))
    settings, skipped = settings_of(str(sweep))
    assert seeds(settings[1]) == [0, 1, 2]
    assert settings[1].runs[1].folder.path == again
    assert [(one.path, one.reason) for one in skipped] == [(sweep / "4", f"trained again in {again}")]


def test_runs_scored_on_other_things_are_refused_in_one_line(sweep):
    def edit(run, file, change):
        path = sweep / run / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    runs, _ = read_runs(find_folders([str(sweep)]))
    require_comparable(runs)
    edit("0", "metrics.json", lambda values: values.update(class_names=["pet", "background", "edge"]))
    edit("2", "metrics.json", lambda values: values.update(image_size=32))
    rewrite(sweep / "3", "beagle_7", "pug_7")
    edit(
        "4", "metrics.json", lambda values: values["splits"]["test"]["protocols"].update(own={"miou": 0, "accuracy": 0})
    )
    edit("4", "metrics.json", lambda values: values.update(headline="own"))
    runs, _ = read_runs(find_folders([str(sweep)]))
    with pytest.raises(InputError) as error:
        require_comparable(runs)
    message = str(error.value)
    assert f"headline protocol: trimap in {sweep / '0'} and 4 more, own in {sweep / '4'}" in message
    assert f"classes: pet, background, edge in {sweep / '0'}, pet, background, border in {sweep / '1'} and" in message
    assert f"image size: 16 in {sweep / '0'} and 4 more, 32 in {sweep / '2'}" in message
    assert f"test pictures: 40 of their own in {sweep / '0'} and 4 more, 40 of their own in {sweep / '3'}" in message
    assert "\n" not in message


def rewrite(run: Path, old: str, new: str) -> None:
    table = (run / "per_image.csv").read_text()
    assert old in table
    (run / "per_image.csv").write_text(table.replace(old, new))


def test_only_what_was_tested_must_be_the_same(sweep):
    """Not what was trained on: the fingerprint of all data differs with data.fold and data.train_fraction."""
    environment = sweep / "1" / "environment.json"
    environment.write_text(environment.read_text().replace("0123456789abcdef", "fedcba9876543210"))
    require_comparable(read_runs(find_folders([str(sweep)]))[0])


@pytest.mark.parametrize(
    ("column", "change", "differs"),
    [
        ("fraction_pet", lambda values: values.where(values.index != 3, 0.5), True),  # one mask
        ("pixels", lambda values: values + (values.index == 3), True),
        ("edge_contrast", lambda values: 0.9 * values, True),  # blurred pictures, the same masks
        ("edge_contrast", lambda values: values + 1e-6, False),  # another processor
        ("edge_contrast", lambda values: values.where(values.index != 3), True),
        ("accuracy", lambda values: 0 * values, False),
    ],
)
def test_pictures_of_the_same_names_are_told_apart_by_their_masks_and_contrast(sweep, column, change, differs):
    table = pd.read_csv(sweep / "1" / "per_image.csv")
    table[column] = change(table[column])
    table.to_csv(sweep / "1" / "per_image.csv", index=False)
    runs, _ = read_runs(find_folders([str(sweep)]))
    message = rf"test pictures of fingerprint: \w+ in {sweep}/0 and 4 more, \w+ in {sweep}/1\)"
    with pytest.raises(InputError, match=message) if differs else nullcontext():
        require_comparable(runs)


def test_runs_of_older_versions_are_told_apart_by_the_columns_that_all_have(sweep):
    table = pd.read_csv(sweep / "1" / "per_image.csv")
    table[["name", "miou", "pixels"]].to_csv(sweep / "1" / "per_image.csv", index=False)
    require_comparable(read_runs(find_folders([str(sweep)]))[0])


def test_folds_and_seeds_are_the_repetitions_of_a_setting(write_run, truths, tmp_path, flipped):
    for number, (fold, seed, rate) in enumerate(itertools.product((0, 1, 2), (0, 1), (0.001, 0.1))):
        overrides = {"data.num_folds": 3, "data.fold": fold, "seed": seed, "optimizer.lr": rate}
        write_run(str(number), flipped(truths, 0.05 + rate, number), overrides)
    settings, skipped = settings_of(str(tmp_path / "runs"))
    assert skipped == []
    assert [setting.label for setting in settings] == ["optimizer.lr=0.001", "optimizer.lr=0.1"]
    expected = [f"seed {seed}, fold {fold}" for seed in (0, 1) for fold in (0, 1, 2)]
    assert [run.repetition for run in settings[0].runs] == expected
    assert differences(*settings) == {"optimizer.lr": (0.001, 0.1)}


def test_a_fold_without_a_number_of_folds_means_nothing(write_run, truths, tmp_path):
    write_run("a", truths, {"data.fold": 0})
    write_run("b", truths, {"data.fold": 1})
    ((setting,), skipped) = settings_of(str(tmp_path / "runs"))
    assert [run.repetition for run in setting.runs] == ["seed 0"]
    assert [(one.path.name, one.reason) for one in skipped] == [("a", f"trained again in {tmp_path / 'runs' / 'b'}")]


def test_the_part_that_is_trained_on_is_a_setting(write_run, truths, tmp_path, flipped):
    for fraction, seed in itertools.product((0.25, 1.0), (0, 1)):
        masks = flipped(truths, 0.2 - 0.1 * fraction, seed)
        write_run(f"{fraction}{seed}", masks, {"data.train_fraction": fraction, "seed": seed})
    settings, _ = settings_of(str(tmp_path / "runs"))
    assert [setting.label for setting in settings] == ["data.train_fraction=1.0", "data.train_fraction=0.25"]


def test_counts_are_those_of_the_matrix(sweep):
    runs, _ = read_runs([sweep / "0"])
    intersections, unions = runs[0].counts
    assert (intersections.sum(0) / unions.sum(0)).tolist() == list(runs[0].scores["iou"].values())
    table = sweep / "0" / "per_image.csv"
    table.write_text(table.read_text().replace("union_border", "something"))
    runs, _ = read_runs([sweep / "0"])
    assert runs[0].counts is None


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*"])
def test_nothing_is_there(path):
    with pytest.raises(InputError, match=r"runs=nowhere.* matches no folder: give run folders, sweeps, or a glob"):
        find_folders([path])


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(InputError, match=rf"{Path(tmp_path).name}.* is no run folder and holds none"):
        find_folders([str(tmp_path)])
