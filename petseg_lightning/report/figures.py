"""The charts of a run: what was learned, and how every picture fared."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from petseg_lightning.report.charts import Chart, Series, line_chart, scatter
from petseg_lightning.report.run_folder import RunFolder

TREND_GROUPS = 10
COLOURS = ("var(--first)", "var(--second)", "var(--third)", "var(--fourth)")


def learning_curves(run: RunFolder, colours: dict[str, str]) -> list[Chart]:
    """Loss, scores and IoU per class over the epochs, as far as they were logged."""
    epochs, best = run.epochs, run.best_epoch

    def chart(
        title: str,
        labels: dict[str, str],
        palette: Iterable[str],
        y_limits: tuple[float, float] | None = None,
    ) -> list[Chart]:
        series = [
            Series(label, list(epochs.index), list(epochs[column]), colour)
            for (column, label), colour in zip(labels.items(), palette, strict=False)
            if column in epochs and epochs[column].notna().any()
        ]
        lasts = ", ".join(f"{one.label} {one.y[-1]:.3f}" for one in series)
        return [line_chart(title, f"After the last epoch: {lasts}.", series, y_limits, best)] if series else []

    classes = {f"val/iou_{name}": name for name in run.metrics["class_names"]}
    return [
        *chart("Loss", {"train/loss": "training", "val/loss": "validation"}, COLOURS),
        *chart("Validation scores", {"val/accuracy": "accuracy", "val/miou": "mean IoU"}, COLOURS, (0, 1)),
        *chart("Validation IoU per class", classes, [colours[name] for name in classes.values()], (0, 1)),
    ]


def picture_scatters(per_image: pd.DataFrame) -> list[Chart]:
    """Accuracy against IoU, and IoU against the size of the pet, one point per picture."""
    return [] if per_image.empty else [_accuracy_scatter(per_image), *_pet_share_scatter(per_image)]


def _accuracy_scatter(per_image: pd.DataFrame) -> Chart:
    above = (per_image["accuracy"] > per_image["miou"]).mean()
    lowest = per_image.nsmallest(1, "miou").iloc[0]
    return scatter(
        "Accuracy against mean IoU",
        f"In {above:.1%} of {len(per_image):,} pictures the accuracy is higher than the mean IoU. "
        f"The lowest is {lowest['name']}, with an IoU of {lowest['miou']:.3f}.",
        _points(per_image, per_image["miou"], per_image["accuracy"]),
        ("mean IoU of the picture", "accuracy of the picture"),
        line=Series("accuracy = IoU", (0, 1), (0, 1), "var(--muted)"),
    )


def _pet_share_scatter(per_image: pd.DataFrame) -> list[Chart]:
    """Empty where the shares are not known."""
    if "pet_fraction" not in per_image or per_image["pet_fraction"].isna().all():
        return []
    share, miou = 100 * per_image["pet_fraction"].rename("share"), per_image["miou"]
    groups = (share.rank(method="first") - 1) * TREND_GROUPS // share.count()
    trend = pd.concat([share, miou], axis=1).groupby(groups).median()
    description = (
        f"The line joins the medians of {len(trend)} groups of equal size: "
        f"IoU {trend['miou'].iloc[0]:.3f} where the pet is smallest, {trend['miou'].max():.3f} at best, "
        f"{trend['miou'].iloc[-1]:.3f} where it is largest."
    )
    return [
        scatter(
            "Mean IoU against the size of the pet",
            description,
            _points(per_image, share, miou),
            ("share of the picture that the pet fills (%)", "mean IoU of the picture"),
            ((0, 100), (0, 1)),
            Series("median", list(trend["share"]), list(trend["miou"]), "var(--ink)"),
        )
    ]


def confidence_charts(calibration: dict[str, Any]) -> list[Chart]:
    """Reliability diagram of the pixels, and what a review of the least sure pictures finds."""
    return [_reliability(calibration), _review(calibration["review"])]


def _reliability(calibration: dict[str, Any]) -> Chart:
    before, after = (calibration[key]["expected_calibration_error"] for key in ("before", "after"))
    if before is None:
        errors = ""
    elif (was := f"{before:.3f}") == (now := f"{after:.3f}"):
        errors = f" The expected calibration error is {now} with it and without."
    else:
        errors = f" It takes the expected calibration error from {was} to {now}."
    return line_chart(
        "How sure, and how often right",
        "On the diagonal, pixels are right as often as their probability says; below it, the model is too sure. "
        f"The temperature, fitted on validation pictures, is {calibration['temperature']:.2f}.{errors}",
        [
            Series("as sure as right", (0, 1), (0, 1), "var(--muted)"),
            *(
                Series(label, _drawn(bins["probability"]), _drawn(bins["accuracy"]), colour)
                for label, bins, colour in (
                    ("without temperature", calibration["before"]["bins"], COLOURS[1]),
                    ("with temperature", calibration["after"]["bins"], COLOURS[0]),
                )
            ),
        ],
        y_limits=(0, 1),
        labels=("probability of the predicted class", "share of these pixels that are right"),
        x_limits=(0, 1),
    )


def _review(review: dict[str, Any]) -> Chart:
    curve, bad, limit = review["curve"], review["num_bad"], review["bad_miou"]
    looked_at = _drawn(curve["looked_at"])
    takes = [f"{share:.1%} for {float(found):.0%}" for found, share in review["look_at"].items() if share is not None]
    found = (
        f"To find a share of the {bad:,} pictures with a mean IoU under {limit}, so many have to be looked at, the "
        f"least sure first: {', '.join(takes)} of them."
        if bad
        else f"No picture has a mean IoU under {limit}: the line shows how good the pictures are that nobody looked at."
    )
    found_line = [Series(f"found of those under {limit}", looked_at, _drawn(curve["found"]), COLOURS[0])] if bad else []
    return line_chart(
        "What a review finds",
        found,
        [*found_line, Series("mean IoU of the rest", looked_at, _drawn(curve["rest_miou"]), COLOURS[2])],
        y_limits=(0, 1),
        labels=("share of the pictures looked at, the least sure first", ""),
        x_limits=(0, 1),
    )


def _drawn(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _points(per_image: pd.DataFrame, x: pd.Series, y: pd.Series) -> list[Series]:
    """One series per species."""
    species = per_image["species"].fillna("picture") if "species" in per_image else "picture"
    columns = (per_image[name] for name in ("name", "miou", "accuracy"))
    tips = [f"{name}: IoU {miou:.3f}, accuracy {right:.3f}" for name, miou, right in zip(*columns, strict=True)]
    frame = pd.DataFrame({"x": x, "y": y, "tip": tips, "species": species})
    return [
        Series(str(name), list(group.x), list(group.y), COLOURS[i % len(COLOURS)], list(group.tip))
        for i, (name, group) in enumerate(frame.groupby("species"))
    ]
