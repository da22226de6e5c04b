"""From run folders to a leaderboard, comparisons and their page; or from one run folder to a verdict on claims."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from petseg_lightning.comparing.claims import Claim, check_claims
from petseg_lightning.comparing.comparisons import Comparison, choose_pairs, compare_pairs, have_counts
from petseg_lightning.comparing.folders import wanted_runs
from petseg_lightning.comparing.page import Disagreement, write_page
from petseg_lightning.comparing.runs import Setting, find_baseline, group, read_runs, require_comparable
from petseg_lightning.comparing.tables import comparison_table, leaderboard, print_places, print_tables, write_tables
from petseg_lightning.config import build_all
from petseg_lightning.errors import InputError
from petseg_lightning.report.run_folder import RunFolder


def compare(cfg: DictConfig) -> dict[str, Any]:
    """Compare the runs of `cfg.runs`, or hold `cfg.run` against `cfg.claims`; print and write the result.

    Args:
        cfg: what conf/compare.yaml composes to.

    Returns:
        The tables by name: `leaderboard` and `comparisons`, or `claims`.

    Raises:
        InputError: nothing to compare, runs that cannot be compared, a claim that does not hold.
    """
    folder, wanted = Path(cfg.paths.output_dir), wanted_runs(cfg)
    if cfg.get("claims") is not None:
        return {"claims": check_claims(build_all(cfg.claims, Claim), RunFolder.read(wanted[0]), folder)}
    runs, skipped = read_runs(wanted)
    require_comparable(runs)
    settings = group(runs)
    baseline = None if cfg.baseline is None else find_baseline(settings, str(cfg.baseline))
    pairs = choose_pairs(settings, baseline, cfg.max_pairs)
    statistics = {"confidence": cfg.confidence, "resamples": cfg.resamples}
    comparisons = compare_pairs(settings, pairs, seed=cfg.seed, **statistics) if pairs else []
    board, table = leaderboard(settings, cfg.confidence), comparison_table(comparisons)
    write_tables(folder, board, table, cfg.confidence)
    notes = _notes(settings, comparisons)
    pictures, problem = _pictures(folder / "pictures", settings, comparisons, cfg.num_pictures)
    notes += [f"The pictures are named only, not shown: {problem}."] if problem else []
    print_tables(board, comparisons, skipped, notes, cfg.confidence)
    options = statistics | {"exact": have_counts(settings)}
    page = write_page(folder, settings, board, list(zip(comparisons, pictures, strict=True)), skipped, notes, options)
    print_places(page, folder)
    return {"leaderboard": board, "comparisons": table}


def _notes(settings: Sequence[Setting], comparisons: Sequence[Comparison]) -> list[str]:
    """What has to be known to read the tables, a sentence each."""
    notes = []
    if len(settings) == 1:
        notes.append("There is one setting, and nothing to compare it with.")
    if comparisons and not have_counts(settings):
        notes.append(
            "Differences are of the mean over pictures, not of the headline: a run here, of an older version, "
            "did not count the intersections and unions of its pictures."
        )
    if not all(one.is_repeated for one in comparisons):
        notes.append(
            "A setting with one run: its intervals are about other test pictures, not about training again. Train it "
            "with several seeds, e.g. petseg train -m seed=0,1,2."
        )
    if any(run.fold is not None for setting in settings for run in setting.runs):
        notes.append(
            "The runs of a setting are its folds and seeds. Folds share most of their training pictures, so intervals "
            "are somewhat too narrow."
        )
    runs = [run.folder.environment for setting in settings for run in setting.runs]
    for what, values in (
        ("code (git commit)", {environment.get("git", {}).get("commit") for environment in runs}),
        ("compute", {str(environment.get("compute")) for environment in runs}),
    ):
        if len(values) > 1:
            notes.append(f"The runs were made with different {what}: {', '.join(sorted(map(str, values)))}.")
    return notes


def _pictures(
    folder: Path, settings: Sequence[Setting], comparisons: Sequence[Comparison], number: int
) -> tuple[list[list[Disagreement]], str]:
    """The pictures on which the settings of each comparison disagree, and why they cannot be shown, if so."""
    tables = [one.disagreements(number) for one in comparisons]
    keys = {setting.label: str(place) for place, setting in enumerate(settings)}
    rows: dict[str, dict[int, None]] = {}
    for one, table in zip(comparisons, tables, strict=True):
        for setting in (one.first, one.second):
            rows.setdefault(keys[setting.label], {}).update(dict.fromkeys(table["row"].tolist()))
    problem = _predict(folder, rows, settings) if any(map(len, tables)) else ""

    def described(one: Comparison, table: pd.DataFrame) -> list[Disagreement]:
        kinds = ("image.jpg", "truth.png", *(f"{keys[setting.label]}.png" for setting in (one.first, one.second)))
        return [
            Disagreement(name, first, second, () if problem else tuple(folder / f"{row:05d}_{kind}" for kind in kinds))
            for row, name, first, second, _ in table.itertuples(index=False)
        ]

    return [described(one, table) for one, table in zip(comparisons, tables, strict=True)], problem


def _predict(folder: Path, rows: dict[str, dict[int, None]], settings: Sequence[Setting]) -> str:
    """Write the pictures of these rows, by place of a setting; why that was impossible, else nothing."""
    from petseg_lightning.comparing.pictures import write_pictures  # torch

    try:
        write_pictures(folder, rows, {place: settings[int(place)] for place in rows})
    except (InputError, OSError, RuntimeError) as error:
        return " ".join(str(error).split())
    return ""
