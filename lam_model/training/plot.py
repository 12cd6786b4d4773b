"""The loss and the held-out cosine of a run against the tokens read."""

from __future__ import annotations

from pathlib import Path


def plot(log: list[dict[str, float]], path: Path) -> None:
    """Draw a run's log into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, cosine_axes = figure.subplots(1, 2)
    before = 0.0
    for stage in sorted({row["stage"] for row in log}):
        rows = [row for row in log if row["stage"] == stage]
        losses = [row for row in rows if "loss" in row]
        scores = [row for row in rows if "cosine" in row]
        label = f"stage {stage:.0f}"
        loss_axes.plot([(before + r["tokens"]) / 1e6 for r in losses], [r["loss"] for r in losses], label=label, lw=0.8)
        cosine_axes.plot(
            [(before + r["tokens"]) / 1e6 for r in scores], [1 - r["cosine"] for r in scores], "o-", label=label
        )
        before += rows[-1]["tokens"]
    for axes, title in ((loss_axes, "training loss"), (cosine_axes, "1 - cosine to the base, held out")):
        axes.set(title=title, xlabel="million tokens", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")
