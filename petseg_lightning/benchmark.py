"""Door: what a training costs on this machine (`python -m petseg_lightning.benchmark`, or `petseg benchmark`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure as configured; see `petseg_lightning.benchmarking.run.benchmark`."""
    from petseg_lightning.benchmarking.run import benchmark

    return benchmark(cfg)


main = door("benchmark", run)

if __name__ == "__main__":
    main()
