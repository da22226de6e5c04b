"""What makes two jobs the same: the resolved configuration, the seed, the data and the version of the package."""

import hashlib
import json
import re
from typing import Any

from petseg_lightning import __version__
from petseg_lightning.effect import effective_values

LONGEST_NAME = 80  # characters of the readable part


def identity(config: Any, data: str) -> dict[str, str]:
    """The identity of a job.

    Args:
        config: composed; values without effect on the result are no part of it.
        data: a fingerprint of the data.
    """
    return {"config": digest(effective_values(config)), "data": data, "version": __version__}


def digest(content: Any) -> str:
    """Twelve hexadecimal digits of plain values."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_name(overrides: str, *, _root_: Any) -> str:
    """The name of a job's folder: its own overrides, and a digest of its configuration and the package's version.

    So a job finds its folder again, and no other job gets it; only other data under the same configuration could.
    `=` breaks the child processes of DDP and is not in it.

    Args:
        overrides: those in which the jobs of the sweep differ, e.g. `optimizer=adam,seed=0`.
        _root_: the configuration, handed over by OmegaConf.
    """
    readable = re.sub(r"[^\w.,+-]+", "-", overrides)[:LONGEST_NAME].strip("-")
    mark = digest([effective_values(_root_, leave_out=["hydra"]), __version__])[:8]
    return f"{readable}_{mark}" if readable else mark
