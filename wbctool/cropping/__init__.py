"""Cropping: one image, and its mask, per cell."""
