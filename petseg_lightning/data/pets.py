"""Oxford-IIIT Pet in its official layout, whole or in part (Parkhi et al., "Cats and Dogs", CVPR 2012)."""

import logging
import shutil
from pathlib import Path
from typing import ClassVar, Unpack

from petseg_lightning.data.datamodule import LoaderOptions, SegmentationDataModule
from petseg_lightning.data.presence import FOLDER, WAYS, require_pets
from petseg_lightning.data.samples import MaskCode, Sample
from petseg_lightning.data.targets import PET_PARTS, pet_target
from petseg_lightning.errors import InputError

log = logging.getLogger(__name__)

SPECIES = {"1": "cat", "2": "dog"}
# a trimap holds 1 = pet, 2 = background, 3 = border
TRIMAP_CODES = {
    species: MaskCode(
        values=(1, 2, 3),
        parts=(PET_PARTS.index(species), PET_PARTS.index("background"), PET_PARTS.index(f"{species} border")),
    )
    for species in SPECIES.values()
}


class OxfordPetDataModule(SegmentationDataModule):
    """`<root>/oxford-iiit-pet/{images,annotations}`, downloaded there by torchvision where it is missing."""

    complete_counts: ClassVar = {"trainval": 3680, "test": 3669}

    def __init__(
        self,
        root: str | Path = "data",
        target: str = "trimap",
        border: str | None = None,
        download: bool = True,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(root, pet_target(target, border), **options)
        self.download = download

    def prepare_data(self) -> None:
        """Download and verify the archives where the folder is missing; it appears whole or not at all.

        Raises InputError where there is neither data nor a network.
        """
        require_pets(self.root, self.download)
        folder = self.root / FOLDER
        if folder.is_dir():
            return
        from torchvision.datasets import OxfordIIITPet

        partial = self.root / f".{FOLDER}.partial"
        try:
            log.info("Downloading Oxford-IIIT Pet (800 MB) to %s", folder)
            shutil.rmtree(partial / FOLDER / "annotations", ignore_errors=True)  # else half of them count as done
            OxfordIIITPet(partial, download=True)
            (partial / FOLDER).rename(folder)
            partial.rmdir()
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"no Oxford-IIIT Pet in {folder.absolute()}, and it cannot be downloaded ({error}); {WAYS}"
            ) from error

    def read_splits(self) -> dict[str, list[Sample]]:
        folder = self.root / FOLDER
        splits = {split: _read_list(folder, split) for split in ("trainval", "test")}
        for split, official in self.complete_counts.items():
            found = len(splits[split])
            if found < official:
                counts = f"{found:,} of the {official:,} {split} pictures"
                log.info("A part of Oxford-IIIT Pet: %s", counts)
        return splits


def _read_list(folder: Path, split: str) -> list[Sample]:
    path = folder / "annotations" / f"{split}.txt"
    if not path.is_file():
        raise InputError(f"{path} is missing: {folder} is not a whole Oxford-IIIT Pet; extract both archives again")
    samples = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, _, species_id, _ = line.split()
            species = SPECIES[species_id]
        except (ValueError, KeyError):
            raise InputError(
                f"{path}:{number}: {line!r} is not 'name class-id species breed-id' with species 1 (cat) or "
                "2 (dog); correct the line"
            ) from None
        samples.append(
            Sample(
                name=name,
                image=folder / "images" / f"{name}.jpg",
                mask=folder / "annotations" / "trimaps" / f"{name}.png",
                code=TRIMAP_CODES[species],
                breed=name.rsplit("_", 1)[0],
                species=species,
            )
        )
    return samples
