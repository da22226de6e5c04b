"""A trained model on every backend: which rows there are, that they are measured, and what is printed."""

import json

import pytest

from petseg_lightning.benchmarking.run import benchmark
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError

pytest.importorskip("onnxruntime")


def test_every_backend_precision_batch_and_size_has_a_row(make_checkpoint, tmp_path, capsys):
    overrides = [f"ckpt={make_checkpoint()}", "mode=inference", "rounds=1", "backends=[torch,onnx]"]
    overrides += ["batch_sizes=[1,3]", "input_sizes=[40]"]
    result = benchmark(compose("benchmark", overrides, output_dir=tmp_path))
    found = [(row["backend"], row["precision"], row["batch_size"], row["input_size"]) for row in result["rows"]]
    kinds = [("pytorch", "fp32"), ("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")]
    assert found == [(*kind, batch, 40) for batch in (1, 3) for kind in kinds]
    for row in result["rows"]:
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch_size"] / row["median_ms"])
        assert (row["speedup"] == 1) or row["backend"] != "pytorch"
        assert row["peak_memory_mib"] is None or row["peak_memory_mib"] > 50
        assert row["model_mb"] > 0
    assert json.loads((tmp_path / "benchmark.json").read_text())["rows"] == result["rows"]
    assert "onnx int8" in capsys.readouterr().out


def test_a_checkpoint_is_measured_in_one_mode(make_checkpoint, tmp_path):
    with pytest.raises(InputError, match="measured with mode=inference, not with mode=all"):
        benchmark(compose("benchmark", [f"ckpt={make_checkpoint()}"], output_dir=tmp_path))
