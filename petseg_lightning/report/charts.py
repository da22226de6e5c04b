"""Line charts and scatter plots as inline SVG, whose colours are CSS and follow the page's theme."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 468, 26, 268


@dataclass(frozen=True)
class Series:
    """Points of one colour; those with a NaN are not drawn."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    """Any CSS colour, `var(--name)` included."""
    tips: Sequence[str] = field(default=())
    """What hovering over a point of a scatter plot shows."""


@dataclass(frozen=True)
class Chart:
    """An SVG element without a legend, which is the page's."""

    title: str
    description: str
    svg: Markup
    legend: list[tuple[str, str]]
    """Label and CSS colour; empty where one curve needs none."""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    label: str
    low: float
    high: float
    start: float
    end: float

    def ticks(self, integer: bool = False) -> list[float]:
        """About five round values within the axis."""
        values = MaxNLocator(nbins=5, integer=integer, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        return [float(value) for value in values if self.low <= value <= self.high]

    def pixel(self, value: float) -> float:
        """Where `value` stands, rounded to a tenth of a pixel."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def line_chart(
    title: str,
    description: str,
    series: list[Series],
    y_limits: tuple[float, float] | None = None,
    best: int | None = None,
    labels: tuple[str, str] = ("epoch", ""),
    x_limits: tuple[float, float] | None = None,
) -> Chart:
    """Curves, over epochs where nothing else is said.

    Args:
        title: the accessible name.
        description: what the chart shows, for those who cannot see it too.
        series: one curve each.
        y_limits: None for the range of the data.
        best: the epoch to mark.
        labels: of x and y.
        x_limits: None for the range of the data, which are whole numbers then.
    """
    x = Axis(labels[0], *(x_limits or _limits(value for one in series for value in one.x)), LEFT, RIGHT)
    y = Axis(labels[1], *(y_limits or _limits(value for one in series for value in one.y)), BOTTOM, TOP)
    body = [_grid(x, y, integer=x_limits is None)]
    if best is not None:
        anchor = "end" if best > (x.low + x.high) / 2 else "start"
        body.append(
            Markup(
                '<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
                '<text class="note" x="{0}" y="{3}" text-anchor="{4}">best epoch {5}</text>'
            ).format(x.pixel(best), TOP, BOTTOM, TOP - 8, anchor, best)
        )
    body += [_line(one, x, y) for one in series]
    return Chart(title, description, _svg(title, description, body), _legend(series) if len(series) > 1 else [])


def scatter(
    title: str,
    description: str,
    series: list[Series],
    labels: tuple[str, str],
    limits: tuple[tuple[float, float], tuple[float, float]] = ((0, 1), (0, 1)),
    line: Series | None = None,
) -> Chart:
    """Points with a name each, and one line over them.

    Args:
        title: the accessible name.
        description: what the chart shows, for those who cannot see it too.
        series: the points, with their `tips`.
        labels: of x and y.
        limits: (low, high) of x and y.
        line: a diagonal or a trend.
    """
    x = Axis(labels[0], *limits[0], LEFT, RIGHT)
    y = Axis(labels[1], *limits[1], BOTTOM, TOP)
    body = [_grid(x, y)]
    for one in series:
        points = [
            Markup('<circle cx="{}" cy="{}" r="3"><title>{}</title></circle>').format(x.pixel(a), y.pixel(b), tip)
            for a, b, tip in zip(one.x, one.y, one.tips, strict=True)
            if np.isfinite([a, b]).all()
        ]
        body.append(Markup('<g class="points" style="color:{}">{}</g>').format(one.colour, Markup("").join(points)))
    if line is not None:
        body.append(_line(line, x, y))
        series = [*series, line]
    return Chart(title, description, _svg(title, description, body), _legend(series))


def _legend(series: list[Series]) -> list[tuple[str, str]]:
    return [(one.label, one.colour) for one in series]


def _limits(values: Iterable[float]) -> tuple[float, float]:
    finite = [value for value in values if np.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(series: Series, x: Axis, y: Axis) -> Markup:
    points = [(a, b) for a, b in zip(series.x, series.y, strict=True) if np.isfinite([a, b]).all()]
    path = " ".join(f"{x.pixel(a)},{y.pixel(b)}" for a, b in points)
    return Markup('<polyline class="line" style="color:{}" points="{}"/>').format(series.colour, path)


def _grid(x: Axis, y: Axis, integer: bool = False) -> Markup:
    tick = Markup('<text x="{}" y="{}" text-anchor="{}">{:g}</text>')
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    parts = []
    for value in y.ticks():
        at = y.pixel(value)
        parts += [rule.format(LEFT, RIGHT, at, at), tick.format(LEFT - 8, at + 5, "end", value)]
    for value in x.ticks(integer):
        at = x.pixel(value)
        parts += [rule.format(at, at, BOTTOM, BOTTOM + 5), tick.format(at, BOTTOM + 22, "middle", value)]
    axis_label = Markup('<text class="label" text-anchor="{}" x="{}" y="{}">{}</text>')
    parts.append(axis_label.format("end", RIGHT, HEIGHT - 8, x.label))
    parts.append(axis_label.format("start", 4, 14, y.label))
    return Markup("").join(parts)


def _svg(title: str, description: str, body: list[Markup]) -> Markup:
    return Markup('<svg role="img" viewBox="0 0 {} {}"><title>{}</title><desc>{}</desc>{}</svg>').format(
        WIDTH, HEIGHT, title, description, Markup("").join(body)
    )
