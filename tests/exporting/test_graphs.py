"""ONNX, OpenVINO and torch.export: the same logits as the model, of images of any size; and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.exporting import run as exporting
from petseg_lightning.exporting.agreement import SIZES, Agreement, compare, mean_iou
from petseg_lightning.exporting.run import export
from petseg_lightning.inference.exported import FILES, find_export, runtime
from petseg_lightning.inference.member import Member
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.training import build_datamodule

CPU = torch.device("cpu")
FORMATS = ("torch", "onnx", "openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def module(make_module):
    return make_module(temperature=1.5)


@pytest.fixture(scope="module", params=FORMATS)
def graph(request, module, tmp_path_factory):
    """The file of a format."""
    path = tmp_path_factory.mktemp(request.param) / FILES[request.param]
    runtime(request.param).save(module, path)
    return path


@pytest.fixture
def run(tmp_path, tiny_pets, make_checkpoint, monkeypatch):
    """(overrides) -> the folder that was written; the data are at hand."""
    monkeypatch.chdir(tmp_path)
    root = tiny_pets(trainval=10)

    def run(*overrides: str):
        fixed = (f"ckpt={make_checkpoint()}", "data=oxford_pet", f"data.root={root}", "out=models/tom")
        return export(compose("export", [*fixed, *overrides], output_dir=tmp_path))

    return run


def require_same_logits(forward, module, images):
    with torch.inference_mode():
        expected = module(images)
    assert (forward(images) - expected).abs().max() < 1e-5 * (expected.max() - expected.min())


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 33, 57), (2, 3, 5, 90)])
def test_a_graph_gives_the_logits_of_its_model_for_any_number_and_size(graph, module, shape):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    forward, _ = runtime(find_export(graph)[0]).load(graph, CPU)
    require_same_logits(forward, module, images)


def test_channels_that_are_last_in_memory_are_no_other_picture(graph, module):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)).permute(0, 3, 1, 2)
    forward, _ = runtime(find_export(graph)[0]).load(graph, CPU)
    require_same_logits(forward, module, images)


def test_a_graph_says_what_it_takes_and_gives(graph, module):
    _, description = runtime(find_export(graph)[0]).load(graph, CPU)
    said = description.pop("export")
    assert description == module.description
    assert said == {
        "precision": "fp32",
        "input": "images: uint8 RGB (batch, 3, height, width), sides from 5 pixels",
        "output": "logits: float32 (batch, 3, height, width) of pet, background, border",
    }


def test_a_graph_predicts_as_its_checkpoint_given_by_file_or_folder(graph, make_checkpoint):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8))
    expected = Predictor.load(make_checkpoint(temperature=1.5))(picture)
    for path in (graph, graph.parent):
        found = Predictor.load(path, trust_code=True)(picture)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        assert found.class_names == expected.class_names


def test_a_checkpoint_on_another_backend(make_checkpoint):
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    expected, found = (Predictor.load(make_checkpoint(), backend=name)(picture) for name in ("torch", "onnx"))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)


def test_a_graph_is_of_one_backend(graph):
    other = "onnx" if find_export(graph)[0] == "torch" else "torch"
    with pytest.raises(InputError, match=f"is of backend={find_export(graph)[0]}"):
        Member.load(graph, CPU, backend=other)


def test_half_a_graph_is_refused(graph, tmp_path):
    half = tmp_path / graph.name
    half.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    half.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(InputError, match="not a whole one"):
        Member.load(half, CPU, trust_code=True)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_lower_precision(run, name, precision, module, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MIOU_LOSS", 1)  # of weights of chance
    folder = run(f"format={name}", f"precision={precision}")
    assert "mean IoU on val" in capsys.readouterr().out
    _, description = runtime(name).load(folder / FILES[name], CPU)
    assert description["export"]["precision"] == precision
    if name == "openvino":
        bytes_each = (folder / "model.bin").stat().st_size / sum(p.numel() for p in module.parameters())
        assert bytes_each < {"fp16": 2.3, "int8": 2.0}[precision]
    assert {path.name for path in tmp_path.iterdir()} == {"pets", "models", "a.ckpt"}  # no leavings of a quantizer


def test_what_fails_its_check_is_not_left_and_what_was_there_stays(run, monkeypatch):
    folder = run("format=torch")
    before = (folder / "model.pt2").read_bytes()
    monkeypatch.setattr(exporting, "compare", lambda *_: Agreement(0.998, 0.5))
    with pytest.raises(InputError, match=r"99\.800% of the pixels have the same class, logits differ by 0\.5"):
        run("format=torch")
    assert (folder / "model.pt2").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["tom"]


def test_lower_precision_may_not_cost_a_hundredth(run, monkeypatch):
    scores = iter((0.75, 0.739))
    monkeypatch.setattr(exporting, "mean_iou", lambda *_: next(scores))
    with pytest.raises(InputError, match=r"mean IoU on val 0\.7500 before, 0\.7390 after"):
        run("format=onnx", "precision=fp16")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("format=bundle", "precision=fp16"), "format=bundle has no precision=fp16; give fp32"),
        (("format=torch", "precision=int8"), "format=torch has no precision=int8; give fp32"),
        (("format=onnx", "precision=int8", "data.root=nowhere"), "nowhere is not there; give data.root="),
        (("format=onnx", "out=pets"), "exists and is no exported model"),
    ],
)
def test_bad_wishes_are_one_line(run, overrides, words):
    with pytest.raises(InputError, match=words):
        run(*overrides)


def test_without_data_drawn_pictures_are_compared(run, capsys):
    run("format=torch", "data.root=nowhere")
    assert "on drawn pictures" in capsys.readouterr().out


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("petseg_lightning.inference.exported.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'petseg-lightning\[openvino\]'"):
        runtime("openvino")


def test_a_pt2_is_a_program_and_needs_trust(module, tmp_path):
    path = tmp_path / "model.pt2"
    runtime("torch").save(module, path)
    with pytest.raises(InputError, match=r"such a file is a program: .*trust_code=true .*or better a bundle"):
        Predictor.load(path)
    assert Predictor.load(path, trust_code=True).class_names == module.target.class_names


def test_compare_counts_pixels_of_all_sizes(module):
    pictures = [np.full((20, 20, 3), value, np.uint8) for value in (10, 120, 250)]

    def forward(images):
        with torch.inference_mode():
            logits = module(images)
        logits = logits.clone()
        logits[..., 0, :] += torch.tensor([0.0, 0.0, 1e4]).view(1, 3, 1)
        return logits

    rows = sum(round(32 * height) * round(32 * width) for height, width in SIZES)
    top = sum(round(32 * width) for _, width in SIZES)
    found = compare(forward, module, pictures)
    assert 1 - top / rows - 1e-9 <= found.same_class < 1
    assert found.difference == pytest.approx(1e4)
    assert compare(module, module, pictures) == Agreement(1.0, 0.0)


def test_mean_iou_of_a_forward_that_knows_the_masks(module, tiny_pets, tmp_path):
    cfg = compose("train", [f"data.root={tiny_pets(trainval=10)}", "data.target=trimap", "data.image_size=32"])
    datamodule = build_datamodule(cfg)
    masks = iter([batch["parts"] for batch in datamodule.evaluation_dataloader("val")])
    lookup = torch.tensor(module.target.part_to_class)

    def forward(images):
        parts = next(masks).long()
        known = torch.where(parts < len(lookup), lookup[parts.clamp(max=len(lookup) - 1)], 0)
        return torch.nn.functional.one_hot(known.clamp(0, 2), 3).permute(0, 3, 1, 2).float()

    assert mean_iou(forward, module, datamodule) == 1.0
