"""Inference: from images and trained runs to predictions."""

from wbctool.inference.predict import PredictionOptions, PredictionResult, predict_images

__all__ = ["PredictionOptions", "PredictionResult", "predict_images"]
