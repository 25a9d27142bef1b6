"""Splitting: train, validation and test that share no group."""
