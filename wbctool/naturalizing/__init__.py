"""Naturalizing: composites of real cells and real fields of view, for training only."""

from wbctool.naturalizing.composites import CompositeResult, make_composites
from wbctool.naturalizing.plan import CompositeOptions

__all__ = ["CompositeOptions", "CompositeResult", "make_composites"]
