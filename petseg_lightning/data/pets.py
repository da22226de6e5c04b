"""Oxford-IIIT Pet in its official layout, whole or in part (Parkhi et al., "Cats and Dogs", CVPR 2012)."""

import logging
import shutil
from array import array
from functools import cache
from pathlib import Path, PurePath
from typing import ClassVar, Unpack

from petseg_lightning.data.datamodule import LoaderOptions, SegmentationDataModule
from petseg_lightning.data.presence import FOLDER, WAYS, require_pets
from petseg_lightning.data.sample_table import Kind, Samples, SampleTable
from petseg_lightning.data.samples import MaskCode
from petseg_lightning.data.targets import PET_PARTS, pet_target
from petseg_lightning.errors import InputError
from petseg_lightning.files import read_lines

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

    def read_splits(self) -> dict[str, Samples]:
        """The samples of trainval and test as they are listed, of one table.

        Raises InputError for a list that is missing, and for a line that cannot be read or contradicts another.
        """
        folder, table, rows = self.root / FOLDER, SampleTable(), dict[str, int]()
        splits = {split: _read_list(folder, split, table, rows) for split in ("trainval", "test")}
        for split, official in self.complete_counts.items():
            found = len(splits[split].unique()[0])
            if found < official:
                counts = f"{found:,} of the {official:,} {split} pictures"
                log.info("A part of Oxford-IIIT Pet: %s", counts)
        return splits


def _read_list(folder: Path, split: str, table: SampleTable, rows: dict[str, int]) -> Samples:
    """The entries of a list; a name without a row yet is added to the table and to `rows`."""
    path = folder / "annotations" / f"{split}.txt"
    if not path.is_file():
        raise InputError(f"{path} is missing: {folder} is not a whole Oxford-IIIT Pet; extract both archives again")
    entries = array("i")
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, _, species_id, _ = line.split()
            species = SPECIES[species_id]
            if PurePath(name).name != name:
                raise ValueError("no name but a path")
        except (ValueError, KeyError):
            raise InputError(
                f"{path}:{number}: {line!r} is not 'name class-id species breed-id' with species 1 (cat) or "
                "2 (dog); correct the line"
            ) from None
        row = rows.get(name)
        if row is None:
            row = rows[name] = table.append(name, _kind(folder, name.rsplit("_", 1)[0], species))
        elif table.kind(row).species != species:
            raise InputError(
                f"{path}:{number}: {name} is a {species} here and a {table.kind(row).species} in an earlier line; "
                "correct one of the two"
            )
        entries.append(row)
    return Samples(table, entries)


@cache
def _kind(folder: Path, breed: str, species: str) -> Kind:
    return Kind(
        images=folder / "images",
        ending=".jpg",
        masks=folder / "annotations" / "trimaps",
        code=TRIMAP_CODES[species],
        breed=breed,
        species=species,
    )
