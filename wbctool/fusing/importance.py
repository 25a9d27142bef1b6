"""Importance of features, and of families of them: by the gain of splits and by SHAP values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import xgboost
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wbctool.modeling.fused import FusedModel
from wbctool.statistics.plots import STYLE, new_figure

IMAGES = 500  # images that SHAP values are averaged over
START = "the networks' own answer"
_BATCH = 50
_PLOTTED = 20  # features in the plot


def importance_of(model: FusedModel, rows: np.ndarray, start: np.ndarray | None) -> dict[str, Any]:
    """Compute the importance of the features of a fused model.

    SHAP values are XGBoost's own (TreeSHAP, Lundberg et al. 2020), on the scale of margins. That of a feature is the
    mean of |φ| over images and classes. That of a family is the mean of |Σ φ|, as contributions of its features may
    cancel out. What trees start from, (n, classes), is a family, too, with its margins less their mean over classes.

    Returned are `images`, `families` and `features` (those that trees use), each with `gain` and `shap`, most important
    first; for families also their fractions of the total.
    """
    names, families = zip(*model.architecture.features(), strict=True)
    order = list(dict.fromkeys(families))
    members = np.array([order.index(family) for family in families])
    gains = model.booster.get_score(importance_type="total_gain")
    gain = np.array([gains.get(name, 0.0) for name in names])
    shap, family_shap = np.zeros(len(names)), np.zeros(len(order))
    if gains:
        shap, family_shap = _mean_shap(model, rows, names, members)
    family_rows = []
    for number, family in enumerate(order):
        family_gain = gain[members == number]
        used = int((family_gain > 0).sum())
        family_rows.append(_family(family, len(family_gain), used, float(family_gain.sum()), family_shap[number]))
    if start is not None:
        size, classes = np.abs(start - start.mean(1, keepdims=True)).mean(), start.shape[1]
        family_rows.append(_family(START, classes, classes, None, size))
    for key in ("gain", "shap"):
        total = sum(row[key] or 0.0 for row in family_rows) or 1.0
        for row in family_rows:
            row[f"{key}_share"] = None if row[key] is None else row[key] / total
    feature_rows = [
        {"feature": names[at], "family": families[at], "gain": float(gain[at]), "shap": float(shap[at])}
        for at in np.flatnonzero(gain > 0)
    ]
    return {
        "images": len(rows),
        "families": _rounded(sorted(family_rows, key=lambda row: -row["shap"])),
        "features": _rounded(sorted(feature_rows, key=lambda row: (-row["shap"], row["feature"]))),
    }


def _family(name: str, features: int, used: int, gain: float | None, shap: float) -> dict[str, Any]:
    return {"family": name, "features": features, "used": used, "gain": gain, "shap": float(shap)}


def _mean_shap(
    model: FusedModel, rows: np.ndarray, names: Sequence[str], members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean absolute SHAP value of each feature, and of each family, by the family number of features."""
    shap, family_shap = np.zeros(len(names)), np.zeros(members.max() + 1)
    for first in range(0, len(rows), _BATCH):
        batch = xgboost.DMatrix(rows[first : first + _BATCH], feature_names=list(names), missing=np.nan)
        values = model.booster.predict(batch, pred_contribs=True)[..., :-1]  # (n, classes, features)
        shap += np.abs(values).mean(1).sum(0)
        sums = (values[..., members == number].sum(-1) for number in range(len(family_shap)))
        family_shap += [np.abs(each).mean(1).sum() for each in sums]
    return shap / max(len(rows), 1), family_shap / max(len(rows), 1)


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def importance_plot(importance: dict[str, Any]) -> Figure:
    """Plot families by gain and SHAP value, and the most important features."""
    with matplotlib.rc_context(STYLE):
        families, features = importance["families"][::-1], importance["features"][:_PLOTTED][::-1]
        names = [row["family"] for row in families]
        colours = dict(zip(names, matplotlib.color_sequences["tab10"] * 9, strict=False))
        height = 1.6 + 0.22 * max(len(features), 2 * len(families), 6)
        figure, (left, right) = new_figure(10, height, columns=2)
        for shift, key, alpha in ((0.2, "shap_share", 1.0), (-0.2, "gain_share", 0.45)):
            percentages = [100 * (row[key] or 0) for row in families]
            bars = np.arange(len(families)) + shift
            left.barh(bars, percentages, 0.38, color=[colours[name] for name in names], alpha=alpha)
        left.set(xlabel="share, %: SHAP (full), gain (pale)", title="families")
        _name_bars(left, names)
        tints = [colours[row["family"]] for row in features]
        right.barh(np.arange(len(features)), [row["shap"] for row in features], 0.7, color=tints)
        right.set(xlabel="mean |SHAP value|, margin", title="features")
        _name_bars(right, [row["feature"] for row in features])
        return figure


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)))
    axes.set_yticklabels(
        ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name) for name in names]
    )
