"""What a run's log says, as a picture."""

from __future__ import annotations

from pathlib import Path

from ..files import replacing


def plot(log: list[dict[str, float]], path: Path) -> None:
    """Draw the loss and the held-out cosine of a distillation against the tokens read into a PNG file."""
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
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120, format="png")


def plot_tuning(log: list[dict[str, float]], path: Path) -> None:
    """Draw the loss of a tuning, and what each held-out score gained, against the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, score_axes = figure.subplots(1, 2)
    losses = [row for row in log if "loss" in row]
    loss_axes.plot([row["step"] for row in losses], [row["loss"] for row in losses], lw=0.8)
    scores = [row for row in log if "eval_score" in row]
    times = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_score")
    for name in (name for name in scores[0] if name.startswith("eval_") and name not in times):
        gains = [row[name] - scores[0][name] for row in scores]
        score_axes.plot([row["step"] for row in scores], gains, "o-", label=name.removeprefix("eval_"))
    loss_axes.set(title="training loss", xlabel="step")
    score_axes.set(title="points gained, held out", xlabel="step")
    score_axes.legend()
    for axes in (loss_axes, score_axes):
        axes.grid(alpha=0.3)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120, format="png")
