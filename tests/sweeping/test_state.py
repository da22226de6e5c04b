import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.sweeping.state import FINISHED, RUNNING, State, claimed, score


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert State.read(tmp_path) is None
    state = State(RUNNING, ["seed=1"], commit="abc").known_as({"config": "c"})
    state.ended(FINISHED, "well").write(tmp_path)
    assert State.read(tmp_path) == State(FINISHED, ["seed=1"], {"config": "c"}, "abc", "well")


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "3", '{"status": "running", "more": 1}', '{"overrides": []}', '{"status": ["running"]}'),
        *('{"status": "running", "overrides": 3}', '{"status": "running", "identity": {"config": 1}}'),
    ],
)
def test_a_damaged_state_is_one_line(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(InputError, match=r"state\.json (is not valid JSON|does not say what became of a job)"):
        State.read(tmp_path)


def test_a_score_is_a_number_or_none(tmp_path):
    assert score(tmp_path, "test", "miou") is None
    for content, found in (
        ('{"headline": "a", "splits": {"test": {"protocols": {"a": {"miou": 0.5}}}}}', 0.5),
        ('{"headline": "a", "splits": {"test": {"protocols": {"a": {"miou": "x"}}}}}', None),
        ('{"headline": ["a"], "splits": {"test": {"protocols": []}}}', None),
        ("[]", None),
    ):
        (tmp_path / "metrics.json").write_text(content)
        assert score(tmp_path, "test", "miou") == found


def test_a_folder_is_claimed_once_and_given_back(tmp_path):
    folder = tmp_path / "job"
    with claimed(folder) as first, claimed(folder) as second, claimed(tmp_path / "other") as third:
        assert (first, second, third) == (True, False, True)
    with claimed(folder) as again:
        assert again
    assert not folder.exists()
