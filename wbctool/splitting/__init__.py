"""Splitting: train, validation and test that share no group."""

from wbctool.splitting.step import SplitOptions, SplitResult, split_records

__all__ = ["SplitOptions", "SplitResult", "split_records"]
