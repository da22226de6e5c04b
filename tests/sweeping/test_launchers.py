"""Every launcher runs the jobs of a sweep in processes, and a sweep goes on with another launcher."""

import pytest

from petseg_lightning.sweeping.jobs import Sweep, hydra_of

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "ray",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_run_in_other_processes_and_leave_the_same_table(train, launcher):
    pytest.importorskip(LAUNCHERS[launcher])
    extra = ["hydra.launcher.init.num_cpus=2"] if launcher == "ray" else []
    command = ("-m", "seed=1,13,14,3", "hydra.sweep.dir=sweep")
    done = train(*command, f"hydra/launcher={launcher}", *extra)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("error: 1 of 4 jobs failed: job 1 (seed=13)")
    assert train.states("sweep") == {
        "seed-1": "finished", "seed-13": "failed", "seed-14": "pruned", "seed-3": "finished"
    }  # fmt: skip
    assert sorted(train.seeds) == [1, 3, 13, 14]
    assert (train.folder / "main.txt").read_text() not in {str(process) for process, *_ in train.runs}
    assert {seed: given for _, seed, _, _, given in train.runs} == {seed: {"seed": seed} for seed in (1, 13, 14, 3)}
    table = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line.split("│")[3].strip() for line in table] == ["finished", "failed", "pruned", "finished"]
    train(*command)
    assert train.seeds == [13]


def test_a_sweeps_folder_may_be_named_by_what_hydra_knows(train):
    pytest.importorskip(LAUNCHERS["joblib"])
    done = train(
        "-m", "seed=1,2", "hydra.sweep.dir='${hydra:job.name}_${hydra:runtime.choices.model}'", "hydra/launcher=joblib"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(train.states("train_unet_paper").values()) == {"finished"}


def test_a_job_whose_process_dies_does_not_take_the_table_along(train, tmp_path):
    pytest.importorskip(LAUNCHERS["joblib"])
    (tmp_path / "kill").touch()
    done = train("-m", "seed=1,2", "hydra.sweep.dir=sweep", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 1
    assert "error: launcher: TerminatedWorkerError" in done.stderr
    assert "job 1 (seed=2)" in done.stderr.splitlines()[-1]
    assert "│ interrupted │" in done.stdout


def test_slurm_gets_what_the_config_says():
    pytest.importorskip(LAUNCHERS["submitit_local"])
    sweep = Sweep.read(hydra_of("train"), "train", ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"])
    launcher = sweep.launcher(print)
    assert launcher.params["partition"] == "gpu"
    assert launcher.params["max_num_timeout"] == 20


@pytest.mark.parametrize("launcher", ["joblib", "submitit_slurm"])
def test_a_launcher_whose_packages_are_missing_says_how_to_get_them(train, launcher, tmp_path):
    (tmp_path / "hydra_plugins.py").write_text("__path__ = []\n")  # found first
    done = train("-m", "seed=1,2", f"hydra/launcher={launcher}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: hydra/launcher={launcher} needs packages that are not here: "
        f"pip install 'petseg-lightning[{launcher.partition('_')[0]}]'\n"
    )
    assert train.runs == []
