"""Door: write pictures into tar shards (`python -m petseg_lightning.shard data=...`, or `petseg shard`)."""

from pathlib import Path

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> Path:
    """Write as configured; see `petseg_lightning.sharding.write_shards`."""
    from petseg_lightning.sharding import write_shards

    return write_shards(cfg)


main = door("shard", run)

if __name__ == "__main__":
    main()
