"""What a run's log says, as a picture; and how all of the project's pictures look."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_LABEL_POINTS = 12.0  # the least distance between two labels at lines' ends


def plot(log: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and the held-out error of a distillation against the tokens read into a PNG file."""
    figure = new_figure()
    loss_axes, error_axes = figure.subplots(1, 2)
    before = 0.0
    for stage in sorted({row["stage"] for row in log}):
        rows = [row for row in log if row["stage"] == stage]
        losses = [row for row in rows if "loss" in row]
        scores = [row for row in rows if "cosine" in row]
        name = f"stage {stage:.0f}"
        loss_axes.plot([(before + r["tokens"]) / 1e6 for r in losses], [r["loss"] for r in losses], label=name, lw=0.8)
        error_axes.plot(
            [(before + r["tokens"]) / 1e6 for r in scores], [1 - r["cosine"] for r in scores], "o-", ms=3, label=name
        )
        before += rows[-1]["tokens"]
    for axes, title in ((loss_axes, "Training loss"), (error_axes, "1 - cosine to the base, held-out texts")):
        axes.set(title=title, xlabel="million tokens read", yscale="log")
        plain_numbers(axes.yaxis)
        axes.legend()
    save(figure, path)


def plot_tuning(log: list[dict[str, float]], path: Path) -> None:
    """Draw the loss of a tuning, and what each held-out score gained, against the steps."""
    figure = new_figure()
    loss_axes, score_axes = figure.subplots(1, 2)
    losses = [row for row in log if "loss" in row]
    loss_axes.plot([row["step"] for row in losses], [row["loss"] for row in losses], lw=0.8)
    scores = [row for row in log if "eval_score" in row]
    times = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_score")
    for name in (name for name in scores[0] if name.startswith("eval_") and name not in times):
        gains = [row[name] - scores[0][name] for row in scores]
        score_axes.plot([row["step"] for row in scores], gains, "o-", ms=3, label=name.removeprefix("eval_"))
    score_axes.axhline(0, color="grey", lw=0.8, zorder=0)
    loss_axes.set(title="Training loss", xlabel="step")
    score_axes.set(title="Points gained, held-out data", xlabel="step")
    label_ends(score_axes)
    save(figure, path)


def new_figure(width: float = 9.0, height: float = 3.6) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain_numbers(axis: Axis, ticks: Iterable[float] | None = None) -> None:
    """Write an axis' numbers as 512 and 1,024 instead of powers of ten.

    Args:
        axis: linear or logarithmic.
        ticks: where numbers stand; at 1, 1.5, 2, 3 and 5 times the powers of ten if None.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if ticks is None:
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
    else:
        axis.set_ticks(list(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))


def label_ends(axes: Axes) -> None:
    """Write each line's label at its right end, in its colour, in place of a legend."""
    figure = axes.figure.canvas.figure  # the whole one
    figure.draw_without_rendering()  # so that the ends' places are known
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    ends = [(line, *np.asarray(line.get_xydata())[-1]) for line in lines]
    pixels = figure.dpi / 72
    heights: dict[float, float] = {}  # of the last label at each x
    for line, x, y in sorted(ends, key=lambda end: end[2]):
        place = axes.transData.transform((x, y))[1] / pixels
        height = heights[x] = max(place, heights.get(x, -float("inf")) + _LABEL_POINTS)
        axes.annotate(
            str(line.get_label()),
            (x, y),
            xytext=(6, height - place),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            fontsize=9,
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, with light grids and without frames."""
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=150, format="png", metadata={"Software": None})
