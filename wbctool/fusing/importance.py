"""Which features decide: by the gain of their splits, and by their SHAP values; and by family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbctool.modeling.fused import FusedModel

IMAGES = 500  # of which SHAP values are the mean
START = "the networks' own answer"
_AT_ONCE = 50
_SHOWN = 20


def importance(model: FusedModel, rows: np.ndarray, start: np.ndarray | None) -> dict[str, Any]:
    """Gain and SHAP values of features, and of families of them.

    SHAP values are XGBoost's own (TreeSHAP, Lundberg et al. 2020), on the scale of margins. A feature's is the
    mean of |φ| over images and classes; a family's the mean of |Σ φ| over it, as what features of a family say
    against each other says nothing. What trees start from counts as a family, too: its margins, less their mean
    over the classes.

    Args:
        model: with its trees.
        rows: features of images, (n, features).
        start: margins that trees start from, (n, classes).

    Returns:
        `images`, `families` and `features` (those that trees use), each with `gain` and `shap`, most important first,
        and families with shares of all.
    """
    import xgboost

    names, families = zip(*model.architecture.features(), strict=True)
    order = list(dict.fromkeys(families))
    member = np.array([order.index(family) for family in families])
    gains = model.booster.get_score(importance_type="total_gain")
    gain = np.array([gains.get(name, 0.0) for name in names])
    shap, together = np.zeros(len(names)), np.zeros(len(order))
    if gains:
        for begin in range(0, len(rows), _AT_ONCE):
            part = xgboost.DMatrix(rows[begin : begin + _AT_ONCE], feature_names=list(names), missing=np.nan)
            values = model.booster.predict(part, pred_contribs=True)[..., :-1]  # (n, classes, features)
            shap += np.abs(values).mean(1).sum(0)
            together += [np.abs(values[..., member == at].sum(-1)).mean(1).sum() for at in range(len(order))]
        shap, together = shap / max(len(rows), 1), together / max(len(rows), 1)
    found = [
        {
            "family": family,
            "features": int((member == at).sum()),
            "used": int((gain[member == at] > 0).sum()),
            "gain": float(gain[member == at].sum()),
            "shap": float(together[at]),
        }
        for at, family in enumerate(order)
    ]
    if start is not None:
        centred = start - start.mean(1, keepdims=True)
        own = float(np.abs(centred).mean())
        found.append({"family": START, "features": start.shape[1], "used": start.shape[1], "gain": None, "shap": own})
    for key in ("gain", "shap"):
        total = sum(row[key] or 0.0 for row in found) or 1.0
        for row in found:
            row[f"{key}_share"] = None if row[key] is None else row[key] / total
    used = [
        {"feature": names[at], "family": families[at], "gain": float(gain[at]), "shap": float(shap[at])}
        for at in np.flatnonzero(gain > 0)
    ]
    return {
        "images": len(rows),
        "families": _rounded(sorted(found, key=lambda row: -row["shap"])),
        "features": _rounded(sorted(used, key=lambda row: (-row["shap"], row["feature"]))),
    }


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def importance_plot(found: dict[str, Any]) -> Figure:
    """Families by gain and SHAP value, and the features that decide most."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        families, features = found["families"][::-1], found["features"][:_SHOWN][::-1]
        colours = dict(zip([row["family"] for row in families], matplotlib.color_sequences["tab10"] * 9, strict=False))
        figure = Figure(figsize=(10, 1.6 + 0.22 * max(len(features), 2 * len(families), 6)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        places = np.arange(len(families))
        for shift, key, alpha in ((0.2, "shap_share", 1.0), (-0.2, "gain_share", 0.45)):
            values = [100 * (row[key] or 0) for row in families]
            tints = [colours[row["family"]] for row in families]
            left.barh(places + shift, values, 0.38, color=tints, alpha=alpha)
        left.set(yticks=places, xlabel="share, %: SHAP (full), gain (pale)", title="families")
        left.set_yticklabels([_plain(row["family"]) for row in families])
        tints = [colours[row["family"]] for row in features]
        right.barh(np.arange(len(features)), [row["shap"] for row in features], 0.7, color=tints)
        right.set(yticks=np.arange(len(features)), xlabel="mean |SHAP value|, margin", title="features")
        right.set_yticklabels([_plain(row["feature"]) for row in features])
        return figure


def _plain(name: str) -> str:
    """A name as text: `$` is no mathematics."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name).replace(
        "$", r"\$"
    )


def family_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a table: family, features used, share of SHAP, share of gain."""
    return [
        (row["family"], f"{row['used']:,} of {row['features']:,}", _share(row["shap_share"]), _share(row["gain_share"]))
        for row in found["families"]
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def feature_rows(found: dict[str, Any], count: int = 10) -> Sequence[tuple[str, str, str]]:
    """Rows of a table: the features that decide most, their families and mean |SHAP value|."""
    return [(row["feature"], row["family"], f"{row['shap']:.3f}") for row in found["features"][:count]]
