import pytest

from petseg_lightning.structure import misfits

DEFAULT = {
    "seed": 0,
    "ckpt": "???",
    "note": None,
    "preprocessing": {"mean": [0.5, 0.5, 0.5]},
    "model": {"_target_": "a.Model", "depth": 3, "name": "x", "bias": True},
    "callbacks": {"bar": {"_target_": "a.Bar", "rate": 10}, "best": {"_target_": "a.Best"}},
    "mixing": {},
    "paths": {"log_dir": "logs"},
    "loss": {"_target_": "a.Sum", "weights": {"dice": 1.0}, "terms": {"dice": {"_target_": "a.Dice"}}},
    "scheduler": {"scheduler": {"_target_": "a.Cosine", "_partial_": True}, "interval": "step"},
}


def changed(key: str, *value: object) -> dict:
    """DEFAULT with a key that has another value, or without a value is gone."""

    def copy(node):
        return {k: copy(v) for k, v in node.items()} if isinstance(node, dict) else node

    values = node = copy(DEFAULT)
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    if value:
        node[last] = value[0]
    else:
        del node[last]
    return values


@pytest.mark.parametrize(
    "change",
    [
        ("seed", 0.5),  # another number
        ("note", [1]),  # null says nothing about what else it may be
        ("ckpt", "best.ckpt"),
        ("ckpt", "???"),  # what must be given is asked for by the checks
        ("model.name", {"_target_": "mine.Name"}),
        ("model._target_", "mine.Model"),
        ("model.size", 5),  # the constructor says whether it takes it
        ("callbacks.bar",),
        ("callbacks.bar", None),
        ("callbacks.mine", {"_target_": "mine.Callback"}),
        ("callbacks.mine", None),
        ("loss.terms.dice",),
        ("loss.weights.dice",),
        ("loss.weights.focal", 0.5),
        ("scheduler.scheduler", None),
        ("paths.mine", "x"),
    ],
)
def test_what_fits(change):
    assert misfits(changed(*change), DEFAULT) == ([], [])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("ckpt",), "ckpt cannot be removed: give it another value"),
        (("ckpt", None), "ckpt=null must be a value of its own"),
        (("model",), "model cannot be removed: give it another value"),
        (("model.depth",), "model.depth cannot be removed: give it another value"),
        (("callbacks.bar.rate",), "callbacks.bar.rate cannot be removed: give it another value"),
        (("model", [1]), "model=[1] must be a part with keys of its own (model.<key>=...)"),
        (("model", None), "model=null must be a part with keys of its own (model.<key>=...)"),
        (("mixing", 3), "mixing=3 must be a part with keys of its own (mixing.<key>=...)"),
        (("preprocessing", None), "preprocessing=null must be a part with keys of its own (preprocessing.<key>=...)"),
        (("model._target_", 7), "model._target_=7 must be the import path of a class or function"),
        (("model.name", 7), "model.name=7 must be text"),
        (("model.name", None), "model.name=null must be text"),
        (("model.bias", 1), "model.bias=1 must be true or false"),
        (("callbacks.bar.rate", "x"), "callbacks.bar.rate=x must be a number"),
        (("callbacks.bar.rate", True), "callbacks.bar.rate=true must be a number"),
        (("callbacks.bar.rate", {"a": 1}), "callbacks.bar.rate={a:1} must be a number"),
        (("callbacks.mine", 5), "callbacks.mine=5 must be a part with a _target_, or null"),
        (("callbacks.mine", {"rate": 1}), "callbacks.mine={rate:1} must be a part with a _target_, or null"),
        (("model._partial_", True), "model._partial_ cannot be added: leave it out"),
        (("scheduler.scheduler._partial_", False), "scheduler.scheduler._partial_=false must be true"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_said_in_a_line(change, problem):
    assert misfits(changed(*change), DEFAULT) == ([problem], [])


@pytest.mark.parametrize("key", ["sed", "preprocessing.size", "mixing.alpha", "scheduler.monitor"])
def test_a_key_that_nothing_reads_is_named(key):
    assert misfits(changed(key, 1), DEFAULT) == ([], [key])


def test_of_what_is_missing_only_the_whole_is_named():
    assert misfits({**DEFAULT, "loss": 3}, DEFAULT)[0] == [
        "loss=3 must be a part with keys of its own (loss.<key>=...)"
    ]
