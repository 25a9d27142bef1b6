"""Inputs: images and records found in folders, files and on stdin."""
