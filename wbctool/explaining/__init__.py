"""Where a classifier looks: class-activation maps, and scores of how far they can be trusted."""

from wbctool.explaining.method import METHODS
from wbctool.explaining.options import ExplanationOutput, ExplanationResult, MapOptions
from wbctool.explaining.run import explain_run

__all__ = ["METHODS", "ExplanationOutput", "ExplanationResult", "MapOptions", "explain_run"]
