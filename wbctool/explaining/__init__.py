"""Where a classifier looks: class-activation maps, and scores of how far they can be trusted."""

from wbctool.explaining.method import METHODS

__all__ = ["METHODS"]
