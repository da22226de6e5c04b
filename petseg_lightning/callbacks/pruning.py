"""Gives up the trials of a search that promise little."""

from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from petseg_lightning.errors import PrunedError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage


class Pruning(Callback):
    """Reports the monitored value of every epoch to an Optuna study, and ends the training if its pruner says so.

    Args:
        monitor: a logged value.
        pruner: of Optuna.
        storage: of the study, which trials in other processes share.
        study: its name; None outside of a search.
        trial: the number of this trial; None outside of a search.

    Raises:
        PrunedError: from `on_validation_end`.
    """

    def __init__(
        self,
        monitor: str,
        pruner: "BasePruner",
        storage: "BaseStorage",
        study: str | None = None,
        trial: int | None = None,
    ) -> None:
        self.monitor, self.pruner, self.storage = monitor, pruner, storage
        self.study, self.trial = study, trial

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self.trial is None or trainer.sanity_checking:
            return
        import optuna

        study = optuna.load_study(study_name=self.study, storage=self.storage, pruner=self.pruner)
        trial = optuna.Trial(study, study.get_trials(deepcopy=False)[self.trial]._trial_id)
        epoch, value = trainer.current_epoch, trainer.callback_metrics[self.monitor].item()
        if epoch not in study.get_trials(deepcopy=False)[self.trial].intermediate_values:  # of before an interruption
            trial.report(value, epoch)
        if trial.should_prune():
            raise PrunedError(f"{self.monitor} is {value:.4f} after {epoch + 1} epochs")
