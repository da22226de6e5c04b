"""Door: predict pictures (`python -m petseg_lightning.predict ckpt=... source=...`, or `petseg predict`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> list[dict[str, Any]]:
    """Predict as configured; see `petseg_lightning.predicting.run.predict`."""
    from petseg_lightning.predicting.run import predict

    return predict(cfg)


main = door("predict", run)

if __name__ == "__main__":
    main()
