"""Messages of the libraries that say nothing to a user of this program."""

import logging
import warnings

from lightning.pytorch.utilities import rank_zero_only

IGNORED_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 calls what torch 2.14 deprecates
    r"The number of training batches .* is smaller than the logging interval",  # small data; val/loss is still logged
    r"Checkpoint directory .* exists and is not empty",  # two callbacks write there, and a resumed run goes on
    r".*multiple `ModelCheckpoint` callbacks",  # the first one is the best
    r"Experiment logs directory .* exists and is not empty",  # a resumed job has put its earlier log aside
    r"The dirpath has changed from",  # a resumed run writes into its own folder
    r"Precision \S+ is not supported by the model summary",  # its size in MB is that of 32 bits
    r"Found \d+ module\(s\) in eval mode",  # a frozen encoder
    r"Be aware that when using `ckpt_path`, callbacks",  # a run that is certified leaves out what does not train
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the loader goes on where it was
    r"The '\w+' does not have many workers",  # with decoded pictures in memory, workers only cost
)


def quiet_libraries() -> None:
    """Silence advertisements, device lists, warnings known to be harmless, and what other devices repeat."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "timm", "nncf", "onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # compiling without a GPU is no mistake
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if getattr(rank_zero_only, "rank", 0):
        logging.getLogger("petseg_lightning").setLevel(logging.WARNING)
