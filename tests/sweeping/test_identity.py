import pytest

from petseg_lightning.config import compose
from petseg_lightning.sweeping import identity as module
from petseg_lightning.sweeping.identity import folder_name, identity


@pytest.mark.parametrize(
    "override",
    [
        "data.root=elsewhere",
        "data.cache=memory",
        "data.num_workers=3",
        "paths.log_dir=elsewhere",
        "ckpt_path=last.ckpt",
        "callbacks.progress_bar.refresh_rate=1",
        "trainer.log_every_n_steps=1",
        "~logger.csv",
    ],
)
def test_where_and_how_a_job_runs_does_not_make_it_another(override):
    assert identity(compose("train", [override]), "d") == identity(compose("train"), "d")


@pytest.mark.parametrize(
    "override", ["seed=1", "optimizer.lr=0.5", "trainer.max_epochs=25", "data.fold=1", "model=fcn"]
)
def test_another_seed_or_configuration_is_another_job(override):
    changed = identity(compose("train", [override]), "d")
    assert changed != identity(compose("train"), "d")
    assert folder_name("", _root_=compose("train", [override])) != folder_name("", _root_=compose("train"))


def test_other_data_and_another_version_are_another_job(monkeypatch):
    cfg = compose("train")
    before, name = identity(cfg, "d"), folder_name("", _root_=cfg)
    assert identity(cfg, "e") != before
    monkeypatch.setattr(module, "__version__", "another")
    assert identity(cfg, "d") != before
    assert folder_name("", _root_=cfg) != name


def test_a_folder_is_named_by_overrides_without_signs_that_paths_or_child_processes_trip_over():
    cfg = compose("train")
    name = folder_name("loss-dice,+x.y=[1, 2],data.root-a/b c", _root_=cfg)
    assert name.startswith("loss-dice,+x.y-1,-2-,data.root-a-b-c_")
    assert len(folder_name("x" * 999, _root_=cfg)) < 100
