"""Which modes run, and on how many devices."""

import pytest
import torch

from petseg_lightning.benchmarking import run
from petseg_lightning.benchmarking.run import benchmark
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError

ORDER = ["startup", "data", "train", "inference"]


@pytest.fixture
def modes(monkeypatch):
    """Nothing is measured, shown or written; the list of the modes that were asked for."""
    called = []
    for mode in run.MODES:
        monkeypatch.setitem(run.MODES, mode, lambda _, mode=mode: called.append(mode) or {})
    for name in ("write_json", "write_picture", "print_tables"):
        monkeypatch.setattr(run, name, lambda *_: None)
    return called


@pytest.mark.parametrize("mode", [*ORDER, "all"])
def test_runs_the_mode_that_is_asked_for(modes, mode):
    results = benchmark(compose("benchmark", [f"mode={mode}"]))
    expected = ORDER if mode == "all" else [mode]
    assert modes == expected
    assert list(results) == ["model", "image_size", "batch_size", "threads", *expected, "environment"]


@pytest.mark.parametrize("devices", ["trainer.devices=1", "trainer.devices=[2]"])
def test_every_mode_runs_on_one_device(modes, devices):
    benchmark(compose("benchmark", [devices]))
    assert modes == ORDER


def test_training_is_measured_on_any_number_of_devices(modes):
    benchmark(compose("benchmark", ["mode=train", "trainer=ddp_cpu", "trainer.devices=3"]))
    assert modes == ["train"]


@pytest.mark.parametrize("mode", ["data", "inference", "startup", "all"])
@pytest.mark.parametrize(("devices", "shown"), [("2", "2"), ("-1", "-1"), ("[0,1]", "[0, 1]")])
def test_several_devices_in_another_mode_are_an_error_of_one_line(modes, mode, devices, shown):
    with pytest.raises(InputError) as caught:
        benchmark(compose("benchmark", [f"mode={mode}", f"trainer.devices={devices}"]))
    assert str(caught.value) == (
        f"mode={mode} trainer.devices={shown} measures one device: several are measured with mode=train, "
        "or choose trainer.devices=1"
    )
    assert modes == []


def test_the_devices_other_than_the_first_leave_nothing(modes, monkeypatch):
    monkeypatch.setitem(run.MODES, "train", lambda _: None)
    monkeypatch.setattr(run, "write_json", lambda *_: pytest.fail("written"))
    assert benchmark(compose("benchmark", ["mode=train"])) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_measures_a_gpu(measured, mode):
    results, _ = measured(f"mode={mode}", "trainer=gpu")
    assert all(rate > 0 for rates in results[mode]["rates"].values() for rate in rates)
    assert mode != "train" or results["train"]["peak_gpu_memory_mib"] > 0
