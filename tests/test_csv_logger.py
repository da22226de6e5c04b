from lightning.pytorch import loggers

from petseg_lightning.csv_logger import CSVLogger

SAVED = ([{"loss": 0.5}], [{"loss": 0.25}, {"miou": 0.1}], [{"loss": 0.125, "epoch": 1}], [], [{"miou": 0.2}])


def test_the_table_is_lightnings_and_is_replaced_as_a_whole(tmp_path):
    own, theirs = (kind(tmp_path, name=kind.__module__, version="") for kind in (CSVLogger, loggers.CSVLogger))
    step = 0
    for rows in SAVED:
        path, expected = (tmp_path / logger.name / "metrics.csv" for logger in (own, theirs))
        before = path.open(newline="") if path.exists() else None
        content = path.read_bytes().decode() if path.exists() else ""
        for row in rows:
            for logger in (own, theirs):
                logger.log_metrics(row, step)
            step += 1
        for logger in (own, theirs):
            logger.save()
        assert path.read_bytes() == expected.read_bytes()
        if before is not None:
            with before:
                assert before.read() == content  # nobody has written into the one before
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]
