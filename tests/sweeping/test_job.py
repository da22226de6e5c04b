import pytest

from petseg_lightning.sweeping.job import _keep_log, _same_job, _unfinished
from petseg_lightning.sweeping.state import FINISHED, RUNNING, State

torch = pytest.importorskip("torch")
A, B = {"config": "c", "data": "a", "version": "1"}, {"config": "c", "data": "b", "version": "1"}


def checkpoint(folder, epoch, callbacks):
    from petseg_lightning.segmenter import CHECKPOINT_KEY

    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(exist_ok=True)
    description = {key: {} for key in ("model", "target", "preprocessing", "data")}
    torch.save({"epoch": epoch, "callbacks": callbacks, CHECKPOINT_KEY: description}, path)
    return path


def test_only_a_training_that_has_not_ended_is_resumed(tmp_path):
    assert _unfinished(tmp_path, 3) is None
    path = checkpoint(tmp_path, 1, {"EarlyStopping": {"stopped_epoch": 0}, "ModelCheckpoint": {}})
    assert _unfinished(tmp_path, 3) == path
    assert _unfinished(tmp_path, 2) is None
    checkpoint(tmp_path, 1, {"EarlyStopping": {"stopped_epoch": 1}})
    assert _unfinished(tmp_path, 3) is None
    path.write_bytes(b"half a checkpoint")
    assert _unfinished(tmp_path, 3) is None


def test_a_job_of_other_data_makes_way_and_comes_back_with_its_data(tmp_path, capsys):
    folder = tmp_path / "job"
    (folder / ".hydra").mkdir(parents=True)
    assert _same_job(folder, State(RUNNING, identity=A)) is None
    of_a = State(FINISHED, identity=A)
    of_a.write(folder)
    assert _same_job(folder, State(RUNNING, identity=A)) == of_a
    assert _same_job(folder, State(RUNNING, identity=B)) is None
    assert [path.name for path in folder.iterdir()] == [".hydra"]
    assert len(list(tmp_path.glob("job_*"))) == 1
    of_b = State(FINISHED, identity=B)
    of_b.write(folder)
    assert _same_job(folder, State(RUNNING, identity=A)) == of_a
    assert _same_job(folder, State(RUNNING, identity=B)) == of_b
    assert "was of other data or code" in capsys.readouterr().out


def test_a_state_without_identity_is_of_no_job(tmp_path):
    State("failed").write(tmp_path)
    assert _same_job(tmp_path, State(RUNNING, identity=A)) is None


def test_the_curves_of_a_resumed_training_are_whole(tmp_path):
    from petseg_lightning.report.run_folder import RunFolder

    (tmp_path / "metrics.json").write_text('{"class_names": [], "headline": "", "splits": {}}')
    table = tmp_path / "csv" / "metrics.csv"
    table.parent.mkdir()
    for part in ("epoch,loss\n0,0.9\n1,0.8\n1,0.6\n2,5\n", "epoch,loss,x\n2,0.5,1\n3,7,1\n", "epoch,loss\n3,0.4\n"):
        _keep_log(table)
        table.write_text(part)
    assert RunFolder.read(tmp_path).epochs["loss"].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.4])
