"""Settings, two by two: the difference of their test mean IoU, and the pictures on which they disagree most."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from petseg_lightning.comparing.runs import Run, Setting
from petseg_lightning.comparing.statistics import (
    Difference,
    compare_scores,
    holm,
    mean_iou,
    resampled_scores,
    swap_test,
)
from petseg_lightning.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """`first` against `second`; differences are first less second."""

    first: Setting
    second: Setting
    result: Difference
    p_holm: float
    """`result.p`, corrected for the number of comparisons."""
    is_evidence: bool
    """Whether `p_holm` is small enough; the interval then excludes zero."""

    @property
    def is_repeated(self) -> bool:
        """Whether each setting was trained more than once; else nothing is said about training again."""
        return min(len(self.first.runs), len(self.second.runs)) > 1

    @property
    def verdict(self) -> str:
        return self.verdict_about(self.first.label, self.second.label)

    def verdict_about(self, first: str, second: str) -> str:
        """The verdict, with these names for the settings."""
        better = first if self.result.value > 0 else second
        text = f"{better} is better" if self.is_evidence else "no evidence of a difference"
        return text if self.is_repeated else f"{text}, as trained once"

    def disagreements(self, number: int) -> pd.DataFrame:
        """The pictures whose mean IoU over the runs differs most, if it does: row, name, both scores, difference."""
        first, second = (_picture_scores(setting) for setting in (self.first, self.second))
        names = self.first.runs[0].folder.per_image["name"]
        table = pd.DataFrame({"row": names.index, "name": names, "first": first, "second": second})
        table["difference"] = table["first"] - table["second"]
        table = table[table["difference"] != 0]
        return table.reindex(table["difference"].abs().sort_values(ascending=False, kind="stable").index[:number])


def _picture_scores(setting: Setting) -> np.ndarray:
    return pd.concat([run.folder.per_image["miou"] for run in setting.runs], axis=1).mean(axis=1).to_numpy()


def choose_pairs(
    settings: Sequence[Setting], baseline: Setting | None, max_pairs: int
) -> list[tuple[Setting, Setting]]:
    """Every setting with the baseline; without one all pairs, or the best with every other where those are too many."""
    if baseline is not None:
        return [(setting, baseline) for setting in settings if setting is not baseline]
    pairs = list(combinations(settings, 2))
    return pairs if len(pairs) <= max_pairs else [(settings[0], setting) for setting in settings[1:]]


def have_counts(settings: Sequence[Setting]) -> bool:
    """Whether every run says which pixels of every picture are in intersections and unions."""
    return all(run.counts is not None for setting in settings for run in setting.runs)


def compare_pairs(
    settings: Sequence[Setting],
    pairs: Sequence[tuple[Setting, Setting]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Compare the test mean IoU of pairs of settings.

    It is that of the matrix summed over all pictures, as in the headline, where every run has the counts of its
    pictures; else, for all of them, the mean over the pictures' mean IoU.

    Args:
        settings: all that occur in the pairs; their runs were scored on the same pictures.
        pairs: what to compare.
        confidence: of the intervals, 0..1; 1 less it is the level of the tests.
        resamples: of the pictures.
        seed: of the resampling.

    Raises:
        InputError: a single test picture.
    """
    exact = have_counts(settings)
    runs = [run for setting in settings for run in setting.runs]
    counts = [_counts(run, exact) for run in runs]
    intersections, unions = (np.stack(arrays) for arrays in zip(*counts, strict=True))  # (S,N,K)
    pictures = intersections.shape[1]
    if pictures < 2:
        raise InputError("the runs were tested on one picture: settings can be compared on two and more")
    rng = np.random.default_rng(seed)
    resampled, observed = (
        resampled_scores(intersections, unions, resamples, rng),
        mean_iou(intersections.sum(1), unions.sum(1)),
    )
    columns = {id(run): column for column, run in enumerate(runs)}
    results = []
    for pair in pairs:
        of = [[columns[id(run)] for run in setting.runs] for setting in pair]
        first, second = ((intersections[members].mean(0), unions[members].mean(0)) for members in of)
        results.append(
            Difference(
                *compare_scores(
                    (observed[of[0]], observed[of[1]]),
                    (resampled[:, of[0]], resampled[:, of[1]]),
                    pictures,
                    confidence,
                ),
                p_pictures=swap_test(first, second, resamples, rng),
            )
        )
    corrected = holm([result.p for result in results])
    return [
        Comparison(*pair, result, p, p < 1 - confidence)
        for pair, result, p in zip(pairs, results, corrected, strict=True)
    ]


def _counts(run: Run, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions (N,K); or mean IoU and 1 of every picture (N,1), whose ratio of sums is the mean."""
    if exact:
        assert run.counts is not None
        return run.counts
    scores = run.folder.per_image[["miou"]].to_numpy(np.float64)
    return np.nan_to_num(scores), np.isfinite(scores).astype(np.float64)
