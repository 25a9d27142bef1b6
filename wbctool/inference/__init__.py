"""Inference: from images and trained runs to predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbctool.inference.options import PredictionOptions
from wbctool.pipeline.exports import lazy_exports

if TYPE_CHECKING:
    from wbctool.inference.predict import PredictionResult, predict_images

__all__ = ["PredictionOptions", "PredictionResult", "predict_images"]
__getattr__ = lazy_exports(__name__, {"PredictionResult": "predict", "predict_images": "predict"})
