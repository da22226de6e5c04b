"""How strong an augmentation is: what its YAML says, scaled."""

from collections.abc import Mapping, Sequence
from typing import Any

from petseg_lightning.errors import InputError


def at_strength(
    transforms: Sequence[dict[str, Any]],
    strength: float = 1.0,
    factors: Sequence[str] = (),
    amounts: Sequence[str] = (),
    copy_paste: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """What an augmentation's YAML says, as the transforms to build: none at strength 0, at 1 those that are written.

    Settings that are called one of `factors` are raised to the power of `strength`, `amounts` are multiplied by it, and
    so is the p of each transform, but never raised: more flips are no stronger ones. What the transforms of a OneOf
    weigh stays. `copy_paste` comes first, where its p is above 0.

    Raises InputError for a transform without p at another strength than 0 and 1.
    """
    nodes = [*([copy_paste] if copy_paste and copy_paste["p"] else []), *transforms]
    if strength in (0, 1):
        return nodes if strength else []
    if forgotten := [node["_target_"] for node in nodes if "p" not in node]:
        raise InputError(f"augmentation.strength={strength} needs the p of {forgotten[0]}: write it into its transform")

    def scaled(node: Any, key: str = "") -> Any:
        if isinstance(node, Mapping):
            return {name: scaled(value, name if name in (*factors, *amounts) else key) for name, value in node.items()}
        if isinstance(node, list):
            return [scaled(item, key) for item in node]
        if not key or isinstance(node, bool) or not isinstance(node, int | float):
            return node
        return node**strength if key in factors else node * strength

    return [{**scaled(node), "p": node["p"] * min(strength, 1)} for node in nodes]
