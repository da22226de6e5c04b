"""The loader beside reading from files."""

import statistics
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from petseg_lightning.benchmarking.data_mode import FileDataset, _images
from petseg_lightning.conf_tree import options as options_of
from petseg_lightning.config import compose
from petseg_lightning.training import build_datamodule


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ([], 0),
        (["data.cache=none", "augmentation=light", "data.num_workers=1"], 1),
        (["data.cache=memory"], 0),
    ],
)
def test_leaves_rates_of_files_worker_and_loader(measured, capsys, request, options, workers):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    results, folder = measured("mode=data", *options)
    data = results["data"]
    assert set(data) == {"workers", "rates", "per_worker", "cost_ms"}
    choices = [f"{group}={option}" for group in ("augmentation", "mixing") for option in options_of(group)]
    assert list(data["cost_ms"]) == ["decoding", *(choice for choice in choices if not choice.endswith("=none"))]
    assert all(cost > 0 for cost in data["cost_ms"].values())
    assert data["workers"] == workers
    assert {name: len(values) for name, values in data["rates"].items()} == {"files": 2, "worker": 2, "loader": 2}
    assert all(rate > 0 for values in data["rates"].values() for rate in values)
    pairs = zip(data["rates"]["worker"], data["rates"]["files"], strict=True)
    assert data["per_worker"] == statistics.median(worker / files for worker, files in pairs)
    assert torch.get_num_threads() == 2
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if "augmentation=strong" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "augmentation=strong",
        f"{data['cost_ms']['augmentation=strong']:.2f}",
        f"{100 * data['cost_ms']['augmentation=strong'] / data['cost_ms']['decoding']:.1f} %",
    ]
    assert f"A worker is {data['per_worker']:.1f} times as fast as one that reads the files." in lines
    with Image.open(folder / "benchmark.png") as image:
        image.load()


def test_files_are_what_the_configured_loader_gives_up_to_rounding(tiny_overrides):
    """The same pictures, so that both do the same work: normalized, resized by another library."""
    datamodule = build_datamodule(compose("benchmark", tiny_overrides))
    files, pictures = FileDataset(datamodule), datamodule.pictures("train")
    assert len(files) == len(pictures) == datamodule.counts["train"]
    image, parts = files[3]
    assert (image.shape, image.dtype, parts.shape, parts.dtype) == ((3, 32, 32), torch.float32, (32, 32), torch.uint8)
    expected = (torch.from_numpy(np.array(pictures[3][0])).permute(2, 0, 1) / 255 - 0.5) / 0.25
    assert (image - expected).abs().mean() < 0.1


def test_images_are_counted_over_the_ends_of_epochs():
    batches = [{"image": torch.zeros(n)} for n in (4, 4, 2)]
    take = _images(DataLoader(batches, batch_size=None), 9)
    assert [take() for _ in range(3)] == [10, 10, 10]
    take = _images(DataLoader(batches, batch_size=None), 5)
    assert [take() for _ in range(3)] == [8, 6, 6]  # 4 + 4, 2 + 4, 4 + 2
    take = _images(DataLoader([[torch.zeros(n), torch.zeros(n)] for n in (3, 1)], batch_size=None), 4)
    assert take() == 4
