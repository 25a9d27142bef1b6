"""Probes: a classifier on the features of a frozen backbone, fitted in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from wbctool.console import Progress
from wbctool.device import autocast, images_at_once
from wbctool.errors import InputError
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.heads import NearestNeighbours
from wbctool.training.feed import Samples
from wbctool.training.images import ImageStore
from wbctool.training.recipe import Recipe

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

NEIGHBOURS = 20
_STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # inverse, of the regularisation


def fit_probe(
    model: Classifier, images: ImageStore, train: Samples, val: Samples, recipe: Recipe, quiet: bool
) -> float | None:
    """Fit the head of a model: nearest neighbours where it has these, else logistic regression.

    Features are standardised for the regression, which is then folded into the last layer. `val` chooses the strength
    of its regularisation, the inverse of which is returned; None for neighbours.
    """
    features = _features(model, images, train, recipe.precision, quiet)
    if isinstance(model.head, NearestNeighbours):
        model.head.store(features, train.targets)
        model.architecture = replace(model.architecture, neighbours=(model.head.count, len(features)))
        return None
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    val_features = _features(model, images, val, recipe.precision, quiet) if len(val.rows) else None
    fitted, strength = _fit_regression(
        ((features - mean) / std).numpy(),
        train.targets,
        None if val_features is None else ((val_features - mean) / std).numpy(),
        val.targets,
        "balanced" if recipe.class_weights != "none" else None,
    )
    weight, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(weight) == 1:  # of two classes scikit-learn keeps one row
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    last = cast(nn.Linear, model.head[-1])
    with torch.no_grad():
        last.weight.copy_(weight / std)
        last.bias.copy_(bias - (weight / std) @ mean)
    return strength


def _fit_regression(
    features: np.ndarray,
    targets: torch.Tensor,
    val_features: np.ndarray | None,
    val_targets: torch.Tensor,
    class_weight: str | None,
) -> tuple[LogisticRegression, float]:
    """The logistic regression with the least loss on validation features, and its strength; 1 without validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    best, best_loss, best_strength = None, np.inf, 1.0
    for strength in _STRENGTHS if val_features is not None else (1.0,):
        fitted = LogisticRegression(C=strength, max_iter=1000, class_weight=class_weight).fit(features, targets)
        loss = 0.0
        if val_features is not None:
            loss = log_loss(val_targets, fitted.predict_proba(val_features), labels=fitted.classes_)
        if loss < best_loss:
            best, best_loss, best_strength = fitted, loss, strength
    return best, best_strength


def _features(model: Classifier, images: ImageStore, samples: Samples, precision: str, quiet: bool) -> torch.Tensor:
    """What the head takes of each image, (n, width), float32, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    batches = []
    with torch.inference_mode(), Progress("train: features", "images", quiet, len(samples.rows)) as progress:
        step = images_at_once(device)
        for start in range(0, len(samples.rows), step):
            batch = images.batch(samples.rows[start : start + step]).to(device)
            with autocast(device, precision):
                batches.append(model.vector(model.features(batch)).float().cpu())
            progress.step(count=len(batch))
    features = torch.cat(batches)
    if not torch.isfinite(features).all():
        raise InputError(f"features of {model.architecture.backbone} hold NaN or infinity; give other --weights")
    return features
