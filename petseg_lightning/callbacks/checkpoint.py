"""The best checkpoint, also across a resumed training."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose best is the one in its own folder, wherever that was when the training was interrupted.

    Lightning forgets the best of a training that goes on elsewhere.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict["best_model_path"]:  # nothing was validated yet
            return
        best = Path(str(self.dirpath)) / Path(state_dict["best_model_path"]).name
        if not best.is_file():
            log.warning("The best checkpoint so far, %s, is gone; the best from here on is kept", best)
            return
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): state_dict["best_model_score"]},
                "last_model_path": "",
            }
        )
