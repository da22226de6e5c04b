from petseg_lightning.sweeping.state import FINISHED, RUNNING, State, claimed


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert State.read(tmp_path) is None
    state = State(RUNNING, ["seed=1"], commit="abc").known_as({"config": "c"})
    state.ended(FINISHED, "well").write(tmp_path)
    assert State.read(tmp_path) == State(FINISHED, ["seed=1"], {"config": "c"}, "abc", "well")


def test_a_folder_is_claimed_once_and_given_back(tmp_path):
    folder = tmp_path / "job"
    with claimed(folder) as first, claimed(folder) as second, claimed(tmp_path / "other") as third:
        assert (first, second, third) == (True, False, True)
    with claimed(folder) as again:
        assert again
    assert not folder.exists()
