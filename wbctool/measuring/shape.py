"""Shapes: of a cell, of its nucleus, and of the one in the other."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
from skimage.measure import euler_number, label, perimeter_crofton, regionprops
from skimage.morphology import local_maxima, reconstruction

from wbctool.measuring.view import View

_SPECK = 0.02  # share of a nucleus under which a piece of it is no piece
_DENT = 0.15  # of a lobe's depth beyond the next one's saddle, as a share of the nucleus's thickness


def shapes(view: View) -> dict[str, float]:
    """Shape of cell and nucleus; lengths in pixels of the source image, areas in their squares.

    Circularity is 4πA/P² with Crofton's perimeter in 4 directions; solidity, eccentricity, axes and extent
    are scikit-image's. Thickness is the radius of the largest inscribed circle over that of the circle of
    the same area; roughness the spread of the distances from the centre to the border over their mean.
    """
    found = {f"cell.{name}": value for name, value in _outline(_boxed(view.cell)).items()}
    if view.nucleus is None:
        return found
    inner = _boxed(view.nucleus)
    found |= {f"nucleus.{name}": value for name, value in {**_outline(inner), **_lobation(inner)}.items()}
    cell, nucleus = view.cell.sum(), view.nucleus.sum()
    offset = np.linalg.norm(_centre(view.nucleus) - _centre(view.cell))
    return {
        **found,
        "nucleus.share_of_cell": float(nucleus / cell),
        "nucleus.to_cytoplasm": float(nucleus / max(cell - nucleus, 1)),
        "nucleus.off_centre": float(offset / np.sqrt(cell / np.pi)),
    }


def _outline(region: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hulls of a line of pixels
        one = regionprops(region.astype(np.uint8))[0]
        area, perimeter = float(one.area), float(perimeter_crofton(region, directions=4))
        solidity = float(one.area / max(one.area_convex, one.area))
    border = region & ~cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    border = border if border.any() else region
    radii = np.hypot(*(np.argwhere(border) - _centre(region)).T)
    inscribed = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5).max()
    return {
        "area": area,
        "perimeter": perimeter,
        "circularity": min(4 * np.pi * area / perimeter**2, 1.0) if perimeter else 1.0,
        "solidity": solidity,
        "eccentricity": float(one.eccentricity),
        "extent": float(one.extent),
        "major_axis": float(one.axis_major_length),
        "minor_axis": float(one.axis_minor_length),
        "thickness": float(inscribed / np.sqrt(area / np.pi)),
        "roughness": float(radii.std() / max(radii.mean(), 1.0)),
    }


def _lobation(nucleus: np.ndarray) -> dict[str, float]:
    """Pieces, holes and lobes: lobes are the tops of the distance to the border, told apart by their saddles."""
    pieces = label(nucleus, connectivity=2)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= _SPECK * sizes.sum()))
    depth = cv2.distanceTransform(kept.astype(np.uint8), cv2.DIST_L2, 5)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.0) * (depth > 0)
    # scikit-image's own h_maxima counts tops of one height apart, however shallow the saddle between them
    flat = reconstruction(depth - _DENT * depth.max(), depth)
    tops = label(local_maxima(flat) & kept, connectivity=2).max()
    return {
        "pieces": float((sizes >= _SPECK * sizes.sum()).sum()),
        "holes": float((label(kept, connectivity=2).max()) - euler_number(kept, connectivity=2)),
        "lobes": float(max(tops, 1)),
    }


def _boxed(region: np.ndarray) -> np.ndarray:
    """A region in its bounding box, with a pixel about it that is no part of it: distances are to its border."""
    x, y, width, height = cv2.boundingRect(region.astype(np.uint8))
    return np.pad(region[y : y + height, x : x + width], 1)


def _centre(region: np.ndarray) -> np.ndarray:
    return np.argwhere(region).mean(0)
