"""Run folders of somebody else, given to `petseg train resume=`: what their settings may choose."""

from itertools import pairwise

import pytest

from petseg_lightning.config import compose
from petseg_lightning.errors import InputError

HOSTILE = {  # a line of the stored overrides, and the word of the refusal
    "code": ("optimizer._target_=os.system", "a class that conf/ does not have"),
    "more code": (
        "+callbacks.x={_target_: subprocess.Popen, args: [touch, marker]}",
        "a class that conf/ does not have",
    ),
    "partial": ("loss._target_=builtins.eval", "a class that conf/ does not have"),
    "list": ("augmentation.transforms=[{_target_: shutil.rmtree}]", "a class that conf/ does not have"),
    "secret": ("paths.data_dir=${oc.env:SECRET}", "from outside of the configuration"),
    "place": ("callbacks.best_checkpoint.dirpath=/tmp/elsewhere", "a place outside of the run folder"),
    "log": ("logger.csv.save_dir=../../elsewhere", "a place outside of the run folder"),
    "data": ("data.root=http://127.0.0.1:9/pets", "no folder here"),
    "nonsense": ("[1,2", "is no list of settings"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_setting_is_refused(folder, name, tmp_path):
    setting, word = HOSTILE[name]
    lines = ["data=synthetic", f"data.root={tmp_path / 'data'}", "augmentation=light", setting]
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- '{line}'\n" for line in lines))
    with pytest.raises(InputError, match=word) as refused:
        compose("train", [f"resume={folder}"])
    assert "hunter2" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]


def test_settings_of_hydra_itself_are_left_out(folder, tmp_path):
    lines = [
        "data=synthetic",
        f"data.root={tmp_path / 'data'}",
        "hydra.run.dir=/tmp/elsewhere",
        "ckpt_path=/etc/passwd",
    ]
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {line}\n" for line in lines))
    cfg = compose("train", [f"resume={folder}"])
    assert cfg.paths.output_dir == str(folder)
    assert cfg.ckpt_path is None


def test_yaml_that_multiplies_is_refused(folder):
    lines = ["- &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefghi")]
    (folder / ".hydra/overrides.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="it has an alias"):
        compose("train", [f"resume={folder}"])


def test_what_is_given_again_is_allowed(folder, tmp_path):
    lines = ["data=synthetic", f"data.root={tmp_path / 'data'}", "optimizer._target_=torch.optim.Rprop"]
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {line}\n" for line in lines))
    cfg = compose("train", [f"resume={folder}", "optimizer._target_=torch.optim.Rprop"])
    assert cfg.optimizer._target_ == "torch.optim.Rprop"
    assert cfg.data.get("download", False) is False
