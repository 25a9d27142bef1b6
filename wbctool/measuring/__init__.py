"""Measurements of cells: shape, colour, texture."""
