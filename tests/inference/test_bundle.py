"""A bundle says what its model said, or says what is wrong with it."""

import hashlib
import json
import pickle
import re
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from petseg_lightning.errors import InputError
from petseg_lightning.inference.bundle import HASHED, write_bundle
from petseg_lightning.inference.checkpoint import load_module


@pytest.fixture
def picture() -> Image.Image:
    return Image.effect_noise((50, 40), 80).convert("RGB")


@pytest.fixture
def bundle(make_module, picture, tmp_path) -> Path:
    write_bundle(tmp_path / "bundle", make_module(temperature=1.5), picture, "# card\n")
    return tmp_path / "bundle"


def sign_again(bundle: Path) -> None:
    """As somebody does who knows how."""
    digests = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in HASHED}
    (bundle / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def test_the_same_model_comes_back(bundle, make_module):
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    loaded, original = load_module(bundle), make_module(temperature=1.5)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), original(images), rtol=0, atol=0)
    assert loaded.target == original.target
    assert loaded.description.items() >= original.description.items()
    assert not loaded.training


def test_what_is_in_it(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == sorted([*HASHED, "README.md", "SHA256SUMS"])
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=bundle, check=True)
    assert json.loads((bundle / "config.json").read_text())["colors"]["pet"] == "#e69f00"
    assert Image.open(bundle / "golden.png").size == (32, 32)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", HASHED)
def test_a_changed_file_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(name)} is not the file that was exported; get the bundle again"):
        load_module(bundle)


@pytest.mark.parametrize("name", [*HASHED, "SHA256SUMS"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(InputError, match=rf"{re.escape(name)} (is missing|cannot be used)"):
        load_module(bundle)


def test_the_card_may_be_edited(bundle):
    (bundle / "README.md").write_text("# my words\n")
    assert load_module(bundle).description["temperature"] == 1.5


def test_other_weights_do_not_reproduce_the_golden_sample(bundle, make_module):
    state = make_module(seed=1).network.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, bundle / "model.safetensors")
    sign_again(bundle)
    with pytest.raises(InputError, match=r"does not reproduce its golden sample: logits differ by up to \d"):
        load_module(bundle)


def test_one_changed_weight_is_noticed(bundle):
    state = load_file(bundle / "model.safetensors")
    name = next(name for name in state if name.endswith("weight") and state[name].ndim == 4)
    state[name][0] += 0.5
    save_file(state, bundle / "model.safetensors")
    sign_again(bundle)
    with pytest.raises(InputError, match="golden sample"):
        load_module(bundle)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("signed", [False, True])
def test_a_pickle_is_not_executed(bundle, monkeypatch, tmp_path, signed):
    monkeypatch.chdir(tmp_path)
    (bundle / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    if signed:
        sign_again(bundle)
    with pytest.raises(InputError, match=r"not a bundle|not the file that was exported"):
        load_module(bundle)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", {"_target_": "os.system", "command": "touch exploded"}, "only models of petseg_lightning.models"),
        ("model", {"_target_": "petseg_lightning.models.unet.UNet", "wings": 2}, "does not fit this version"),
        ("model", {"_target_": "petseg_lightning.models.unet.UNet", "base_channels": 8}, "does not fit this version"),
        ("target", {}, "does not fit this version"),
        ("format", 99, "is a bundle of format 99, and this version reads 1"),
    ],
)
def test_a_description_of_something_else(bundle, monkeypatch, tmp_path, key, value, message):
    monkeypatch.chdir(tmp_path)
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**config, key: value}))
    sign_again(bundle)
    with pytest.raises(InputError, match=message):
        load_module(bundle)
    assert not (tmp_path / "exploded").exists()


def test_a_bundle_is_replaced_and_another_folder_is_not(bundle, make_module, picture, tmp_path):
    write_bundle(bundle, make_module(seed=3), picture, "")
    assert load_module(bundle).description.get("temperature") is None
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(InputError, match="thesis exists and is no bundle; give another out="):
        write_bundle(tmp_path / "thesis", make_module(), picture, "")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


def test_a_failed_export_leaves_the_old_bundle(bundle, make_module, picture, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("petseg_lightning.inference.bundle.save", full)
    with pytest.raises(OSError, match="No space"):
        write_bundle(bundle, make_module(seed=3), picture, "")
    assert load_module(bundle).description["temperature"] == 1.5
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
