"""The Lightning module: model, loss and metrics meet only here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from petseg_lightning.data.dataset import Batch
from petseg_lightning.data.targets import Target
from petseg_lightning.errors import InputError
from petseg_lightning.metrics.confusion import confusion_counts
from petseg_lightning.metrics.confusion_matrix import ConfusionMatrix
from petseg_lightning.metrics.protocols import merge_counts
from petseg_lightning.metrics.scores import scores
from petseg_lightning.segmenter import CHECKPOINT_KEY, Segmenter, classes, resize_logits


class SegmentationModule(Segmenter, LightningModule):
    """A model that is trained with a loss and scored by one confusion matrix.

    Args:
        network, target, mean, std, description: see `Segmenter`.
        loss: (logits, masks (B,H,W) int64, 255 = ignored) -> scalar.
        optimizer: named parameters, or groups of them -> optimizer. A group's `lr_scale` is its part of the rate.
        scheduler: optimizer -> scheduler of torch or timm, or None for a constant rate.
        total_steps_argument: the scheduler's argument that takes the number of steps of the training.
        interval, monitor: when the scheduler steps, and on which logged value.
        mixing: (batch, epoch, number of the batch, rank) -> the batch to train on; None: as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        target: Target,
        mean: Sequence[float],
        std: Sequence[float],
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        total_steps_argument: str | None = None,
        interval: str = "epoch",
        monitor: str | None = None,
        mixing: Callable[[Batch, int, int, int], Batch] | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network, target, mean, std, description)
        self.loss, self.mixing = loss, mixing
        self.build_optimizer, self.build_scheduler = optimizer, scheduler
        self.total_steps_argument = total_steps_argument
        self.scheduler_options = {"interval": interval, "monitor": monitor}
        self.confusion = ConfusionMatrix(len(target.part_names), len(target.class_names))
        self._compiled: Callable[[Tensor], Tensor] = network.forward
        self._compiled_size = 0

    @classmethod
    def of(cls, model: Segmenter) -> Self:
        """A trained model, to be scored."""
        mean, std = (values.flatten().tolist() for values in (model.mean, model.std))
        return cls(model.network, nn.Identity(), model.target, mean, std, description=model.description).eval()

    def compile_training(self, batch_size: int) -> None:
        """Compile the network for training steps on batches of this size; everything else stays eager."""
        self._compiled, self._compiled_size = torch.compile(self.network.forward, dynamic=False), batch_size

    def _classes(self, parts: Tensor) -> Tensor:
        return self.class_of_part.index_select(0, parts.flatten().int()).view_as(parts)

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, by the compiled network where the batch has the size it was compiled for.

        A blended batch has the loss of both its masks, weighted as its pictures are.
        """
        images = self.normalized(batch["image"])
        network = self._compiled if len(images) == self._compiled_size else self.network
        logits = network(images)
        loss = self.loss(logits, self._classes(batch["parts"]))
        if "other_parts" in batch:
            loss = loss.lerp(self.loss(logits, self._classes(batch["other_parts"])), batch["other_share"])
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.mixing is not None:
            batch = self.mixing(batch, self.current_epoch, batch_idx, self.global_rank)
        loss = self.training_loss(batch)
        self.log("train/loss", loss, batch_size=len(batch["image"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation_loss, self._validation_images = torch.zeros((), device=self.device), 0

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Logits float32 (B,K,H,W) and masks int64 (B,H,W), for callbacks."""
        logits = self(batch["image"]).to(torch.float32, memory_format=torch.contiguous_format)
        masks = self._classes(batch["parts"])
        self.confusion.update(self._part_counts(classes(logits), batch["parts"]))
        self._validation_loss += self.loss(logits, masks) * len(logits)
        self._validation_images += len(logits)
        return {"logits": logits, "masks": masks}

    def on_validation_epoch_end(self) -> None:
        counts = self.confusion.compute().cpu()
        classes = range(len(self.target.class_names))
        self.validation_matrix = merge_counts(counts, self.target.part_to_class, classes, len(classes))
        self.confusion.reset()
        self.log("val/loss", self._validation_loss / self._validation_images, sync_dist=True)
        result = scores(self.validation_matrix)
        per_class = zip(self.target.class_names, result["iou"], strict=True)
        self.log("val/miou", result["miou"].float(), prog_bar=True)
        self.log("val/accuracy", result["accuracy"].float())
        self.log_dict({f"val/iou_{name}": iou.float() for name, iou in per_class})

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:  # noqa: ARG002
        """Logits (B,K,H,W), predictions uint8 (B,H,W), counts int64 (B,parts,K), at both resolutions if asked for."""
        logits = self(batch["image"])
        predictions = classes(logits)
        counts = self._part_counts(predictions, batch["parts"])
        result = {"logits": logits, "predictions": predictions, "counts": counts}
        if "original_parts" in batch:
            result["original_counts"] = torch.cat(
                [
                    self._part_counts(classes(resize_logits(one[None], parts.shape)), parts[None])
                    for one, parts in zip(logits, batch["original_parts"], strict=True)
                ]
            )
        return result

    def _part_counts(self, predictions: Tensor, parts: Tensor) -> Tensor:
        return confusion_counts(predictions, parts, len(self.target.part_names), len(self.target.class_names))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and its scheduler.

        A network with an `encoder_lr_scale` other than 1 has its `encoder` trained at that part of every rate.

        Raises:
            InputError: a scheduler that cannot schedule this optimizer, or a training of this length.
        """
        if self.build_optimizer is None:
            raise ValueError("this module was built for evaluation: give it an optimizer to train it")
        optimizer = self.build_optimizer(self._parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_scale", 1.0)
        if self.build_scheduler is None:
            return optimizer
        arguments: dict[str, Any] = {}
        if self.total_steps_argument is not None:
            arguments[self.total_steps_argument] = int(self.trainer.estimated_stepping_batches)
        try:
            scheduler = self.build_scheduler(optimizer, **arguments)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise InputError(
                f"the scheduler cannot schedule {type(optimizer).__name__} here ({error}); choose another scheduler="
            ) from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **self.scheduler_options}}  # type: ignore[return-value]

    def try_optimizer(self) -> None:
        """Take a step of the optimizer with parameters of these names and one value each; raises what it raises."""
        groups = [
            {**group, "params": [(name, nn.Parameter(torch.ones([1] * p.ndim))) for name, p in group["params"]]}
            for group in self._parameter_groups()
        ]
        parameters = [parameter for group in groups for _, parameter in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        with torch.random.fork_rng(devices=[]):
            assert self.build_optimizer is not None
            optimizer = self.build_optimizer(groups)
            getattr(optimizer, "train", lambda: None)()  # of schedule-free ones
            optimizer.step(lambda: 1.0)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Named parameters: all in one group, or the encoder in one of its own, at its part of the rate."""
        named, scale = list(self.named_parameters()), getattr(self.network, "encoder_lr_scale", 1.0)
        if scale == 1:
            return [{"params": named}]
        encoder = set(map(id, self.network.get_submodule("encoder").parameters()))
        return [
            {"params": [(name, p) for name, p in named if id(p) not in encoder]},
            {"params": [(name, p) for name, p in named if id(p) in encoder], "lr_scale": scale},
        ]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """As Lightning does it; the schedulers of timm are told the number of the step."""
        if isinstance(scheduler, LRScheduler):
            super().lr_scheduler_step(scheduler, metric)
        else:
            scheduler.step_update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Other weights have another temperature."""
        self.description["temperature"] = checkpoint[CHECKPOINT_KEY].get("temperature", 1.0)
