"""A trained model as one graph: uint8 RGB images (B,3,H,W) -> float32 logits (B,K,H,W), for any B, H and W."""

import json
import warnings
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from petseg_lightning.errors import InputError
from petseg_lightning.segmenter import CHECKPOINT_KEY, Segmenter

INPUT, OUTPUT = "images", "logits"
METADATA = CHECKPOINT_KEY  # under which a graph holds its description, as JSON
LONGEST = 16384  # side of an image, in pixels


def trace(module: Segmenter) -> ExportedProgram:
    """The graph of a model in evaluation mode, normalization included.

    Raises:
        InputError: a network whose layers depend on the size of the images in a way that no graph can hold.
    """
    network: Any = module.network
    multiple, shortest = network.multiple, shortest_side(module)
    sides = {2: Dim("height", min=shortest, max=LONGEST), 3: Dim("width", min=shortest, max=LONGEST)}
    example = torch.zeros(2, 3, 3 * multiple + shortest, 2 * multiple + shortest, dtype=torch.uint8)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            return torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: Dim("batch", min=1), **sides}})
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{type(module.network).__name__} cannot be exported for images of any size ({reason}); "
            "hand it on with format=bundle"
        ) from error


def shortest_side(module: Segmenter) -> int:
    """The shortest side of an image, in pixels, that a graph of this model takes."""
    network: Any = module.network
    return max(network.multiple, getattr(network, "smallest", 0) - network.multiple) + 1


def contract(module: Segmenter, precision: str) -> str:
    """What a graph says of itself, as JSON: the model's description and what goes in and out."""
    names = list(module.target.class_names)
    return json.dumps(
        {
            **module.description,
            "export": {
                "precision": precision,
                "input": f"{INPUT}: uint8 RGB (batch, 3, height, width), sides from {shortest_side(module)} pixels",
                "output": f"{OUTPUT}: float32 (batch, {len(names)}, height, width) of {', '.join(names)}",
            },
        }
    )
