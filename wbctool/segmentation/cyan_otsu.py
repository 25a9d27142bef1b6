"""Nuclei by Otsu's threshold on the cyan of CMYK, as in the attentive-CNN paper (its section 2.2).

Opening, closing and hole filling follow. Only nuclei are found: a cell is its nucleus.
"""

from __future__ import annotations

import numpy as np

from wbctool.imaging.colour import cyan
from wbctool.segmentation.objects import Objects
from wbctool.segmentation.regions import gather_lobes, otsu, tidy

# A nucleus has at least this share of the image; the papers drop objects under 80 px at 224².
MIN_SHARE = 80 / 224**2


def segment(image: np.ndarray) -> Objects:
    """Nuclei of an RGB image (height, width, 3), uint8."""
    nuclei = gather_lobes(tidy(otsu(cyan(image))), MIN_SHARE * image.shape[0] * image.shape[1])
    return Objects(cells=[(nucleus, nucleus) for nucleus in nuclei])
