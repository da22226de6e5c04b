"""Door: train a model (`python -m petseg_lightning.train`, or `petseg train`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import build, door
from petseg_lightning.data.presence import require_pets
from petseg_lightning.interruption import end_with_parent, stoppable


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train and test as configured; see `petseg_lightning.training.train`."""
    end_with_parent()
    with stoppable():  # before seconds of imports
        if "download" in cfg.data:
            require_pets(cfg.data.root, cfg.data.download)
        from petseg_lightning.training import train

        return train(cfg)


def fingerprint(cfg: DictConfig) -> str:
    """The fingerprint of the data that a training would see."""
    if "download" in cfg.data:
        require_pets(cfg.data.root, cfg.data.download)
    datamodule = build(cfg.data)
    datamodule.prepare_data()
    return datamodule.description()["fingerprint"]


main = door("train", run, fingerprint)

if __name__ == "__main__":
    main()
