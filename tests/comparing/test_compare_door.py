"""The door as the user meets it: what it prints and leaves, and one line for whatever is wrong."""

import logging
import re
import shutil
import subprocess
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
        "comparisons.md",
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
    ]
    assert list(pd.read_csv(folder / "leaderboard.csv")["runs"]) == [3, 2]
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
    page, folder = (line.split(maxsplit=1 + (i == 1))[-1] for i, line in enumerate(out.splitlines()[-2:]))
    folder = tmp_path / "working_folder" / folder
    assert sorted(path.name for path in folder.iterdir()) == [".hydra", "claims.csv", "claims.md", "index.html"]
    assert folder / "index.html" == tmp_path / "working_folder" / page


def test_tables_are_whole_in_a_narrow_terminal(compare, sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out, _ = compare(f"runs={sweep}", "resamples=100")
    assert max(map(len, out.partition("\n1: ")[0].splitlines())) <= 80
    assert "…" not in out
    for text in ("mean IoU", "accuracy", "95% interval", "IoU", "background", "p (Holm)", "1 is better"):
        assert text in out
    assert len(re.findall(r"0\.\d{3} ± 0\.\d{3}", out)) == len(re.findall(r"0\.\d{3} to 0\.\d{3}", out)) == 4
    monkeypatch.setenv("COLUMNS", "50")
    out, _ = compare(f"runs={sweep}", "resamples=100")
    assert max(map(len, out.partition("\n1: ")[0].splitlines())) <= 50
    assert "Test, continued" in out
    assert len(re.findall(r"0\.\d{3} ± 0\.\d{3}", out)) == 4


def test_how_the_score_grows_with_the_part_that_is_trained_on(compare, write_run, truths, flipped, tmp_path):
    for fraction in (0.25, 0.5, 1.0):
        for seed in (0, 1):
            run = write_run(
                f"{fraction}_{seed}",
                flipped(truths, 0.2 - 0.1 * fraction, seed),
                {"data.train_fraction": fraction, "seed": seed},
            )
            environment = run / "environment.json"  # the fingerprint of all data
            environment.write_text(environment.read_text().replace("0123456789abcdef", f"{fraction}"))
    out, err = compare(f"runs={tmp_path}/runs", "resamples=100", "baseline=1.0")
    assert err == ""
    assert "1: data.train_fraction=1.0\n2: data.train_fraction=0.5\n3: data.train_fraction=0.25\n" in out


def test_a_cross_validation(compare, write_run, truths, flipped, tmp_path):
    for fold in range(3):
        write_run(f"{fold}", flipped(truths, 0.1, fold), {"data.num_folds": 3, "data.fold": fold})
    out, _ = compare(f"runs={tmp_path}/runs")
    assert "1: data.num_folds=3\n" in out
    assert "Folds share most of their training pictures" in out
    (page,) = tmp_path.glob("working_folder/logs/compare/runs/*/index.html")
    assert page.read_text().count('<td class="num">0</td><td class="num">2</td>') == 1  # seed and fold


@pytest.mark.parametrize("overrides", [["runs=nowhere"], ["runs={sweep}"], ["claims=paper", "run=nowhere"], []])
def test_wrong_arguments_are_answered_before_heavy_imports(sweep, overrides, tmp_path):
    for metrics in sweep.glob("*/metrics.json"):
        metrics.unlink()
    code = "import sys; from petseg_lightning.compare import main\ntry: main()\n" + (
        "except SystemExit as end: print(end.code, sorted({'pandas', 'scipy', 'torch', 'jinja2'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code, *(text.format(sweep=sweep) for text in overrides)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1 []\n"
    assert done.stderr.startswith("error: ")


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


def test_nothing_finished_and_other_pictures(compare, sweep):
    table = sweep / "3" / "per_image.csv"
    table.write_text(table.read_text().replace("beagle_3,", "pug_3,"))
    _, err = compare(f"runs={sweep}", code=1)
    assert f"scored on different things (test pictures: 40 of their own in {sweep}/0 and 4 more, 40 of" in err
    assert err.count("\n") == 1
    for job in range(1, 6):
        shutil.rmtree(sweep / str(job))
    (sweep / "0" / "metrics.json").unlink()
    _, err = compare(f"runs={sweep}", code=1)
    assert f"no finished training among the runs ({sweep}/0: unfinished" in err
    assert err.count("\n") == 1
