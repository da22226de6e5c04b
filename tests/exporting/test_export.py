"""From a checkpoint to a bundle with its card, through the door's function."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.exporting.run import export
from petseg_lightning.inference.checkpoint import load_module


@pytest.fixture
def run(tmp_path):
    """(overrides) -> the folder that was written."""

    def run(*overrides: str):
        return export(compose("export", [f"out={tmp_path}/models/tom", *overrides], output_dir=tmp_path))

    return run


def test_a_bundle_tells_nothing_of_the_machine(run, make_checkpoint, capsys):
    folder = run(f"ckpt={make_checkpoint()}")
    assert load_module(folder).description["data"]["root"] == "data"
    assert not [path for path in folder.iterdir() if b"/home/somebody" in path.read_bytes()]
    assert "loads and reproduces its golden sample" in capsys.readouterr().out


def test_the_card_of_a_checkpoint_alone(run, make_checkpoint):
    card = (run(f"ckpt={make_checkpoint(temperature=1.25)}", "license=mit") / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "mit",
        "library_name": "petseg-lightning",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "pets"],
        "metrics": ["mean_iou", "accuracy"],
    }
    assert text.strip().startswith("# tom\n")
    assert "0 pet, 1 background, 2 border" in text
    assert "32 x 32 pixels" in text
    assert "divided by 1.250" in text
    assert "Not known: `petseg evaluate` measures them." in text
    assert "CC BY-SA 4.0" in text


def test_the_card_of_a_run_has_its_scores(run, make_checkpoint, tmp_path):
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    shutil.copy(make_checkpoint(), checkpoint)
    scores = {
        "label": "pet / background / border",
        "accuracy": 0.9,
        "miou": 0.7654,
        "iou": {"pet": 0.8, "border": None},
    }
    protocols = {"trimap": {**scores, "pet_iou": 0.81}}
    splits = {"test": {"num_images": 1928, "protocols": protocols}}
    metrics = {"class_names": [], "headline": "trimap", "reported_split": "test", "splits": splits}
    (tmp_path / "run/metrics.json").write_text(json.dumps(metrics))
    counts = {"train": 3000, "val": 300, "test": 1928}
    (tmp_path / "run/environment.json").write_text(json.dumps({"data": {"counts": counts}}))
    card = (run(f"ckpt={tmp_path}/run") / "README.md").read_text()
    assert "| pet / background / border | 0.900 | 0.765 | pet 0.800, border \N{EN DASH} | 0.810 |" in card
    assert "On the test split (1,928 pictures)" in card
    assert "3,000 training pictures" in card
    assert "license" not in card.split("---\n")[1]


def test_a_golden_picture_of_ones_own(run, make_checkpoint, tmp_path):
    Image.new("RGB", (50, 20), (1, 200, 3)).save(tmp_path / "golden.bmp")
    folder = run(f"ckpt={make_checkpoint()}", f"golden={tmp_path}/golden.bmp")
    assert Image.open(folder / "golden.png").getpixel((3, 3)) == (1, 200, 3)


def test_a_bundle_of_a_bundle(run, make_checkpoint, tmp_path):
    first = run(f"ckpt={make_checkpoint()}")
    second = run(f"ckpt={first}", f"out={tmp_path}/again")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_nothing_to_export(run, tmp_path):
    with pytest.raises(InputError, match="ckpt=builtn is not there, did you mean ckpt=builtin"):
        run("ckpt=builtn")
    with pytest.raises(InputError, match="no checkpoint at"):
        run(f"ckpt={tmp_path}/nowhere.ckpt")
    assert not (tmp_path / "models").exists()
