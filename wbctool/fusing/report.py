"""Rows of the tables that `wbctool xgboost-fuse` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from wbctool.fusing.run import FusionResult

Rows = Sequence[tuple[str, ...]]


def accuracy_rows(result: FusionResult) -> Rows:
    """Return split, images and accuracy."""
    images: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for record in result.predictions():
        images[record["split"]] += 1
        correct[record["split"]] += record["predicted"] == record["label"]
    splits = [split for split in ("val", "test") if images[split]]
    return [(split, f"{images[split]:,}", f"{correct[split] / images[split]:.3f}") for split in splits]


def tried_rows(info: dict[str, Any]) -> Rows:
    """Return features, rounds, validation loss and accuracy of all trees that were grown."""
    return [
        (" + ".join(row["features"]), f"{row['rounds']:,}", f"{row['loss']:.4f}", f"{row['accuracy']:.3f}")
        for row in info["tried"]
    ]


def family_rows(importance: dict[str, Any]) -> Rows:
    """Return family, features used, fraction of SHAP, and of gain."""
    return [
        (
            row["family"],
            f"{row['used']:,} of {row['features']:,}",
            _percent(row["shap_share"]),
            _percent(row["gain_share"]),
        )
        for row in importance["families"]
    ]


def _fractions(family: dict[str, Any]) -> tuple[float | None, float | None]:
    return family["shap_share"], family["gain_share"]


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.1%}"


def feature_rows(importance: dict[str, Any], count: int = 10) -> Rows:
    """Return the most important features, their families and mean |SHAP value|."""
    return [(row["feature"], row["family"], f"{row['shap']:.3f}") for row in importance["features"][:count]]
