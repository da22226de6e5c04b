"""Door: score a checkpoint (`python -m petseg_lightning.evaluate ckpt=...`, or `petseg evaluate`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate, or certify, as configured; see `scoring.score_checkpoint` and `certifying.certify`."""
    if cfg.certify is not None:
        from petseg_lightning.certifying import certify

        return certify(cfg)
    from petseg_lightning.scoring import score_checkpoint

    return score_checkpoint(cfg)


main = door("evaluate", run)

if __name__ == "__main__":
    main()
