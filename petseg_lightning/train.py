"""Door: train a model (`python -m petseg_lightning.train`, or `petseg train`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train and test as configured; see `petseg_lightning.training.train`."""
    from petseg_lightning.training import train

    return train(cfg)


main = door("train", run)

if __name__ == "__main__":
    main()
