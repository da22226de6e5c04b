from petseg_lightning.sweeping.job import _same_job
from petseg_lightning.sweeping.state import FINISHED, RUNNING, State

A, B = {"config": "c", "data": "a", "version": "1"}, {"config": "c", "data": "b", "version": "1"}


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
