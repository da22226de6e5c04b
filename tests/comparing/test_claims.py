import re

import pandas as pd
import pytest
import yaml

from petseg_lightning.comparing.claims import Claim, ClaimError, check_claims, gap, score, share_above
from petseg_lightning.config import build, compose
from petseg_lightning.report.run_folder import RunFolder


def paper() -> list[Claim]:
    return list(build(compose("compare", ["claims=paper", "run=x"]).claims).values())


def test_the_paper_s_claims():
    assert [(claim.paper, claim.reading) for claim in paper()] == [
        (0.81, "at least 0.81"),
        (0.627, "at least 0.627"),
        (0.05, "at most 0.05"),
        (0.142, "at least 0.142"),
        (None, "at least 0.95"),
    ]


def test_claims_that_hold(write_run, truths, tmp_path, capsys, flipped):
    run = write_run("a", flipped(truths, 0.1, 0), train_predictions=flipped(truths, 0.07, 1))
    table = check_claims(paper(), RunFolder.read(run), tmp_path)
    assert table["holds"].all()
    scores = {split: RunFolder.read(run).metrics["splits"][split]["protocols"]["trimap"] for split in ("train", "test")}
    assert table["measured"][0] == scores["test"]["accuracy"]
    assert table["measured"][1] == scores["test"]["miou"]
    assert table["measured"][2] == scores["train"]["accuracy"] - scores["test"]["accuracy"] > 0.01
    assert table["measured"][3] == scores["test"]["lowest_image_miou"]
    written = pd.read_csv(tmp_path / "claims.csv")
    assert written["holds"].all()
    assert list(written["measured"]) == pytest.approx(list(table["measured"]), rel=1e-5)
    text = (tmp_path / "claims.md").read_text()
    assert f"| Test accuracy | 0.810 | at least 0.81 | {scores['test']['accuracy']:.3f} | yes |" in text
    page = (tmp_path / "index.html").read_text()
    assert "<strong>5</strong> of 5 claims hold" in page
    assert re.findall(r'<strong>(\d\.\d+)</strong></td><td class="num (\w+)">', page) == [
        (f"{value:.3f}", "yes") for value in table["measured"]
    ]
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    shown = capsys.readouterr().out
    assert shown.count("yes") == 5
    assert "40 test" in shown


def test_claims_that_do_not_hold_are_named_with_what_was_measured(write_run, truths, tmp_path, capsys, flipped):
    run = write_run("a", flipped(truths, 0.22, 0))
    with pytest.raises(ClaimError) as error:
        check_claims(paper(), RunFolder.read(run), tmp_path)
    accuracy = RunFolder.read(run).metrics["splits"]["test"]["protocols"]["trimap"]["accuracy"]
    assert str(error.value).startswith("3 of 5 claims do not hold (")
    assert f"Test accuracy: {accuracy:.3f}, not at least 0.81" in str(error.value)
    assert f"less test accuracy: {1 - accuracy:.3f}, not at most 0.05" in str(error.value)
    assert pd.read_csv(tmp_path / "claims.csv")["holds"].tolist() == [False, False, False, True, True]
    assert "<strong>2</strong> of 5 claims hold" in (tmp_path / "index.html").read_text()
    assert capsys.readouterr().out.endswith(f"run folder  {tmp_path}\n")


def test_what_was_not_measured_does_not_hold(write_run, truths, tmp_path, flipped):
    folder = write_run("a", flipped(truths, 0.1, 0))
    (folder / "per_image.csv").unlink()
    run = RunFolder.read(folder)
    del run.metrics["splits"]["train"]
    assert gap(run, "train", "test", "accuracy") is None
    assert score(run, "val", "accuracy") is None
    assert share_above(run, "accuracy", "miou") is None
    with pytest.raises(
        ClaimError, match=r"2 of 5 .*test accuracy: -, not at most 0.05.*mean IoU: -, not at least 0.95"
    ):
        check_claims(paper(), run, tmp_path)


@pytest.mark.parametrize(("value", "holds"), [(0.5, True), (0.6, True), (0.49, False), (0.61, False), (None, False)])
def test_the_bounds_belong_to_the_reading(value, holds):
    claim = Claim("x", lambda _: None, at_least=0.5, at_most=0.6)
    assert claim.holds(value) is holds
    assert claim.reading == "at least 0.5, at most 0.6"


def test_claims_of_one_s_own(write_run, truths, tmp_path, flipped):
    one = {
        "_target_": "petseg_lightning.comparing.claims.Claim",
        "text": "border",
        "at_most": 0.0,
        "measure": {"_target_": "petseg_lightning.comparing.claims.gap", "_partial_": True}
        | {"first": "test", "second": "train", "name": "miou"},
    }
    claims = build(yaml.safe_load(yaml.safe_dump({"own": one}))).values()
    run = RunFolder.read(write_run("a", flipped(truths, 0.1, 0)))
    assert check_claims(claims, run, tmp_path)["holds"].tolist() == [True]
