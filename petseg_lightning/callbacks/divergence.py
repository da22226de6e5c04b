"""A training that leaves the finite numbers ends there."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm

from petseg_lightning.errors import DivergedError

NAMED = 4  # pictures in a line
_REMEDY = "lower optimizer.lr, or set trainer.gradient_clip_val=1"


class Divergence(Callback):
    """Ends a training at the first step whose loss or gradient is not finite, before such weights are kept.

    Steps are looked at where the training waits for its device anyway: where it logs, and before a validation or a
    checkpoint.

    Args:
        names: of the training pictures with these indices.

    Raises:
        DivergedError: with the step, its learning rate and its pictures.
    """

    def __init__(self, names: Callable[[Sequence[int]], Sequence[str]]) -> None:
        self.names = names
        self._steps: list[tuple[int, float, Tensor, Tensor]] = []  # step, rate, indices, whether all is finite
        self._finite: list[Tensor] = []  # of the present step

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> None:
        if trainer.precision != "16-mixed":  # its scaler leaves out the steps with infinite gradients
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._finite.append(get_total_norm(gradients).isfinite())

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        finite = torch.stack([outputs["loss"].detach().isfinite(), *self._finite]).all()
        self._finite = []
        self._steps.append((trainer.global_step, rate, batch["index"], finite))
        if trainer.is_last_batch or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer)

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step may have made weights that no loss tells of any more."""
        finite = torch.stack([p.detach().isfinite().all() for p in pl_module.parameters()]).all()
        if not trainer.strategy.reduce_boolean_decision(bool(finite)):
            raise DivergedError(f"step {trainer.global_step} made weights that are not finite; {_REMEDY}")

    def _look(self, trainer: Trainer) -> None:
        steps, self._steps = self._steps, []
        finite = torch.stack([step[-1] for step in steps]).tolist() if steps else []
        first = next((step for step, good in zip(steps, finite, strict=True) if not good), None)
        if not trainer.strategy.reduce_boolean_decision(first is None):
            number, rate, indices, _ = first or steps[-1]
            names = self.names(indices.tolist())
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise DivergedError(
                f"the loss or its gradient is not finite at step {number} (epoch {trainer.current_epoch + 1}, learning "
                f"rate {rate:.3g}, pictures {', '.join(names[:NAMED])}{more}); {_REMEDY}"
            )
