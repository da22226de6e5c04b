"""One trained network, from pictures to logits and calibrated probabilities."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from petseg_lightning.data.samples import squeezed
from petseg_lightning.devices import AUTOCAST, keep_freed_memory, lay_channels_last, usable_precision
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import find_model, load_module
from petseg_lightning.inference.exported import FILES, find_export, runtime
from petseg_lightning.inference.tiling import Window, blend
from petseg_lightning.segmenter import Segmenter, resize_logits

Forward = Callable[[Tensor], Tensor]  # uint8 images (B,3,S,S) on the CPU -> logits (B,K,S,S), anywhere

TTA = {  # scales at which a picture is looked at, and whether its mirror image is, too
    "none": ((1.0,), False),
    "flip": ((1.0,), True),
    "multiscale": ((0.75, 1.0, 1.25), True),
}
_MULTIPLE = 32  # of which sizes are, as most encoders want it


class Member:
    """A network with what it takes to use it.

    Args:
        forward: the network with its normalization.
        description: of a checkpoint: classes, input size, temperature, forecast, which holds without `tta` only.
        tta: none, flip or multiscale: views of a picture whose logits are averaged.
    """

    def __init__(self, forward: Forward, description: dict[str, Any], tta: str = "none") -> None:
        self.forward, self.description = forward, description
        self.scales, self.mirrored = TTA[tta]
        self.class_names: tuple[str, ...] = tuple(description["target"]["class_names"])
        self.image_size: int = description["preprocessing"]["image_size"]
        self.temperature: float = description.get("temperature", 1.0)
        self.forecast: dict[str, Any] | None = description.get("forecast") if tta == "none" else None

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device,
        tta: str = "none",
        backend: str = "auto",
        trust_code: bool = False,
    ) -> Self:
        """The model of a run folder, a checkpoint, a bundle or an export.

        Args:
            path: of it.
            device: what computes it.
            tta: see above.
            backend: torch, onnx or openvino; auto: that of an export, and for all others torch, as in their training
                where that is fast here.
            trust_code: whether a file of torch.export, which is a program, may be loaded.

        Raises:
            InputError: nothing there that can be used.
        """
        forward, description = _load(find_model(path), device, backend, trust_code)
        return cls(forward, description, tta)

    def logits(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images of any sizes -> float32 logits (B,K,S,S), for S = image_size: what takes the time."""
        size, views = self.image_size, []
        for scale in self.scales:
            side = size if scale == 1 else max(1, round(size * scale / _MULTIPLE)) * _MULTIPLE
            batch = torch.from_numpy(np.stack([squeezed(image, side) for image in images])).permute(0, 3, 1, 2)
            seen = [self.forward(batch)] + ([self.forward(batch.flip(-1)).flip(-1)] if self.mirrored else [])
            views += [one.float() if side == size else resize_logits(one.float(), (size, size)) for one in seen]
        logits = views[0] if len(views) == 1 else torch.stack(views).mean(0)
        if logits.shape != (len(images), len(self.class_names), size, size) or not torch.isfinite(logits).all():
            raise InputError("the model's logits are not finite numbers for each of its classes; get the model again")
        return logits

    def probabilities(
        self, logits: Tensor, places: Sequence[Window], size: Sequence[int], rows: tuple[int, int] | None = None
    ) -> Tensor:
        """Logits (T,K,S,S) of a picture's windows -> calibrated probabilities of its pixels (K,H,W), size = H, W.

        `rows` is as of `tiling.blend`.
        """
        return blend(logits, places, size, rows).div_(self.temperature).softmax(0)


def _load(path: Path, device: torch.device, backend: str, trust_code: bool) -> tuple[Forward, dict[str, Any]]:
    export = find_export(path)
    if export is not None:
        if backend not in ("auto", export[0]):
            raise InputError(f"{path} is of backend={export[0]}; give that, or the checkpoint it was made of")
        if export[0] == "torch" and not trust_code:
            raise InputError(
                f"{path} is of torch.export, and such a file is a program: loading it may run what its author wants. "
                "Give trust_code=true if you know who made it, or better a bundle, a checkpoint or an ONNX file"
            )
        return runtime(export[0]).load(path, device)
    module = load_module(path)
    if backend in ("auto", "torch"):
        return _forward(module, device), module.description
    with TemporaryDirectory() as folder:
        file = Path(folder, FILES[backend])
        runtime(backend).save(module, file)
        return runtime(backend).load(file, device)


def _forward(module: Segmenter, device: torch.device) -> Forward:
    compute = module.description.get("compute", {})
    dtype = AUTOCAST.get(usable_precision(compute.get("precision", "32-true"), device))
    keep_freed_memory()
    module.to(device)
    if compute.get("channels_last"):
        lay_channels_last(module.network)

    def forward(images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            return module(images.to(device))

    return forward
