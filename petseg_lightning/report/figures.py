"""The charts of a run: what was learned, and how every picture fared."""

from collections.abc import Iterable

import pandas as pd

from petseg_lightning.report.charts import Chart, Series, line_chart, scatter
from petseg_lightning.report.run_folder import RunFolder

TREND_GROUPS = 10
COLOURS = ("var(--first)", "var(--second)", "var(--third)", "var(--fourth)")


def learning_curves(run: RunFolder, colours: dict[str, str]) -> list[Chart]:
    """Loss, scores and IoU per class over the epochs, as far as they were logged."""
    epochs, best = run.epochs, run.metrics.get("best_epoch")

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


def _points(per_image: pd.DataFrame, x: pd.Series, y: pd.Series) -> list[Series]:
    """One series per species."""
    species = per_image["species"].fillna("picture") if "species" in per_image else "picture"
    tips = per_image.apply(lambda row: f"{row['name']}: IoU {row.miou:.3f}, accuracy {row.accuracy:.3f}", axis=1)
    frame = pd.DataFrame({"x": x, "y": y, "tip": tips, "species": species})
    return [
        Series(str(name), list(group.x), list(group.y), COLOURS[i % len(COLOURS)], list(group.tip))
        for i, (name, group) in enumerate(frame.groupby("species"))
    ]
