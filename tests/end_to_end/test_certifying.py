"""A run is done again in part, and what has changed is named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.certifying import certify
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.train import main


@pytest.fixture(scope="module")
def finished(small_overrides, tmp_path_factory):
    """The folder of a training, as the command line leaves it, beside its data."""
    folder = tmp_path_factory.mktemp("certified")
    overrides = [one for one in small_overrides if not one.startswith("data.root=")]
    overrides += [f"data.root={folder / 'data'}", f"hydra.run.dir={folder / 'run'}"]
    overrides += ["compute=exact", "augmentation=strong", "callbacks=ema", "data.num_workers=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["petseg", *overrides])
        main()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may change; its data are those of the command line's."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copytree(finished / "data", tmp_path / "data")
    return tmp_path / "run"


def certified(run, *overrides):
    folder = run.parent / "certificate"
    settings = [f"certify={run}", f"data.root={run.parent / 'data'}", *overrides]
    return certify(compose("evaluate", settings, output_dir=folder))


def test_an_untouched_run_is_reproduced_to_the_bit(run, capsys):
    assert certified(run)["verdict"] == "reproduced to the bit"
    assert "reproduced to the bit (9 steps behind last-previous.ckpt, and the test)" in capsys.readouterr().out
    assert json.loads((run.parent / "certificate/certificate.json").read_text())["other"] == ""


def test_one_pixel_of_a_training_picture_is_named(run):
    name = next(iter(json.loads((run / "data.json").read_text())["train"]))
    path = run.parent / f"data/oxford-iiit-pet/annotations/trimaps/{name}.png"
    pixels = np.array(Image.open(path))
    pixels[3, 3] = 3 if pixels[3, 3] != 3 else 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(InputError, match=rf"this has changed: {name} of train has other contents$"):
        certified(run)


def test_one_setting_is_named(run):
    file = run / ".hydra/overrides.yaml"
    file.write_text(f"{file.read_text()}- optimizer.lr=0.002\n")
    with pytest.raises(InputError, match=r"this has changed: optimizer\.lr: 0\.001 there, 0\.002 here"):
        certified(run)


def test_one_setting_of_the_configuration_is_named(run):
    file = run / ".hydra/config.yaml"
    assert "lr: 0.001" in file.read_text()
    file.write_text(file.read_text().replace("lr: 0.001", "lr: 0.002"))
    with pytest.raises(InputError, match=r"this has changed: optimizer\.lr: 0\.001 in the training, 0\.002 in "):
        certified(run)


def test_a_library_s_version_is_named(run, capsys):
    file = run / "environment.json"
    environment = json.loads(file.read_text())
    environment["versions"]["pillow"] = "1.0"
    file.write_text(json.dumps(environment))
    assert certified(run)["verdict"] == "reproduced to the bit"
    assert "other than there: pillow 1.0 there, " in capsys.readouterr().out


def test_other_weights_are_not_reproduced(run):
    file = run / "checkpoints/replay.json"
    notes = json.loads(file.read_text())
    for note in notes.values():
        note["losses"][-1] *= 1.5
    file.write_text(json.dumps(notes))
    with pytest.raises(InputError, match=r"not reproduced: it differs by 0\.3 of a loss and 0 of a mean IoU"):
        certified(run)


def test_what_is_no_run_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="is no run folder"):
        certified(tmp_path / "run")
