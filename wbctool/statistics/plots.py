"""Figures in the style of wbctool, and as PNG and SVG; the same values give the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbctool.records.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

STYLE: dict[RcKeyType, Any] = {
    "svg.hashsalt": "wbctool",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # class names with $ in them are names
}


def learning_curves(history: Sequence[dict[str, Any]], best_epoch: int) -> Figure:
    """Draw loss and accuracy over epochs; fine-tuning's start and the epoch kept, from 1, 0 for none, are marked."""
    with matplotlib.rc_context(STYLE):
        figure, both = new_figure(8, 3.2, columns=2)
        tuned = [row["epoch"] for row in history if row["phase"] == "fine-tune"]
        for axes, measure in zip(both, ("loss", "accuracy"), strict=True):
            for split, name in (("train", "training"), ("val", "validation")):
                key = f"{split}_{measure}"
                rows = [(row["epoch"], row[key]) for row in history if key in row]
                if rows:
                    axes.plot(*zip(*rows, strict=True), ".-", label=name)
            if tuned and tuned[0] > 1:
                axes.axvline(tuned[0] - 0.5, color="grey", linestyle=":", label="fine-tuning starts")
            if best_epoch:
                axes.axvline(best_epoch, color="tab:green", linewidth=0.8, label="epoch kept")
            axes.set(xlabel="epoch", ylabel=measure)
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8)
        return figure


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """Return an empty figure of a size in inches, and its axes, or an array of them, side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def as_svg(figure: Figure) -> bytes:
    """Return the figure as SVG, without a date."""
    return _saved(figure, format="svg", metadata={"Date": None})


def as_png(figure: Figure) -> bytes:
    """Return the figure as PNG."""
    return _saved(figure, format="png", dpi=120, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks a letter of a class name
        figure.savefig(stream, **options)
    return stream.getvalue()


def write_plots(figures: dict[str, Figure], folder: Path) -> None:
    """Write each figure as NAME.png and NAME.svg."""
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.png", as_png(figure))
        write_bytes(folder / f"{name}.svg", as_svg(figure))
