"""Inference: from images and trained runs to predictions."""
