"""Somebody's own pictures: `images/` + `masks/`, or `train/` + `test/` with a folder per breed."""

import re
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Unpack

import numpy as np

from petseg_lightning.data.datamodule import LoaderOptions, SegmentationDataModule
from petseg_lightning.data.picture_file import PICTURE_ENDINGS
from petseg_lightning.data.picture_folder import pictures_below
from petseg_lightning.data.sample_table import Kind, Samples, SampleTable
from petseg_lightning.data.samples import MaskCode, read_parts
from petseg_lightning.data.splits import stratified_holdout
from petseg_lightning.data.targets import IGNORE, own_target
from petseg_lightning.errors import InputError
from petseg_lightning.files import read_lines

Colour = Sequence[int]
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")  # how Python shows the bytes of such a name
_LOOKED_AT = 64  # masks, to find a second class in


class FolderDataModule(SegmentationDataModule):
    """Pictures with a PNG mask of the same name each, in one of two layouts.

    - `<root>/images/**` and `<root>/masks/**`: same relative paths, masks end in .png.
    - `<root>/train/` and `<root>/test/`, each either like the above, or with pictures and masks side by side
      in a folder per breed: `train/<breed>/<name>.jpg` and `train/<breed>/<name>.png`.

    The folder that a picture lies in is its breed. Where nothing says the split, `test_fraction` of the
    pictures, drawn from `split_seed` and stratified by breed, is the test split.

    Args:
        root: the folder above.
        class_names: in the order of the class ids.
        ignore_value: value of mask pixels that count for nothing, unless it is the value of a class; v stands
            for the colour (v,v,v) in a palette.
        mask_values: the mask value of each class; None: 0, 1, 2, ...
        palette: instead, the RGB colour of each class, for masks drawn in colours.
        split_lists: files, relative to root, with the names of `trainval` and `test`: a relative path without
            its ending per line.
        test_fraction: strictly between 0 and 1.
        options: see `SegmentationDataModule`.
    """

    def __init__(
        self,
        root: str | Path,
        class_names: Sequence[str],
        ignore_value: int = IGNORE,
        mask_values: Sequence[int] | None = None,
        palette: Sequence[Colour] | None = None,
        split_lists: Mapping[str, str] | None = None,
        test_fraction: float = 0.2,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(root, own_target(class_names), **options)
        self.code = _mask_code(class_names, ignore_value, mask_values, palette)
        self.split_lists, self.test_fraction = split_lists, test_fraction

    def read_splits(self) -> dict[str, Samples]:
        """The samples of trainval and test, of one table.

        Raises InputError for a folder of neither layout, an unknown name, or masks that show one class only.
        """
        splits = self._read_splits()
        self._require_classes(splits["trainval"])
        return splits

    def _read_splits(self) -> dict[str, Samples]:
        table = SampleTable()
        if self.split_lists is not None:
            if set(self.split_lists) != {"trainval", "test"}:
                raise InputError(
                    f"data.split_lists has {', '.join(self.split_lists)}; give the files of trainval and of "
                    "test, e.g. data.split_lists={trainval: trainval.txt, test: test.txt}"
                )
            everything = self._read_folder(self.root, table)
            rows = {name: row for row, name in enumerate(everything.names)}
            return {split: _listed(self.root / name, everything, rows) for split, name in self.split_lists.items()}
        if (self.root / "train").is_dir() and (self.root / "test").is_dir():
            folders = {"trainval": "train", "test": "test"}
            return {split: self._read_folder(self.root / name, table) for split, name in folders.items()}
        everything = self._read_folder(self.root, table)
        held_out = stratified_holdout(everything.breeds, self.test_fraction, self.split_seed)
        return {
            "trainval": everything.take(np.delete(np.arange(len(everything)), held_out)),
            "test": everything.take(held_out),
        }

    def _require_classes(self, samples: Samples) -> None:
        present: set[int] = set()
        looked_at = np.unique(np.linspace(0, len(samples) - 1, _LOOKED_AT).astype(int)) if len(samples) else ()
        for index in looked_at:
            with suppress(InputError):  # told with all others that cannot be read
                present |= set(np.unique(read_parts(samples[int(index)])).tolist()) - {IGNORE}
            if len(present) > 1:
                return
        if present:
            raise InputError(
                f"of the {len(looked_at)} masks in {self.root} that were looked at, none shows another class than "
                f"{self.target.class_names[present.pop()]}: if the classes are not 0, 1, 2, ... there, say what they "
                "are, e.g. data.mask_values=[0,255]"
            )

    def _read_folder(self, folder: Path, table: SampleTable) -> Samples:
        apart = (folder / "images").is_dir()
        images, masks = (folder / "images", folder / "masks") if apart else (folder, folder)
        endings = PICTURE_ENDINGS if apart else tuple(ending for ending in PICTURE_ENDINGS if ending != ".png")
        found = pictures_below(images, endings) if images.is_dir() else ()
        paths = [path.relative_to(images).as_posix() for path in found]
        paths.sort(key=lambda path: path.split("/"))
        if odd := next(filter(_NOT_UTF8.search, paths), None):
            raise InputError(
                f"{images}: the name {odd!a} is not in UTF-8, so that no table can have it; rename the picture and "
                "its mask"
            )
        if not paths:
            raise InputError(
                f"no pictures in {images.absolute()}; data.root must hold images/ and masks/, or train/ and "
                "test/ with pictures and .png masks side by side in a folder per breed"
            )
        first = len(table)
        for path in map(PurePath, paths):
            breed = "" if path.parent == PurePath() else path.parent.as_posix()
            kind = Kind(images, path.suffix, masks, self.code, breed)
            table.append(path.with_suffix("").as_posix(), kind)
        return Samples(table, range(first, len(table)))


def _mask_code(
    class_names: Sequence[str],
    ignore_value: int,
    mask_values: Sequence[int] | None,
    palette: Sequence[Colour] | None,
) -> MaskCode:
    if not 2 <= len(class_names) <= 254 or len(set(class_names)) < len(class_names):
        raise InputError(f"data.class_names={list(class_names)}: give 2 to 254 different names, one per class id")
    if mask_values is not None and palette is not None:
        raise InputError("data.mask_values and data.palette are two ways to say the same; give one of them")
    values: tuple = tuple(range(len(class_names))) if mask_values is None else tuple(mask_values)
    ignored: int | Colour = ignore_value
    if palette is not None:
        values, ignored = tuple(tuple(colour) for colour in palette), (ignore_value,) * 3
    if len(values) != len(class_names):
        raise InputError(
            f"data.class_names has {len(class_names)} names but {len(values)} mask values or colours are given; "
            "give one for each class"
        )
    if palette is None:
        key, kind, valid = "mask_values", "a whole number from 0 to 65535", [v in range(2**16) for v in values]
    else:
        key, kind = "palette", "three numbers from 0 to 255"
        valid = [len(colour) == 3 and all(v in range(256) for v in colour) for colour in values]
    if len(set(values)) < len(values) or not all(valid):
        raise InputError(f"data.{key}={list(values)}: give each class {kind} of its own")
    parts = tuple(range(len(class_names)))
    return MaskCode(values, parts) if ignored in values else MaskCode((*values, ignored), (*parts, IGNORE))


def _listed(path: Path, everything: Samples, rows: Mapping[str, int]) -> Samples:
    if not path.is_file():
        raise InputError(f"the split list {path} does not exist; paths in data.split_lists are relative to data.root")
    entries, unknown, first_unknown = array("i"), 0, ""
    for name in filter(None, map(str.strip, read_lines(path))):
        if name in rows:
            entries.append(rows[name])
        else:
            unknown, first_unknown = unknown + 1, first_unknown or name
    if unknown:
        raise InputError(
            f"{path} lists {first_unknown} ({unknown} such names), which is no picture of data.root; "
            "a name is the path below images/ without its ending"
        )
    return everything.take(entries)
