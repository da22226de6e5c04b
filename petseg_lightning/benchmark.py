"""Door: compare the training with a plain loop (`python -m petseg_lightning.benchmark`, or `petseg benchmark`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure as configured; see `petseg_lightning.benchmarking.benchmark`."""
    from petseg_lightning.benchmarking import benchmark

    return benchmark(cfg)


main = door("benchmark", run)

if __name__ == "__main__":
    main()
