"""Metrics, intervals, calibration and comparison: pure functions of arrays."""
