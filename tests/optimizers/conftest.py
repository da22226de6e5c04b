"""Trainings of a second, by Lightning, on a few drawn pets."""

from pathlib import Path

import pytest
from lightning import Callback, Trainer

from petseg_lightning.config import build, compose
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.training import build_datamodule, build_module

TINY = (
    "data=synthetic",
    "data.num_trainval=20",
    "data.num_test=4",
    "data.picture_size=32",
    "data.image_size=16",
    "data.batch_size=4",
    "data.val_fraction=0.2",
    "data.num_workers=0",
    "data.cache=memory",
    "augmentation=light",
)
UNET = ("model=unet", "model.base_channels=4", "model.depth=2")
KEPT = ("best_checkpoint", "last_checkpoint", "schedule_free", "weight_averaging")  # of the callbacks


@pytest.fixture(scope="session")
def tiny_overrides(tmp_path_factory) -> list[str]:
    return [*TINY, f"data.root={tmp_path_factory.mktemp('drawn')}"]


@pytest.fixture(scope="session")
def tiny_parts(tiny_overrides):
    """(overrides...) -> the config, the data, the module."""

    def make(*overrides: str, folder: Path = Path("run")):
        from lightning import seed_everything

        quiet_libraries()
        seed_everything(0, verbose=False)
        model = () if any(text.startswith("model=") for text in overrides) else UNET
        cfg = compose("train", [*tiny_overrides, *model, *overrides], output_dir=folder)
        datamodule = build_datamodule(cfg)
        return cfg, datamodule, build_module(cfg, datamodule)

    return make


class KilledError(Exception):
    pass


class KillIn(Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise KilledError


@pytest.fixture(scope="session")
def fit_tiny(tiny_parts):
    """(run folder, overrides..., epochs, first, callbacks, resume, killed) -> module and trainer, 4 steps an epoch.

    `first`, `callbacks`: before and after those of the config.
    `resume`: the checkpoint to go on from. `killed`: the epoch in the middle of which the training ends.
    """

    def fit(folder: Path, *overrides: str, epochs=2, first=(), callbacks=(), resume=None, killed=None, **more):
        cfg, datamodule, module = tiny_parts(*overrides, folder=folder)
        own = [build(node) for name, node in cfg.callbacks.items() if name in KEPT]
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[*first, *own, *callbacks, *([] if killed is None else [KillIn(killed)])],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **more,
        )
        if killed is None:
            trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
        else:
            with pytest.raises(KilledError):
                trainer.fit(module, datamodule)
        return module, trainer

    return fit
