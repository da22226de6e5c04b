"""Door: hand on a trained model (`python -m petseg_lightning.export ckpt=...`, or `petseg export`)."""

from pathlib import Path

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> Path:
    """Export as configured; see `petseg_lightning.exporting.run.export`."""
    from petseg_lightning.exporting.run import export

    return export(cfg)


main = door("export", run)

if __name__ == "__main__":
    main()
