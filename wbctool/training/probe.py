"""Probes: a classifier on the features of a frozen backbone, fitted in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from wbctool.console import Progress
from wbctool.device import autocast, images_at_once
from wbctool.errors import InputError
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.heads import NearestNeighbours
from wbctool.training.feed import Pixels
from wbctool.training.phases import Samples

PROBES = ("linear", "knn")
NEIGHBOURS = 20
_STRENGTHS = tuple(10.0**power for power in range(-4, 3))


def vectors(model: Classifier, pixels: Pixels, samples: Samples, precision: str, quiet: bool) -> torch.Tensor:
    """What the head takes of each image, (n, width), float32, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode(), Progress("train: features", "images", quiet, len(samples.rows)) as progress:
        step = images_at_once(device)
        for start in range(0, len(samples.rows), step):
            images = pixels.batch(samples.rows[start : start + step]).to(device)
            with autocast(device, precision):
                found.append(model.vector(model.features(images)).float().cpu())
            progress.step(count=len(images))
    return torch.cat(found) if found else torch.zeros(0, 1)


def fit_probe(
    model: Classifier, pixels: Pixels, train: Samples, val: Samples, precision: str, weighted: bool, quiet: bool
) -> float | None:
    """Fit the head of a model: nearest neighbours where it has these, else logistic regression.

    Features are standardised for the regression, which is then folded into the last layer; its strength
    is the one with the least loss on validation images, 1 where there are none.

    Args:
        model: with a head of one layer, or of nearest neighbours.
        pixels: decoded images.
        train: the images it is fitted to.
        val: those that choose the strength.
        precision: `float32` or `bf16`.
        weighted: give every class the same weight.
        quiet: no progress.

    Returns:
        The regression's inverse strength; None for neighbours.

    Raises:
        InputError: features are not finite.
    """
    known = _finite(vectors(model, pixels, train, precision, quiet), model)
    if isinstance(model.head, NearestNeighbours):
        model.head.store(known, train.targets)
        model.architecture = replace(model.architecture, neighbours=(model.head.count, len(known)))
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    centre, spread = known.mean(0), known.std(0).clamp(min=1e-6)
    given = ((known - centre) / spread).numpy()
    checked = None
    if len(val.rows):
        checked = ((_finite(vectors(model, pixels, val, precision, quiet), model) - centre) / spread).numpy()
    best: Any = None
    best_loss, chosen = np.inf, 1.0
    for strength in _STRENGTHS if checked is not None else (1.0,):
        weights = "balanced" if weighted else None
        fitted = LogisticRegression(C=strength, max_iter=1000, class_weight=weights).fit(given, train.targets)
        loss = 0.0
        if checked is not None:
            loss = log_loss(val.targets, fitted.predict_proba(checked), labels=fitted.classes_)
        if loss < best_loss:
            best, best_loss, chosen = fitted, loss, strength
    weight, bias = torch.from_numpy(best.coef_).float(), torch.from_numpy(best.intercept_).float()
    if len(weight) == 1:  # of two classes scikit-learn keeps one row
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    last = cast(nn.Linear, model.head[-1])
    with torch.no_grad():
        last.weight.copy_(weight / spread)
        last.bias.copy_(bias - (weight / spread) @ centre)
    return chosen


def _finite(features: torch.Tensor, model: Classifier) -> torch.Tensor:
    if not torch.isfinite(features).all():
        raise InputError(f"features of {model.architecture.backbone} hold NaN or infinity; give other --weights")
    return features
