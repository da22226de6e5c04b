import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.report.run_folder import RunFolder


def test_epoch_is_the_mean_of_its_logged_steps(run_folder):
    lines = ["epoch,step,train/loss,val/miou", "0,4,0.9,", "0,9,0.8,", "0,9,,0.31", "1,19,0.5,", "1,19,,0.42"]
    (run_folder / "csv" / "metrics.csv").write_text("\n".join(lines))
    epochs = RunFolder.read(run_folder).epochs
    assert epochs["train/loss"].to_dict() == pytest.approx({1: 0.85, 2: 0.5})
    assert epochs["val/miou"].to_dict() == {1: 0.31, 2: 0.42}


def test_names_stay_text_and_empty_scores_are_absent(run_folder):
    rows = "name,breed,species,iou_pet,miou\n007,,,,0.5\nNA,nan,,0.25,1\n"
    (run_folder / "per_image.csv").write_text(rows)
    table = RunFolder.read(run_folder).per_image
    assert list(table["name"]) == ["007", "NA"]
    assert table["breed"].isna().tolist() == [True, False]
    assert table["iou_pet"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"splits": {', "is not valid JSON"), ('{"splits": {}, "headline": "trimap"}', "lacks class_names")],
)
def test_metrics_of_something_else_are_refused_in_one_line(run_folder, content, message):
    (run_folder / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        RunFolder.read(run_folder)
    assert "\n" not in str(caught.value)
