"""What is printed, concluded and drawn, of results written by hand."""

import numpy as np
import pytest
from PIL import Image

from petseg_lightning.benchmarking.show import LABELS, bottleneck, conclusions, print_tables, write_picture

PARTS = {
    "data wait": 1.0,
    "transfer": 1.0,
    "forward and loss": 30.0,
    "backward": 60.0,
    "optimizer": 5.0,
    "metrics, logging, callbacks": 3.0,
}
RESULTS = {
    "inference": {
        "rates": {"forward": [200.0, 220.0], "validate": [100.0, 110.0], "test": [80.0, 90.0]},
        "validate_cost": 2.0,
        "test_cost": 2.47,
    },
    "train": {
        "compute": {"precision": "bf16-mixed", "channels_last": True, "compile": False},
        "rates": {
            "plain": [50.0, 52.0],
            "same": [100.0, 104.0],
            "network": [110.0, 111.0],
            "training": [1234.0, 1236.0],
        },
        "peak_memory_mib": 1234,
        "overhead": 0.96,
        "speedup": 1.92,
        "parts_ms": PARTS,
        "tflop_per_second": 0.01234,
        "flop_utilization": 0.256,
    },
    "data": {
        "rates": {"files": [9.0, 11.0], "worker": [900.0, 1100.0], "loader": [2000.0, 2100.0]},
        "per_worker": 99.6,
    },
    "startup": {
        "seconds": {
            "imports": [4.0, 4.2],
            "data check": [0.036, 0.044],
            "first start": [20.0],
            "second start": [8.0, 9.0],
        }
    },
}
DISTRIBUTED = {
    "compute": {"precision": "32-true", "channels_last": True, "compile": False},
    "rates": {"alone": [50.0], "training": [90.0]},
    "peak_memory_mib": 900,
    "peak_gpu_memory_mib": 2345,
    "devices": 2,
    "scaling_efficiency": 0.9,
}


def test_every_mode_has_its_conclusion():
    assert conclusions(RESULTS) == [
        "A later start takes 2.05 times the imports and the data check, 0.42 times the first.",  # 8.5 / 4.14, 8.5 / 20
        "A worker is 99.6 times as fast as one that reads the files.",
        "Validation costs 2.00 and test 2.47 times the forward pass.",
        "Compute: bf16-mixed, channels last, eager; peak memory 1,234 MiB.",
        "The training runs at 0.96 of a plain loop with its settings and at 1.92 times the plain loop in fp32: "
        "0.0123 TFLOP/s, 26 % of what a large matrix product does here.",
        bottleneck(PARTS),
    ]


def test_several_devices_have_their_conclusion():
    assert conclusions({"train": DISTRIBUTED}) == [
        "Compute: 32-true, channels last, eager; peak memory 900 MiB, on the GPU 2,345 MiB.",
        "2 devices: scaling efficiency 0.90.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "the network itself, 95 % of a step"),
        ({"data wait": 11.0}, "the network itself"),  # 11 of 110 are no more than a tenth
        ({"data wait": 12.0}, "the data, waited for during 11 % of a step; use data.cache=disk"),
        ({"data wait": 100.0, "transfer": 200.0}, "the data"),
        ({"transfer": 99.0}, "the transfer to the device, 50 % of a step; use larger batches"),
        ({"metrics, logging, callbacks": 97.0}, "logging and callbacks, 50 % of a step; raise trainer.log_every_n_st"),
    ],
)
def test_the_bottleneck_is_named_with_a_remedy(changes, sentence):
    assert bottleneck({**PARTS, **changes}).startswith(f"Bottleneck: {sentence}")


def test_tables_come_in_the_order_of_a_run_and_the_folder_last(tmp_path, capsys):
    print_tables(RESULTS, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    titles = ["Start-up", "Data (images", "Training (images", "Evaluation", "A step of"]
    starts = [next(i for i, line in enumerate(lines) if line.strip().startswith(title)) for title in titles]
    assert starts == sorted(starts)
    assert lines[-1] == f"run folder  {tmp_path}"
    assert lines[-7:-1] == conclusions(RESULTS)
    (training,) = (line for line in lines if line.startswith(f"│ {LABELS['training']} "))
    assert [cell.strip() for cell in training.strip("│").split("│")] == [
        "the training", "1,235.0", "1,234.0", "1,236.0",
    ]  # fmt: skip
    (check,) = (line for line in lines if "data check" in line and "costs" not in line and "takes" not in line)
    assert [cell.strip() for cell in check.strip("│").split("│")] == ["data check", "0.04", "0.04", "0.04"]
    (backward,) = (line for line in lines if "backward" in line)
    assert "60.00" in backward
    assert "60.0 %" in backward


@pytest.mark.parametrize("results", [RESULTS, {"data": RESULTS["data"]}, {"train": DISTRIBUTED}])
def test_the_picture_has_a_panel_for_each_mode(tmp_path, results):
    path = tmp_path / "benchmark.png"
    write_picture(path, results)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels == (0x1F, 0x77, 0xB4)).all(-1).any()  # bars of the program
    assert (pixels == (0xB0, 0xB0, 0xB0)).all(-1).any()  # bars of others
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()  # nothing is cut
    assert [p.name for p in tmp_path.iterdir()] == ["benchmark.png"]
