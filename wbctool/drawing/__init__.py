"""Drawing synthetic smears with exact truth: for the demo, for tests, for trying a method.

`draw_field` draws one field of view; `write_set` writes a folder of them with its truth.
"""

from wbctool.drawing.cells import MORPHOLOGIES
from wbctool.drawing.smear import Slide, draw_field, write_set

__all__ = ["MORPHOLOGIES", "Slide", "draw_field", "write_set"]
