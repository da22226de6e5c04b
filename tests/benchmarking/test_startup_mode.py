"""Starts in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from petseg_lightning.benchmarking import startup_mode
from petseg_lightning.benchmarking.startup_mode import FIRST_STEP, IMPORTS, measure_startup
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError


@pytest.fixture
def starts(monkeypatch):
    """Commands and environments of the processes that would have been started, each of which takes 2 seconds."""
    calls, now = [], [0.0]

    def run(command, env, stdout, **_):
        calls.append((command, env))
        now[0] += 2
        stdout.write(f"...\n{FIRST_STEP}\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(startup_mode, "perf_counter", lambda: now[0])
    return calls


@pytest.mark.parametrize(("rounds", "later"), [(1, 1), (2, 2), (9, 3)])
def test_first_and_later_starts_with_the_settings_of_the_benchmark(tiny_overrides, starts, monkeypatch, rounds, later):
    own = ["mode=startup", f"rounds={rounds}", "seconds=3", "hydra.run.dir=x", "paths.log_dir=y", "data.cache_dir=z"]
    training = [text for text in tiny_overrides if not text.startswith(("rounds", "seconds"))]
    training += ["model=fcn", "model.base_channels=3", "+model.other=1"]
    monkeypatch.setattr(startup_mode, "overrides", lambda: [*own, *training])
    result = measure_startup(compose("benchmark", [*tiny_overrides, f"rounds={rounds}"]))
    assert result == {
        "seconds": {
            "imports": [2.0] * later,
            "data check": [0.0] * later,
            "first start": [2.0],
            "second start": [2.0] * later,
        }
    }
    trainings = [(command, env) for command, env in starts if IMPORTS not in command]
    assert len(trainings) == 1 + later
    assert len(starts) == 1 + 2 * later
    assert trainings[1:] == [trainings[0]] * later
    command, environment = trainings[0]
    assert command[: 3 + len(training)] == [sys.executable, "-m", "petseg_lightning.train", *training]
    folder = Path(command[3 + len(training)].removeprefix("paths.log_dir=")).parent
    assert command[3 + len(training) :] == [
        f"paths.log_dir={folder}/logs",
        f"data.cache_dir={folder}/pictures",
        "+callbacks.end._target_=petseg_lightning.benchmarking.startup_mode.EndAfterFirstStep",
    ]
    assert not folder.exists()
    assert environment == dict(os.environ)


def test_the_data_is_there_before_the_first_start(tiny_overrides, starts, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(startup_mode, "_start", lambda _: seen.append((tmp_path / "new").is_dir()) or 1.0)
    measure_startup(compose("benchmark", [*tiny_overrides, f"data.root={tmp_path / 'new'}", "rounds=1"]))
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [
        (1, "", "warning\nerror: no data\n", "error: no data"),
        (0, "nothing\n", "", "no message"),
    ],
)
def test_a_training_that_does_not_start_is_an_error_of_one_line(tiny_overrides, monkeypatch, code, out, err, words):
    def run(command, stdout, stderr, **_):
        stdout.write(out)
        stderr.write(err)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError) as caught:
        measure_startup(compose("benchmark", tiny_overrides))
    assert str(caught.value) == (
        f"a training with these settings does not reach its first step ({words}); run petseg train to see why"
    )


def test_workers_that_outlive_a_start_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import subprocess as s; p = s.Popen('sleep 30; touch ended', shell=True, start_new_session=True); "
    code += f"open('worker', 'w').write(str(p.pid)); print({FIRST_STEP!r})"
    startup_mode._seconds([sys.executable, "-c", code], dict(os.environ))
    assert not Path("ended").exists()
    os.killpg(int(Path("worker").read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_measures_real_starts(tiny_overrides, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "petseg_lightning.benchmark", *tiny_overrides, "mode=startup", "rounds=1",
         "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds = json.loads((tmp_path / "run/benchmark.json").read_text())["startup"]["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(
        ["imports", "data check", "first start", "second start"], 1
    )
    assert all(value > 0 for (value,) in seconds.values())
    assert "A later start takes " in done.stdout
    assert done.stdout.splitlines()[-1] == f"run folder  {tmp_path / 'run'}"
    assert (tmp_path / "run/benchmark.png").is_file()
