import math
import re
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from petseg_lightning.errors import PrunedError
from petseg_lightning.sweeping.search import distribution, samples

optuna = pytest.importorskip("optuna")
SEARCH = ("sweep=optuna", "search.trials=6", "seed=1,2", "optimizer=adam", "loss=dice")


def parsed(text):
    (override,) = OverridesParser.create().parse_overrides([text])
    return override


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss=dice,focal", ("CategoricalDistribution", {"choices": ("dice", "focal")})),
        ("seed=choice(0,1)", ("CategoricalDistribution", {"choices": ("0", "1")})),
        ("model.depth=range(2,9,3)", ("IntDistribution", {"low": 2, "high": 8, "step": 3, "log": False})),
        ("x=range(0,1,0.25)", ("FloatDistribution", {"low": 0.0, "high": 0.75, "step": 0.25, "log": False})),
        ("x=interval(0,1)", ("FloatDistribution", {"low": 0.0, "high": 1.0, "step": None, "log": False})),
        ("x=tag(log,interval(1e-4,1))", ("FloatDistribution", {"low": 1e-4, "high": 1.0, "step": None, "log": True})),
        ("x=int(interval(1,8))", ("IntDistribution", {"low": 1, "high": 8, "step": 1, "log": False})),
    ],
)
def test_overrides_with_several_values_are_the_space(text, expected):
    assert distribution(parsed(text)) == getattr(optuna.distributions, expected[0])(**expected[1])


def test_every_value_is_checked_before_a_search():
    overrides = [parsed(text) for text in ("loss=dice,focal", "optimizer.lr=interval(1,2)", "seed=3")]
    assert samples(SimpleNamespace(overrides=overrides)) == [
        ["loss=dice", "optimizer.lr=1.0", "seed=3"],
        ["loss=focal", "optimizer.lr=1.0", "seed=3"],
        ["loss=dice", "optimizer.lr=2.0", "seed=3"],
    ]


def test_a_killed_search_goes_on_and_proposes_what_an_undisturbed_one_would(train, tmp_path):
    (tmp_path / "kill").touch()
    assert train(*SEARCH, "hydra.sweep.dir=a").returncode == -9
    begun = train.runs
    (tmp_path / "kill").unlink()
    done = train(*SEARCH, "hydra.sweep.dir=a")
    assert done.returncode == 0, done.stderr
    runs = [run[1:3] for run in [*begun[:-1], *train.runs]]
    assert train.runs[0][1:3] == begun[-1][1:3]
    assert len(runs) == 6
    rows = re.findall(r"│ +\d │ optimizer.lr=(\S+) seed=(\d) +│ finished +│ +0\.\d+ │", done.stdout)
    assert [[int(seed), float(rate)] for rate, seed in rows] == runs
    best = max(runs, key=lambda run: 1 - abs(run[1] - 0.25))
    assert f"optimizer.lr={best[1]}" in re.search(r"best of 6 finished trials: .*", done.stdout)[0]
    train(*SEARCH, "hydra.sweep.dir=b")
    assert [run[1:3] for run in train.runs] == runs


def test_failed_and_pruned_trials_are_marked_and_counted(train):
    done = train("sweep=optuna", "search.trials=4", "search.parallel=2", "seed=13,14", "optimizer=adam", "loss=dice",
                 "optimizer.lr=0.1", "hydra.sweep.dir=a")  # fmt: skip
    assert done.returncode == (1 if "failed" in train.states("a").values() else 0)
    assert set(train.states("a").values()) <= {"failed", "pruned"}
    assert len(re.findall(r"│ +\d │ seed=1[34] +│ (failed|pruned) ", done.stdout)) == 4


def test_a_trial_below_the_others_is_pruned_and_one_of_no_search_is_not(tmp_path):
    pytest.importorskip("lightning")
    torch = pytest.importorskip("torch")
    from petseg_lightning.callbacks.pruning import Pruning

    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "log"))
    storage = optuna.storages.JournalStorage(file)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1)

    def epoch(number, value, **trial):
        trainer = SimpleNamespace(
            sanity_checking=False, current_epoch=number, callback_metrics={"val/miou": torch.tensor(value)}
        )
        Pruning("val/miou", pruner, storage, **trial).on_validation_end(trainer, None)

    good, bad = study.ask(), study.ask()
    for number in range(3):
        epoch(number, 0.5, study="s", trial=good.number)
    study.tell(good, 0.5)
    epoch(0, 0.1, study="s", trial=bad.number)  # a warm-up
    with pytest.raises(PrunedError, match=r"val/miou is 0\.1000 after 2 epochs"):
        epoch(1, 0.1, study="s", trial=bad.number)
    epoch(1, 0.1)
    reported = study.get_trials()[bad.number].intermediate_values
    assert {step: math.isclose(value, 0.1, rel_tol=1e-6) for step, value in reported.items()} == {0: True, 1: True}
