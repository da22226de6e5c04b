"""Sweeps of a door without torch, from the command line."""

import json
import re

import pytest

from petseg_lightning.conf_tree import options

FOUR = ("-m", "seed=1,2,3,4", "hydra.sweep.dir=sweep")


def test_a_killed_sweep_goes_on_where_it_was(train, tmp_path):
    (tmp_path / "kill").touch()
    killed = train(*FOUR)
    assert killed.returncode == -9
    assert train.states("sweep") == {"seed-1": "finished", "seed-2": "running"}
    (tmp_path / "kill").unlink()
    done = train(*FOUR)
    assert (done.returncode, done.stderr) == (0, "")
    assert train.seeds == [2, 3, 4]
    assert "job 0 (seed=1): finished before, not run again" in done.stdout
    rows = re.findall(r"│ +(\d) │ seed=(\d) +│ finished +│ +(0\.\d+) │", done.stdout)
    assert rows == [(str(job), str(job + 1), "0.751") for job in range(4)]
    assert train(*FOUR).returncode == 0
    assert train.seeds == []


def test_failed_jobs_are_run_again_and_pruned_ones_are_not(train):
    command = ("-m", "seed=1,13,14", "hydra.sweep.dir=sweep")
    done = train(*command)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: job 1 (seed=13): 13 brings bad luck",
        "error: 1 of 3 jobs failed: job 1 (seed=13)",
    ]
    assert "job 2 (seed=14): pruned, 14 promises little" in done.stdout
    assert train.states("sweep") == {"seed-1": "finished", "seed-13": "failed", "seed-14": "pruned"}
    assert train(*command).returncode == 1
    assert train.seeds == [13]


def test_other_overrides_have_other_folders_and_lose_nothing(train):
    train(*FOUR)
    train(*FOUR, "optimizer.lr=0.5")
    assert train.seeds == [1, 2, 3, 4]
    train("-m", "seed=4,1", "optimizer.lr=0.5", "hydra.sweep.dir=sweep", "data.cache=memory")
    assert train.seeds == []
    train("sweep=seeds", "hydra.sweep.dir=sweep", "optimizer.lr=0.5")
    assert train.seeds == [0]


def test_other_data_are_other_jobs(train, tmp_path):
    train(*FOUR)
    (tmp_path / "data.txt").write_text("data b")
    train(*FOUR)
    assert train.seeds == [1, 2, 3, 4]
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 8
    (tmp_path / "data.txt").write_text("data a")
    train(*FOUR)
    assert train.seeds == []


def test_another_commit_is_said(train, tmp_path):
    train(*FOUR)
    for file in (tmp_path / "sweep").glob("*/state.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "commit": "abc"}))
    done = train(*FOUR)
    assert done.stdout.count("finished before by another commit (abc), not run again") == 4


def test_a_mistake_that_hides_the_data_does_not_unmark_what_finished(train, tmp_path):
    train(*FOUR)
    (tmp_path / "data.txt").unlink()
    done = train(*FOUR)
    assert "No such file" in done.stderr
    assert set(train.states("sweep").values()) == {"finished"}


def test_presets_have_a_folder_of_their_own_and_take_further_overrides(train):
    done = train("sweep=seeds", "model=unet")
    assert done.returncode == 0, done.stderr
    assert train.seeds == [0, 1, 2]
    assert [given for *_, given in train.runs] == [{"seed": seed} for seed in range(3)]
    assert train.states("logs/train/sweeps/seeds") == {f"seed-{seed}": "finished" for seed in range(3)}
    done = train("sweep=seeds", "model=unet", "seed=2,3")
    assert train.seeds == [3]


def test_a_removed_key_is_removed_in_every_job(train):
    done = train("-m", "seed=1,2", "~logger.csv")
    assert (done.returncode, train.seeds) == (0, [1, 2])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "sweep=seds",
            f"sweep has no option seds, did you mean sweep=seeds? (options: {', '.join(options('sweep'))})",
        ),
        ("sweep=seeds modell=unet", "unknown key modell, did you mean model?"),
        ("sweep=seeds seed=-1,-2", "seed=-1 must be a whole number from 0 to 4294967295"),
        (
            "-m optimizer.lr=interval(0,1)",
            "optimizer.lr=interval(0,1) is a continuous range, from which a search draws: list values, "
            "or add sweep=optuna",
        ),
        (
            "sweep=seeds hydra/launcher=jobli",
            "hydra/launcher has no option jobli, did you mean hydra/launcher=joblib? "
            "(options: joblib, local, ray, submitit_local, submitit_slurm)",
        ),
    ],
)
def test_wrong_input_is_one_line_and_runs_nothing(train, arguments, line):
    done = train(*arguments.split())
    assert (done.returncode, done.stderr) == (1, f"error: {line}\n")
    assert train.runs == []
