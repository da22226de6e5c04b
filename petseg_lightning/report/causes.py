"""Why a picture went wrong: the paper's causes of failure (section 4), as far as they can be measured."""

from dataclasses import dataclass

import pandas as pd

WEAK_EDGE_QUANTILE = 0.25
FILLED_PICTURE = 0.60
SMALL_PET = 0.10
CONFUSED_SPECIES = 0.25
DOMINANT_CLASS = 0.80
BOUNDARY_ERRORS = 0.90


@dataclass(frozen=True)
class Cause:
    """A cause of failure: the rule in words, its measure and its verdict on every row of `per_image`."""

    name: str
    rule: str
    measure: pd.Series
    holds: pd.Series
    number_format: str = ".0%"

    def tag(self, row: int) -> str:
        """Name and measured value, for one row of `per_image`."""
        return f"{self.name} {self.measure[row]:{self.number_format}}"


def measure_causes(per_image: pd.DataFrame) -> list[Cause]:
    """The paper's causes whose measure stands in `per_image`; a row without a value never holds."""

    def column(name: str) -> pd.Series:
        return per_image.get(name, pd.Series(float("nan"), index=per_image.index))

    contrast, pet_share = column("edge_contrast"), column("pet_fraction")
    confusion, near_boundary = column("species_confusion"), column("boundary_error_share")
    dominant = per_image.filter(regex="^fraction_").max(axis=1)
    weak_edge = contrast.quantile(WEAK_EDGE_QUANTILE)
    causes = [
        Cause(
            "weak edge",
            f"The colour step across the true outline, relative to the picture's, is below {weak_edge:.2f}, "
            f"the lowest {WEAK_EDGE_QUANTILE:.0%} of these pictures.",
            contrast,
            contrast < weak_edge,
            ".2f",
        ),
        Cause(
            "fills the picture",
            f"The animal covers at least {FILLED_PICTURE:.0%} of the picture.",
            pet_share,
            pet_share >= FILLED_PICTURE,
        ),
        Cause(
            "small animal",
            f"The animal covers at most {SMALL_PET:.0%} of the picture.",
            pet_share,
            pet_share <= SMALL_PET,
        ),
        Cause(
            "cat/dog confusion",
            f"At least {CONFUSED_SPECIES:.0%} of the animal is taken for the other species.",
            confusion,
            confusion >= CONFUSED_SPECIES,
        ),
        Cause(
            "class imbalance",
            f"A single class holds at least {DOMINANT_CLASS:.0%} of the true pixels.",
            dominant,
            dominant >= DOMINANT_CLASS,
        ),
        Cause(
            "imprecise boundary",
            f"At least {BOUNDARY_ERRORS:.0%} of the wrong pixels lie within 3 pixels of a true boundary.",
            near_boundary,
            near_boundary >= BOUNDARY_ERRORS,
        ),
    ]
    return [cause for cause in causes if cause.measure.notna().any()]
