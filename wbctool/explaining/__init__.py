"""Where a classifier looks: class-activation maps, and scores for how far they can be believed."""

from wbctool.explaining.options import ExplanationOutput, ExplanationResult, MapOptions
from wbctool.explaining.run import explain_run

__all__ = ["METHODS", "ExplanationOutput", "ExplanationResult", "MapOptions", "explain_run"]

METHODS = ("gradcam", "gradcam++", "layercam", "scorecam", "eigencam", "attention", "random")
OF_NO_CLASS = ("eigencam", "attention", "random")  # they are the same for every class
