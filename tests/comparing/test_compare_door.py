"""The door as the user meets it: what it prints and leaves, and one line for whatever is wrong."""

import logging
import shutil
import sys

import pandas as pd
import pytest

from petseg_lightning.compare import main


@pytest.fixture
def compare(monkeypatch, tmp_path, capfd):
    """(overrides, expected exit code) -> stdout, stderr; in a folder of its own."""
    folder = tmp_path / "working_folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # else the door leaves it set
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PETSEG_TRACEBACK", raising=False)

    def run(*overrides: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["compare", *overrides])
        if code:
            with pytest.raises(SystemExit) as end:
                main()
            assert end.value.code == code
        else:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return out, err

    level = logging.root.level
    yield run
    logging.root.setLevel(level)
    for handler in [h for h in logging.root.handlers if type(h) is logging.StreamHandler]:
        logging.root.removeHandler(handler)  # Hydra's: it writes to the stdout of this test


def test_a_sweep(compare, sweep):
    (sweep / "5" / "metrics.json").unlink()
    out, err = compare(f"runs={sweep}/*", "resamples=200")
    assert err == ""
    assert "1: optimizer.lr=0.001\n2: optimizer.lr=0.1\n" in out
    assert "1 - 2" in out
    assert "1 is better" in out
    assert f"left out: {sweep}/5: unfinished (no metrics.json)" in out
    assert "named only, not shown: no checkpoint at" in out
    *_, page_line, last = out.splitlines()
    folder = sweep.parent / "working_folder" / last.removeprefix("run folder").strip()
    assert page_line.endswith("index.html")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".hydra",
        "comparisons.csv",
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
    ]
    assert list(pd.read_csv(folder / "leaderboard.csv")["seeds"]) == [3, 2]
    (row,) = pd.read_csv(folder / "comparisons.csv").to_dict("records")
    assert row["differs"] == "optimizer.lr: 0.001 | 0.1"
    assert row["low"] < row["difference"] < row["high"]


def test_a_list_and_a_baseline(compare, sweep):
    out, _ = compare(f"runs=['{sweep}/[01]',{sweep}/3]", "baseline=0.001", "resamples=100")
    assert "as trained once" in out
    assert "petseg train -m seed=0,1,2" in out


def test_a_single_setting_has_a_leaderboard_only(compare, write_run, truths, flipped, tmp_path):
    for seed in range(2):
        write_run(str(seed), flipped(truths, 0.1, seed), {"seed": seed})
    out, _ = compare(f"runs={tmp_path}/runs")
    assert "There is one setting, and nothing to compare it with." in out
    assert "Differences" not in out
    (page,) = tmp_path.glob("working_folder/logs/compare/runs/*/index.html")
    assert not (page.parent / "comparisons.csv").exists()
    assert "There is one setting" in page.read_text()


def test_claims_and_the_exit_code(compare, write_run, truths, flipped, tmp_path):
    good = write_run("good", flipped(truths, 0.1, 0), train_predictions=flipped(truths, 0.08, 0))
    out, err = compare("claims=paper", f"run={good}")
    assert out.count("yes") == 5
    assert err == ""
    bad = write_run("bad", flipped(truths, 0.3, 0))
    out, err = compare("claims=paper", f"run={bad}", code=1)
    assert out.count(" no ") == 3
    assert err.startswith("error: 3 of 5 claims do not hold (Test accuracy: 0.")
    assert err.count("\n") == 1
    assert len([*tmp_path.glob("working_folder/logs/compare/runs/*/claims.csv")]) >= 1


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["runs=nowhere/*"], ("runs=nowhere/* matches no folder", "in quotes")),
        (["runs={sweep}/0/.hydra"], ("is no run folder and holds none", "petseg train")),
        ([], ("nothing to compare: add 'runs=", "claims=paper run=")),
        (["claims=paper"], ("add run=<run folder>",)),
        (["claims=paper", "run=nowhere"], ("nowhere is no run folder: metrics.json is missing",)),
        (["claims=papr", "run=x"], ("claims has no option papr, did you mean claims=paper?",)),
        (["runs={sweep}", "baseline=sgd"], ("baseline=sgd is in 0 settings", "optimizer.lr=0.001; optimizer.lr=0.1")),
        (["run={sweep}/0", "runs={sweep}/0", "bseline=x"], ("bseline", "did you mean baseline?")),
    ],
)
def test_bad_input(compare, sweep, overrides, parts, tmp_path):
    _, err = compare(*(text.format(sweep=sweep) for text in overrides), code=1)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err
    assert not [path for path in (tmp_path / "working_folder").rglob("*") if path.is_file()]


def test_nothing_finished_and_other_data(compare, sweep):
    environment = sweep / "3" / "environment.json"
    environment.write_text(environment.read_text().replace("0123456789abcdef", "other"))
    _, err = compare(f"runs={sweep}", code=1)
    assert "scored on different things (data (fingerprint): 0123456789abcdef in" in err
    assert err.count("\n") == 1
    for job in range(1, 6):
        shutil.rmtree(sweep / str(job))
    (sweep / "0" / "metrics.json").unlink()
    _, err = compare(f"runs={sweep}", code=1)
    assert f"no finished training among the runs ({sweep}/0: unfinished" in err
    assert err.count("\n") == 1
