"""The model in the box: whole, small, fit for real pictures, and honest about it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.inference.checkpoint import BUILTIN_FOLDER, find_model, load_module
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.scoring import score_checkpoint

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data"


def test_is_a_bundle_of_4_mb_at_most_that_reproduces_its_golden_sample():
    assert find_model("builtin") == BUILTIN_FOLDER
    assert load_module("builtin").target.class_names == ("pet", "background", "border")
    assert sum(path.stat().st_size for path in BUILTIN_FOLDER.iterdir()) <= 4_000_000


def test_finds_a_cat():
    prediction = Predictor.load("builtin")(ROOT / "petseg_lightning/serving/chelsea.jpg")
    head = np.asarray(prediction.cutout)[..., 3][100:250, 130:330]  # between the ears, down to the nose
    assert (head > 250).mean() > 0.98
    corner = np.asarray(prediction.cutout)[..., 3][:80, 425:]  # behind it
    assert (corner < 50).mean() > 0.9


def test_all_orientations_of_a_picture_have_the_same_mask_turned(tmp_path):
    predictor, picture = Predictor.load("builtin"), Image.open(ROOT / "petseg_lightning/serving/chelsea.jpg")
    upright = predictor(picture).classes
    turned = {  # how a picture of this EXIF orientation is stored
        *((1, None), (2, Image.Transpose.FLIP_LEFT_RIGHT), (3, Image.Transpose.ROTATE_180)),
        *((4, Image.Transpose.FLIP_TOP_BOTTOM), (5, Image.Transpose.TRANSPOSE), (6, Image.Transpose.ROTATE_90)),
        *((7, Image.Transpose.TRANSVERSE), (8, Image.Transpose.ROTATE_270)),
    }
    for orientation, transposition in turned:
        stored = picture if transposition is None else picture.transpose(transposition)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(predictor(tmp_path / "a.png").classes, upright)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pets are not here")
def test_scores_what_its_card_says(tmp_path):
    overrides = ["ckpt=builtin", "data=oxford_pet", "data.target=trimap", f"data.root={REAL}", "trainer=cpu"]
    overrides += ["~callbacks.progress_bar", "data.cache=none"]
    metrics = score_checkpoint(compose("evaluate", overrides, output_dir=tmp_path))
    protocols = metrics["splits"]["test"]["protocols"]
    assert protocols["trimap"]["miou"] >= 0.66
    assert protocols["binary_border_pet"]["pet_iou"] >= 0.80
    card = (BUILTIN_FOLDER / "README.md").read_text()
    stated = re.search(r"\| pet / background / border \| [\d.]+ \| ([\d.]+)", card)
    assert float(stated[1]) == pytest.approx(protocols["trimap"]["miou"], abs=2e-3)
    assert "petseg train experiment=builtin" in card
