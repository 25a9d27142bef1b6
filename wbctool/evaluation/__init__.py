"""Evaluation: figures as pure functions of records, and the report in the terminal."""
