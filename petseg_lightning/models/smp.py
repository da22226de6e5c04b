"""The architectures of segmentation_models_pytorch (smp) over the encoders of timm.

Both libraries are imported where they are used: other models do not wait for them.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.errors import InputError
from petseg_lightning.models.blocks import pad_and_crop, require_at_least
from petseg_lightning.models.encoder_weights import find_weights, load_weights, read_weights

log = logging.getLogger(__name__)

PRETRAINED = "pretrained"
TIMM = "tu-"  # what smp writes before a name of timm
MULTIPLE = 32  # of sides that every architecture takes
LARGEST = 32 * MULTIPLE  # of the sides that are tried for the smallest
HUB_TIMEOUT = 5.0  # seconds


class SMP(nn.Module):
    """A decoder of smp over an encoder of timm, which may start from pretrained weights.

    Iakubovskii, "Segmentation Models Pytorch", 2019; Wightman, "PyTorch Image Models", 2019. Both say which paper
    an architecture or an encoder is from.

    Args:
        num_classes: K, at least 2.
        arch: a class of smp: Unet, UnetPlusPlus, DeepLabV3Plus, FPN, UPerNet, Segformer, DPT, ...
        encoder: a model of timm, `resnet18` or `resnet18.a1_in1k`, or an encoder of smp by its own name.
        encoder_weights: None: random; "pretrained": what timm or smp downloads; else a file, or `package:<name>` for
            the one in an installed package. See `load_weights` for what fits.
        freeze_encoder: whether the encoder stays as it is, its normalization statistics too.
        encoder_lr_scale: the encoder's learning rate as a part of the others', above 0.
        options: further arguments of the architecture, of which those that it does not know are timm's.

    Attributes:
        encoder_lr_scale: as given; for whoever makes the optimizer.

    Raises:
        InputError: a value that nothing can be built from, weights that are not there or do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        arch: str = "Unet",
        encoder: str = "tf_efficientnet_lite0",
        encoder_weights: str | None = None,
        freeze_encoder: bool = False,
        encoder_lr_scale: float = 1.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_at_least(2, num_classes=num_classes)
        if not encoder_lr_scale > 0:
            raise InputError(f"model.encoder_lr_scale={encoder_lr_scale} must be above 0; freeze_encoder=true is for 0")
        self.model = _build(arch, encoder, num_classes, options or {}, encoder_weights == PRETRAINED)
        self.arch, self.multiple = arch, math.lcm(MULTIPLE, self.encoder.output_stride)
        self.smallest = _smallest_side(self.model, self.multiple)
        self.freeze_encoder, self.encoder_lr_scale = freeze_encoder, encoder_lr_scale
        if encoder_weights not in (None, PRETRAINED):
            _load(self.encoder, str(encoder_weights))
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        self.train()

    @property
    def encoder(self) -> Any:
        """What pretrained weights are for."""
        return self.model.encoder

    def extra_repr(self) -> str:
        return f"freeze_encoder={self.freeze_encoder}"

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel.

        Args:
            images: float (B, 3, H, W), normalized; any H and W that are padded to `smallest`, for most
                architectures at least 1.

        Returns:
            Logits (B, K, H, W).

        Raises:
            InputError: sides that are too short for the architecture.
        """
        if self.smallest > self.multiple:
            shortest = min(images.shape[-2:])
            if shortest <= self.smallest - self.multiple:
                raise InputError(
                    f"model.arch={self.arch} takes pictures of more than {self.smallest - self.multiple} pixels, and "
                    f"these have {shortest}: set data.image_size={self.smallest}, or choose another model.arch"
                )
        return pad_and_crop(self.model, images, self.multiple)


class EvenConv2d(nn.Conv2d):
    """TensorFlow's "same" padding for sides that the stride divides, where it is a constant.

    timm's own computes it from the sides, which is the same here, but takes `torch.export` many minutes.
    """

    def forward(self, x: Tensor) -> Tensor:
        pad: list[int] = []
        for kernel, stride, dilation in zip(
            self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            both = max((kernel - 1) * dilation + 1 - stride, 0)
            pad += [both // 2, both - both // 2]
        return F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _build(arch: str, encoder: str, num_classes: int, options: Mapping[str, Any], pretrained: bool) -> Any:
    """The network of smp, for images whose sides are multiples of its stride, of whatever size."""
    import segmentation_models_pytorch as smp
    from timm.layers import Conv2dSame

    from petseg_lightning.models.single_value_norm import KINDS

    architectures = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in architectures:
        names = ", ".join(architecture.__name__ for architecture in architectures.values())
        raise InputError(f"model.arch={arch} is none of those that there are: {names}")
    name = _name_in_smp(encoder)

    def make(weights: str | bool | None, **more: Any) -> Any:
        fixed = {"in_channels": 3, "classes": num_classes, "activation": None, "aux_params": None}
        network = architectures[arch.lower()](encoder_name=name, encoder_weights=weights, **fixed, **options, **more)
        if isinstance(network.encoder, smp.encoders.TimmViTEncoder):
            if not more and getattr(network.encoder.model, "dynamic_img_size", None) is False:
                return make(weights, dynamic_img_size=True)
            network.encoder.model.prune_intermediate_layers(1, prune_norm=True)  # keep all blocks, drop what follows
        for layer in network.modules():
            if isinstance(layer, Conv2dSame):
                layer.__class__ = EvenConv2d  # type: ignore[assignment]
            layer.__class__ = KINDS.get(type(layer), type(layer))
        return network

    try:
        network = make(None)
    except Exception as error:  # whatever the libraries raise
        raise InputError(
            f"model.arch={arch}, model.encoder={encoder} and model.options={dict(options)} do not go together "
            f"({_words(error)}); change one of them"
        ) from error
    return network if not pretrained else _download(make, encoder, name)


def _smallest_side(network: Any, multiple: int) -> int:
    """The shortest side of pictures, in multiples, that the layers of a network do not shrink to nothing."""
    network.eval()
    for side in range(multiple, LARGEST, multiple):
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, side, side))
        except RuntimeError:
            continue
        return side
    raise InputError(f"no picture of up to {LARGEST} pixels goes through this network: change model.options")


def _download(make: Callable[[str | bool], Any], encoder: str, name: str) -> Any:
    """The network with the weights that its library downloads."""
    import timm
    from segmentation_models_pytorch.encoders import encoders

    own = encoders.get(name)
    instead = "give a file with model.encoder_weights=<path>, or null"
    if own is None and not timm.is_model_pretrained(name.removeprefix(TIMM)):
        raise InputError(
            f"model.encoder_weights={PRETRAINED}: none are published for {encoder}, but for "
            f"{', '.join(_nearest(encoder, timm.list_pretrained()))}; choose one of these, {instead}"
        )
    weights = True if own is None else next(iter(own["pretrained_settings"]))
    try:
        with _hub():
            network = make(weights)
    except Exception as error:
        raise InputError(
            f"model.encoder_weights={PRETRAINED}: those that are published for {encoder} cannot be downloaded here "
            f"({_words(error)}); {instead}"
        ) from error
    log.info("Encoder weights: those that are published for %s", encoder)
    return network


@contextmanager
def _hub() -> Iterator[None]:
    """What is downloaded comes from the local cache, or fails at once, where the hub does not answer."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    offline = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception:  # of whatever library the hub's client uses
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _load(encoder: Any, place: str) -> None:
    """Load the weights of a file into an encoder of smp."""
    import timm
    from segmentation_models_pytorch.encoders import TimmUniversalEncoder, TimmViTEncoder

    file = find_weights(place)
    tensors = read_weights(file)
    if isinstance(encoder, TimmUniversalEncoder | TimmViTEncoder):
        load_weights(encoder.model, tensors, lambda: timm.create_model(encoder.name), str(file))
    else:
        load_weights(encoder, tensors, lambda: encoder, str(file))


def _name_in_smp(encoder: str) -> str:
    """The name that smp knows an encoder by; where timm and smp have the same name, timm's."""
    import timm
    from segmentation_models_pytorch.encoders import encoders

    name = encoder.removeprefix(TIMM)
    if timm.is_model(name):
        return TIMM + name
    if encoder not in encoders:
        names = {*timm.list_models(), *encoders}
        raise InputError(
            f"model.encoder={encoder} is none of the {len(names)} that there are; the nearest: "
            f"{', '.join(_nearest(encoder, names))}"
        )
    return encoder


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    return get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
