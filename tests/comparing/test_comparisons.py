import numpy as np
import pandas as pd
import pytest

from petseg_lightning.comparing.comparisons import Comparison, choose_pairs, compare_pairs
from petseg_lightning.comparing.folders import find_folders
from petseg_lightning.comparing.runs import group, read_runs
from petseg_lightning.comparing.statistics import holm
from petseg_lightning.comparing.tables import (
    comparison_table,
    comparisons_markdown,
    leaderboard,
    leaderboard_markdown,
)
from petseg_lightning.errors import InputError


def settings_in(folder):
    return group(read_runs(find_folders([str(folder)]))[0])


def compared(settings, pairs=None, **options):
    options = {"confidence": 0.95, "resamples": 2000, "seed": 0} | options
    return compare_pairs(settings, choose_pairs(settings, None, 99) if pairs is None else pairs, **options)


def test_the_leaderboard_by_hand(sweep, truths, count, miou, flipped):
    table = leaderboard(settings_in(sweep), 0.95)
    assert list(table["setting"]) == ["optimizer.lr=0.001", "optimizer.lr=0.1"]
    assert list(table["runs"]) == [3, 3]
    for row, (job, share) in zip(table.to_dict("records"), [(0, 0.05), (1, 0.2)], strict=True):
        matrices = [count(truths, flipped(truths, share + 0.004 * (s - 1), seed=10 * job + s)) for s in range(3)]
        scores = np.array([miou(matrix) for matrix in matrices])
        assert row["miou"] == pytest.approx(scores.mean())
        assert row["miou_sd"] == pytest.approx(np.sqrt(((scores - scores.mean()) ** 2).sum() / 2))
        half = 4.302652729911275 * row["miou_sd"] / np.sqrt(3)  # of a t table: 2 degrees of freedom, 95 %
        assert (row["miou_low"], row["miou_high"]) == pytest.approx((scores.mean() - half, scores.mean() + half))
        assert row["accuracy"] == pytest.approx(np.mean([matrix.trace() / matrix.sum() for matrix in matrices]))
        pet = [matrix[0, 0] / (matrix[0].sum() + matrix[:, 0].sum() - matrix[0, 0]) for matrix in matrices]
        assert row["iou_pet"] == pytest.approx(np.mean(pet))
    text = leaderboard_markdown(table, 0.95)
    assert text.splitlines()[0].startswith(
        "| setting | runs | mean IoU | mean IoU, 95% interval | accuracy | accuracy, 95% interval | IoU pet |"
    )
    assert f"{table['miou'][0]:.3f} ± {table['miou_sd'][0]:.3f}" in text.splitlines()[2]
    assert {line.count("|") for line in text.splitlines()} == {10}


def test_comparisons_in_markdown(sweep):
    table = comparison_table(compared(settings_in(sweep)))
    heading, _, row = comparisons_markdown(table, 0.9).splitlines()
    assert heading == "| first | second | difference in mean IoU | 90% interval | p (Holm) | verdict |"
    assert row.startswith(f"| optimizer.lr=0.001 | optimizer.lr=0.1 | {table['difference'][0]:+.4f} | ")
    assert row.endswith(" | optimizer.lr=0.001 is better |")


def test_a_single_seed_has_no_interval_on_the_leaderboard(write_run, truths, tmp_path, flipped):
    write_run("a", flipped(truths, 0.1, 0))
    table = leaderboard(settings_in(tmp_path / "runs"), 0.95)
    assert table.loc[0, ["miou_sd", "miou_low", "miou_high", "accuracy_sd"]].isna().all()
    assert "nan" not in leaderboard_markdown(table, 0.95)


@pytest.mark.parametrize("with_counts", [True, False])
def test_a_known_share_of_flipped_pixels_is_recovered(write_run, truths, tmp_path, with_counts, count, miou, flipped):
    """Known answer: the same predictions, and again with 5 % of their pixels flipped."""
    good = flipped(truths, 0.1, 0)
    worse = np.where(np.random.default_rng(1).random(good.shape) < 0.05, (good + 1) % 3, good)
    write_run("good", good, with_counts=with_counts)
    write_run("worse", worse, {"optimizer.lr": 0.1}, with_counts=with_counts)
    (one,) = compared(settings_in(tmp_path / "runs"))
    singles = [[miou(count(*pair)) for pair in zip(truths, masks, strict=True)] for masks in (good, worse)]
    of_matrix = miou(count(truths, good)) - miou(count(truths, worse))
    of_images = np.mean(singles[0]) - np.mean(singles[1])
    assert abs(of_matrix - of_images) > 2e-4
    assert one.result.value == pytest.approx(of_matrix if with_counts else of_images, abs=1e-6)
    assert 0 < one.result.low < one.result.value < one.result.high
    assert one.result.p_pictures == pytest.approx(1 / 2001)
    assert one.is_evidence
    assert one.verdict == "defaults is better, as trained once"


