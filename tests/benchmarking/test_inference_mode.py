"""Validation and test beside the forward pass."""

import statistics

from PIL import Image


def test_leaves_rates_and_costs(measured, capsys):
    results, folder = measured("mode=inference", "compute=exact")
    inference = results["inference"]
    assert set(inference) == {"rates", "validate_cost", "test_cost"}
    rates = inference["rates"]
    assert {name: len(values) for name, values in rates.items()} == {"forward": 2, "validate": 2, "test": 2}
    assert all(rate > 0 for values in rates.values() for rate in values)
    for name in ("validate", "test"):
        pairs = zip(rates["forward"], rates[name], strict=True)
        assert inference[f"{name}_cost"] == statistics.median(forward / other for forward, other in pairs)
    costs = f"{inference['validate_cost']:.2f} and test {inference['test_cost']:.2f}"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"Validation costs {costs} times the forward pass.", f"run folder  {folder}"]
    with Image.open(folder / "benchmark.png") as image:
        image.load()
