"""The loader alone, beside reading the files as torchvision's data sets do; and what each augmentation costs."""

from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from typing import Any

import cv2
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from petseg_lightning.benchmarking.rates import Rates, in_turn, median, ratios
from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose
from petseg_lightning.data.cache import MemoryArrays, Pictures
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.dataset import Batch, SegmentationDataset, collate
from petseg_lightning.data.mixing import Mixing
from petseg_lightning.data.picture_file import read_image, read_mask
from petseg_lightning.data.transforms import Augmentation
from petseg_lightning.training import build_datamodule, build_transforms

FILES, ITEMS, BATCHES = 64, 1024, 16  # images of a round, and batches that are mixed


class FileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Opens, decodes, resizes, augments and normalizes at every access: image float (3,S,S), mask uint8 (S,S)."""

    def __init__(self, datamodule: SegmentationDataModule) -> None:
        self.samples, self.size = datamodule.splits[datamodule.decoded_splits[0]], datamodule.image_size
        self.augmentation, self.pictures = datamodule.augmentation, Pictures(self.samples, self.size)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[index]
        image = read_image(sample.image)
        mask = read_mask(sample.mask)
        image = TF.resize(image, [self.size, self.size], InterpolationMode.BILINEAR)
        mask = TF.resize(mask, [self.size, self.size], InterpolationMode.NEAREST)
        pixels, parts = TF.pil_to_tensor(image), TF.pil_to_tensor(mask)[0]
        if self.augmentation is not None:
            arrays = self.augmentation(pixels.permute(1, 2, 0).numpy(), parts.numpy(), 0, index, self.pictures)
            pixels, parts = torch.from_numpy(arrays[0]).permute(2, 0, 1), torch.from_numpy(arrays[1])
        return TF.normalize(pixels / 255, [0.5] * 3, [0.25] * 3), parts


def measure_data(cfg: DictConfig) -> dict[str, Any]:
    """Images per second of one worker, from files and as configured, in turn, and of the whole loader.

    And, on one core, the milliseconds per image of decoding, and of every choice of augmentation and mixing.
    """
    datamodule = build_datamodule(cfg)
    size = datamodule.batch_size
    loader = datamodule.train_dataloader()
    datamodule.num_workers = 0
    files = DataLoader(FileDataset(datamodule), size)
    rates: Rates = {}
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # as a worker has it
    cv2.setNumThreads(1)
    try:
        contestants = {"files": _images(files, FILES), "worker": _images(datamodule.train_dataloader(), ITEMS)}
        rates |= in_turn(contestants, cfg.rounds, torch.device("cpu"))
        costs = in_turn(_augmentations(datamodule), cfg.rounds, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    rates |= in_turn({"loader": _images(loader, 64 * size)}, cfg.rounds, torch.device("cpu"))
    return {
        "workers": loader.num_workers,
        "rates": rates,
        "per_worker": median(ratios(rates, "worker", "files")),
        "cost_ms": {name: 1000 / median(values) for name, values in costs.items()},
    }


def _augmentations(datamodule: SegmentationDataModule) -> dict[str, Callable[[], int]]:
    """Decoding some pictures, and every way to augment or mix them once decoded; each returns how many."""
    samples, size = datamodule.splits[datamodule.decoded_splits[0]][:FILES], datamodule.image_size
    pictures = Pictures(samples, size, MemoryArrays(samples, size), np.arange(len(samples)))
    batch = collate([SegmentationDataset(pictures)[index] for index in range(len(pictures))])
    files = SegmentationDataset(Pictures(samples, size))
    ways: dict[str, Callable[[], int]] = {"decoding": partial(_make_items, files)}
    for option in options("augmentation"):
        cfg = compose("train", [f"augmentation={option}", f"data.image_size={size}"])
        if transforms := build_transforms(cfg.augmentation):
            dataset = SegmentationDataset(pictures, Augmentation(transforms, datamodule.seed))
            ways[f"augmentation={option}"] = partial(_make_items, dataset)
    for option in options("mixing"):
        if mixing := compose("train", [f"mixing={option}"]).mixing:
            ways[f"mixing={option}"] = partial(_mix_batches, build(mixing, seed=datamodule.seed), batch)
    return ways


def _make_items(dataset: SegmentationDataset) -> int:
    return len([dataset[index] for index in range(len(dataset))])


def _mix_batches(mixing: Mixing, batch: Batch) -> int:
    return sum(len(mixing(batch, 0, number)["image"]) for number in range(BATCHES))


def _images(loader: DataLoader[Any], number: int) -> Callable[[], int]:
    """Takes so many images, or the rest of their last batch too, where it stopped before; returns their number."""
    batches = chain.from_iterable(repeat(loader))

    def take() -> int:
        taken = 0
        while taken < number:
            batch = next(batches)
            taken += len(batch["image"] if isinstance(batch, dict) else batch[0])
        return taken

    return take