def test_equal_predictions_are_no_evidence(write_run, truths, tmp_path, flipped):
    for name, overrides in {"a": {}, "b": {"optimizer.lr": 0.1}}.items():
        write_run(name, flipped(truths, 0.1, 0), overrides)
    (one,) = compared(settings_in(tmp_path / "runs"))
    assert (one.result.value, one.result.low, one.result.high, one.p_holm) == (0, 0, 0, 1)
    assert one.verdict == "no evidence of a difference, as trained once"


def test_seeds_that_vary_take_the_evidence_away(write_run, truths, tmp_path, flipped):
    """Networks that differ clearly from each other, of settings that do not."""
    for name, rate, shares in (("a", 0.1, (0.05, 0.15)), ("b", 0.2, (0.06, 0.18))):
        for seed, share in enumerate(shares):
            write_run(f"{name}{seed}", flipped(truths, share, seed), {"optimizer.lr": rate, "seed": seed})
    (one,) = compared(settings_in(tmp_path / "runs"))
    assert one.result.p_pictures < 0.01
    assert one.result.low < 0 < one.result.high
    assert one.verdict == "no evidence of a difference"


def test_the_difference_is_that_of_the_leaderboard(sweep):
    settings = settings_in(sweep)
    table = leaderboard(settings, 0.95)
    (one,) = compared(settings)
    assert one.result.value == pytest.approx(table["miou"][0] - table["miou"][1], abs=1e-12)
    assert one.verdict == "optimizer.lr=0.001 is better"
    (other,) = compared(settings, [(settings[1], settings[0])])
    assert other.result.value == -one.result.value
    assert other.verdict == one.verdict
    assert compared(settings)[0] == one


def test_p_values_are_corrected_for_the_number_of_comparisons(write_run, truths, tmp_path, flipped):
    for job in range(3):
        for seed in range(3):
            noise = flipped(truths, 0.1 + 0.005 * job + 0.003 * seed, 10 * job + seed)
            write_run(f"{job}{seed}", noise, {"optimizer.lr": job + 1, "seed": seed})
    results = compared(settings_in(tmp_path / "runs"))
    p = [max(one.result.p_seeds, one.result.p_pictures) for one in results]
    assert [one.p_holm for one in results] == holm(p)
    assert [one.p_holm for one in results] != p
    assert [one.is_evidence for one in results] == [value < 0.05 for value in holm(p)]
    table = comparison_table(results)
    assert list(table["p_holm"]) == holm(p)
    assert table["differs"][0].startswith("optimizer.lr: ")
    assert table["differs"].str.count(":").eq(1).all()


def test_pairs(sweep):
    a, b, c, d = "abcd"
    assert choose_pairs([a, b, c], None, 3) == [(a, b), (a, c), (b, c)]
    assert choose_pairs([a, b, c, d], None, 5) == [(a, b), (a, c), (a, d)]
    assert choose_pairs([a, b, c], b, 1) == [(a, b), (c, b)]
    assert choose_pairs([a], None, 15) == choose_pairs([a], a, 15) == []


def test_the_pictures_of_most_disagreement(sweep):
    settings = settings_in(sweep)
    (one,) = compared(settings)
    tables = [pd.read_csv(run.folder.path / "per_image.csv") for setting in settings for run in setting.runs]
    scores = [np.mean([table["miou"] for table in three], axis=0) for three in (tables[:3], tables[3:])]
    worst = np.argsort(-abs(scores[0] - scores[1]))[:5]
    found = one.disagreements(5)
    assert found["row"].tolist() == worst.tolist()
    assert found["name"].tolist() == [f"beagle_{row}" for row in worst]
    assert found["first"].to_numpy() == pytest.approx(scores[0][worst])
    assert found["difference"].to_numpy() == pytest.approx((scores[0] - scores[1])[worst])
    assert one.disagreements(0).empty
    assert Comparison(one.first, one.first, one.result, 1.0, False).disagreements(5).empty


def test_one_test_picture_is_too_few(sweep):
    for table in sweep.glob("*/per_image.csv"):
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="tested on one picture"):
        compared(settings_in(sweep))
