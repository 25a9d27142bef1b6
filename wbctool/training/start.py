"""The model that a training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from wbctool.errors import InputError
from wbctool.modeling import run_folder
from wbctool.modeling.architecture import Architecture, EnsembleMethod
from wbctool.modeling.classifier import Classifier, default_normalisation
from wbctool.modeling.ensembles import AverageEnsemble, CbamEnsemble, EnsembleArchitecture, make_ensemble
from wbctool.modeling.fused import FusedModel
from wbctool.modeling.run_folder import Run
from wbctool.modeling.weights import load_pretrained
from wbctool.training.probe import NEIGHBOURS
from wbctool.training.recipe import Recipe, TrainingPlan


def start_model(
    class_names: tuple[str, ...], recipe: Recipe, plan: TrainingPlan, members: Sequence[Path], device: torch.device
) -> tuple[Classifier | AverageEnsemble | CbamEnsemble, str]:
    """Return the model that a training starts from, and its origin in words; members of an ensemble are run folders."""
    if plan.ensemble:
        runs = [run_folder.load(path, device) for path in members]
        return _start_ensemble(plan.ensemble, runs, class_names, recipe), f"weights of {len(runs)} runs"
    mean, std = default_normalisation(recipe.backbone)
    values = recipe.model_dump(include={field.name for field in fields(Architecture)})
    values |= {"classes": class_names, "mean": recipe.mean or mean, "std": recipe.std or std}
    if plan.probe:
        values |= {"norm": "none", "dense": (), "neighbours": (NEIGHBOURS, 0) if plan.probe == "knn" else None}
    # over a backbone that stays frozen throughout, features are computed once, which side heads would not allow
    if plan.probe or 0 < recipe.epochs <= recipe.frozen_epochs:
        values["side_heads"] = "none"
    model = Classifier(Architecture(**values))
    model.unfreeze(recipe.unfreeze)  # reports an invalid rule before any image is read
    return model, load_pretrained(model, recipe.weights)


def _start_ensemble(
    method: EnsembleMethod, members: Sequence[Run], class_names: tuple[str, ...], recipe: Recipe
) -> AverageEnsemble | CbamEnsemble:
    for member in members:
        if isinstance(member.model, FusedModel) and method != "average":
            raise InputError(f"{member.path}: is fused by trees, which have no feature maps; use --ensemble average")
        if not isinstance(member.model, Classifier | FusedModel):
            raise InputError(f"{member.path}: is an ensemble itself; give its members")
        if member.classes != class_names:
            raise InputError(
                f"{member.path}: knows {', '.join(member.classes)}; "
                f"the images to train on are {', '.join(class_names)}; they must be the same classes"
            )
    architectures = tuple(member.model.architecture for member in members)
    ensemble = make_ensemble(
        EnsembleArchitecture(
            ensemble=method,
            members=architectures,
            classes=class_names,
            size=max(architecture.size for architecture in architectures),
            dense=recipe.dense,
            norm=recipe.norm,
            dropout=recipe.dropout,
            symmetries=recipe.symmetries,
        )
    )
    for copy, member in zip(ensemble.members, members, strict=True):
        copy.load_state_dict(member.model.state_dict())
        if isinstance(copy, FusedModel):
            copy.load_files(member.model.files().__getitem__)
    return ensemble
