"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbctool.outputs import atomic


def draw_curves(history: list[dict[str, Any]], best_epoch: int, path: Path) -> None:
    """Loss and accuracy over epochs, with the start of fine-tuning and the best epoch marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in history]
    tuned = [row["epoch"] for row in history if row["phase"] == "fine-tune"]
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            key = f"{split}_{measure}"
            if history and key in history[0]:
                name = {"train": "training", "val": "validation"}[split]
                axes.plot(epochs, [row[key] for row in history], ".-", color=colour, label=name)
        if tuned and tuned[0] > 1:
            axes.axvline(tuned[0] - 0.5, color="grey", linestyle=":", label="fine-tuning starts")
        if best_epoch:
            axes.axvline(best_epoch, color="tab:green", linewidth=0.8, label="epoch kept")
        axes.set(xlabel="epoch", ylabel=measure)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with atomic(path) as stream:
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
