"""The best checkpoint, also across a resumed training."""

import logging
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from petseg_lightning.files import replacing

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose best survives a resume into another folder.

    Lightning forgets the best of a training that goes on elsewhere; here it is copied along, so that the resumed
    run ends with the best checkpoint that the undisturbed one would have.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict["best_model_path"]:  # nothing was validated yet
            return
        previous = Path(state_dict["best_model_path"])
        best = Path(str(self.dirpath)) / previous.name
        if not best.is_file():  # the training goes on in another folder
            if not previous.is_file():
                log.warning("The best checkpoint so far, %s, is gone; the best from here on is kept", previous)
                return
            _copy(previous, best)
        score = state_dict["best_model_score"]
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): score},
                "last_model_path": "",
            }
        )


@rank_zero_only
def _copy(source: Path, destination: Path) -> None:
    with replacing(destination) as temporary:
        shutil.copyfile(source, temporary)
