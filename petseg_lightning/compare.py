"""Door: compare trainings, or hold one against claims (`python -m petseg_lightning.compare`, or `petseg compare`)."""

from typing import Any

from omegaconf import DictConfig

from petseg_lightning.comparing.folders import wanted_runs
from petseg_lightning.config import door


def run(cfg: DictConfig) -> dict[str, Any]:
    """Compare as configured; see `petseg_lightning.comparing.run.compare`."""
    wanted_runs(cfg)  # before seconds of imports
    from petseg_lightning.comparing.run import compare

    return compare(cfg)


main = door("compare", run)

if __name__ == "__main__":
    main()
