"""Door: score a checkpoint (`python -m petseg_lightning.evaluate ckpt=...`, or `petseg evaluate`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate as configured; see `petseg_lightning.scoring.score_checkpoint`."""
    from petseg_lightning.scoring import score_checkpoint

    return score_checkpoint(cfg)


main = door("evaluate", run)

if __name__ == "__main__":
    main()
