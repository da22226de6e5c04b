"""The layers of an encoder, for learning rates that fall from one to the next."""

import re
from collections.abc import Iterable

ENCODER = re.compile(r"(^|\.)encoder\.")
OWNER = re.compile(r"(\.\d+)?\.?\w+$")  # the name of a parameter, and of its module where that is a mere number
BLOCK = re.compile(r"^.*?(\.\d+)+(?=\.|$)")


def distance_from_decoder(names: Iterable[str]) -> dict[str, int]:
    """How many layers back from the decoder each parameter is: 0 outside of the encoder, 1 in its last layer.

    A layer is a numbered block (`layer1.0`, `blocks.3`, `stages.2`), or a module beside them; all that comes before
    the first numbered block is one layer, the stem. These are the layers of BEiT's recipe (Bao et al., "BEiT: BERT
    Pre-Training of Image Transformers", 2021), for any encoder.

    Args:
        names: of a network's parameters in their order; those with a part `encoder` are the encoder's.
    """
    layers: dict[str, int] = {}
    layer_of: dict[str, int] = {}
    all_names = list(names)
    paths = {name: OWNER.sub("", name) for name in all_names if ENCODER.search(name)}
    numbered = any(map(BLOCK.match, paths.values()))
    for name, path in paths.items():
        block = BLOCK.match(path)
        numbered = numbered and block is None
        key = "the stem" if numbered else block[0] if block else path
        layer_of[name] = layers.setdefault(key, len(layers))
    return {name: len(layers) - layer_of.get(name, len(layers)) for name in all_names}
