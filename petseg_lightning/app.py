"""Door: a web app and an HTTP endpoint (`python -m petseg_lightning.app ckpt=...`, or `petseg app`)."""

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> None:
    """Serve as configured, until interrupted; see `petseg_lightning.serving.run.serve`."""
    from petseg_lightning.serving.run import serve

    serve(cfg)


main = door("app", run)

if __name__ == "__main__":
    main()
