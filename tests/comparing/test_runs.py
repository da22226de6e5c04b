import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from petseg_lightning.comparing.runs import (
    ABSENT,
    WITHOUT_EFFECT,
    differences,
    find_baseline,
    find_folders,
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


@pytest.mark.parametrize("pattern", ["{0}", "{0}/*", "{0}/**", "{0}/[0-9]"])
def test_a_sweep_and_a_glob_are_its_runs_in_natural_order(sweep, write_run, truths, pattern):
    shutil.move(write_run("x", truths), sweep / "10")
    expected = [sweep / str(job) for job in range(6)] + ([] if "[" in pattern else [sweep / "10"])
    (sweep / "multirun.yaml").touch()
    assert find_folders(pattern.format(sweep)) == expected
    assert find_folders([str(sweep / "1"), pattern.format(sweep)]) == expected


def test_seeds_are_the_repetitions_of_a_setting(sweep):
    settings, skipped = settings_of(str(sweep))
    assert [(setting.label, setting.seeds) for setting in settings] == [
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
    assert setting.seeds == [0, 1]


def test_the_difference_of_configs_is_exactly_what_differs(write_run, truths, tmp_path):
    light = [{"_target_": "Flip", "p": 0.5}, {"_target_": "Blur", "limit": [1, 3]}]
    write_run("a", truths, {"augmentation.transforms": light, "compute.precision": "bf16-mixed", "seed": 3})
    write_run("b", truths, {"trainer.max_epochs": 8, "data.root": "elsewhere"})
    settings, _ = settings_of(str(tmp_path / "runs"))
    first, second = sorted(settings, key=lambda setting: setting.seeds, reverse=True)
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
    keys = set(flatten(OmegaConf.to_container(compose("train")))) | {
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
        "defaults (1)",
        "defaults (2)",
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
    assert [setting.seeds for setting in settings] == [[2], [0, 1, 2]]
    assert [(one.path, one.reason) for one in skipped] == [
        (sweep / "0", "unfinished (no metrics.json)"),
        (sweep / "1", "a run of benchmark, not a training"),
    ]


def test_a_seed_again_is_no_second_repetition(sweep):
    again = shutil.copytree(sweep / "4", sweep / "9")
    environment = json.loads((again / "environment.json").read_text())
    (again / "environment.json").write_text(json.dumps(environment | {"finished": "99"}))
    settings, skipped = settings_of(str(sweep))
    assert settings[1].seeds == [0, 1, 2]
    assert settings[1].runs[1].folder.path == again
    assert [(one.path, one.reason) for one in skipped] == [(sweep / "4", f"the setting and seed of {again} again")]


def test_runs_scored_on_other_things_are_refused_in_one_line(sweep):
    def edit(run, file, change):
        path = sweep / run / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    runs, _ = read_runs(find_folders(str(sweep)))
    require_comparable(runs)
    edit("1", "environment.json", lambda values: values["data"].update(fingerprint="fedcba9876543210"))
    edit("2", "metrics.json", lambda values: values.update(image_size=32))
    table = (sweep / "3" / "per_image.csv").read_text()
    (sweep / "3" / "per_image.csv").write_text(table.replace("beagle_7", "pug_7"))
    edit("4", "metrics.json", lambda values: values["splits"]["test"]["protocols"].update(own={"miou": 0}))
    edit("4", "metrics.json", lambda values: values.update(headline="own"))
    runs, _ = read_runs(find_folders(str(sweep)))
    with pytest.raises(InputError) as error:
        require_comparable(runs)
    message = str(error.value)
    assert f"0123456789abcdef in {sweep / '0'} and 4 more, fedcba9876543210 in {sweep / '1'}" in message
    assert f"headline protocol: trimap in {sweep / '0'} and 4 more, own in {sweep / '4'}" in message
    assert f"image size: 16 in {sweep / '0'} and 4 more, 32 in {sweep / '2'}" in message
    assert f"test pictures: 40 of their own in {sweep / '0'} and 4 more, 40 of their own in {sweep / '3'}" in message
    assert "\n" not in message


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
        find_folders(path)


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(InputError, match=rf"{Path(tmp_path).name}.* is no run folder and holds none"):
        find_folders([str(tmp_path)])
