"""What TensorBoard has to show."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

SCALARS = {
    "train/loss", "train/images_per_second", "val/loss", "val/miou", "val/accuracy", "val/iou_pet",
    "val/iou_background", "val/iou_border", "test/miou", "test/accuracy", "test/iou_border", "test/boundary_f_score",
    "test/boundary_iou", "lr-Adam",
}  # fmt: skip


@pytest.fixture(scope="module")
def events(trained_run):
    accumulator = EventAccumulator(str(trained_run() / "tensorboard"), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_have_stable_names(events):
    assert set(events.Tags()["scalars"]) >= SCALARS


def test_every_validation_shows_the_same_pictures_and_the_confusion_matrix(events):
    for tag in ("val/pictures", "val/confusion_matrix"):
        images = events.Images(tag)
        assert len(images) == 2
        assert len({(image.width, image.height) for image in images}) == 1
    assert (
        events.Images("val/pictures")[0].encoded_image_string != events.Images("val/pictures")[1].encoded_image_string
    )


def test_hyperparameters_stand_beside_the_final_scores(events):
    metadata = events.summary_metadata["_hparams_/session_start_info"]
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    hparams = content.session_start_info.hparams
    assert hparams["model.base_channels"].number_value == 4
    assert hparams["optimizer.lr"].number_value == pytest.approx(1e-3)
    experiment = plugin_data_pb2.HParamsPluginData.FromString(
        events.summary_metadata["_hparams_/experiment"].plugin_data.content
    ).experiment
    assert "test/miou" in {info.name.tag for info in experiment.metric_infos}
