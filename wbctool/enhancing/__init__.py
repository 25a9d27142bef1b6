"""Enhancing: contrast, stain and noise of whole images."""
