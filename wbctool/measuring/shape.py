"""Shapes: of a cell, of its nucleus, and of the nucleus within the cell."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
from skimage.measure import euler_number, label, perimeter_crofton, regionprops
from skimage.morphology import local_maxima, reconstruction

from wbctool.measuring.view import CellView

_FRAGMENT = 0.02  # fraction of a nucleus under which a piece of it does not count
_DENT = 0.15  # of a lobe's depth beyond the saddle to the next, as a fraction of the nucleus' thickness


def shapes(view: CellView) -> dict[str, float]:
    """Compute the shape of cell and nucleus; lengths in pixels of the source image, areas in square pixels.

    Circularity is 4πA/P² with Crofton's perimeter in 4 directions; solidity, eccentricity, axes and extent are
    scikit-image's. Thickness is the radius of the largest inscribed circle over that of the circle of the same area;
    roughness the standard deviation of the distances from the centre to the border over their mean.
    """
    measures = {f"cell.{name}": value for name, value in _outline(_boxed(view.cell)).items()}
    if view.nucleus is None:
        return measures
    inner = _boxed(view.nucleus)
    measures |= {f"nucleus.{name}": value for name, value in {**_outline(inner), **_lobation(inner)}.items()}
    cell, nucleus = view.cell.sum(), view.nucleus.sum()
    offset = np.linalg.norm(_centre(view.nucleus) - _centre(view.cell))
    return {
        **measures,
        "nucleus.share_of_cell": float(nucleus / cell),
        "nucleus.to_cytoplasm": float(nucleus / max(cell - nucleus, 1)),
        "nucleus.off_centre": float(offset / np.sqrt(cell / np.pi)),
    }


def _outline(region: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about hulls of a line of pixels
        properties = regionprops(region.astype(np.uint8))[0]
        area, perimeter = float(properties.area), float(perimeter_crofton(region, directions=4))
        solidity = float(properties.area / max(properties.area_convex, properties.area))
    border = region & ~cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    border = border if border.any() else region
    radii = np.hypot(*(np.argwhere(border) - _centre(region)).T)
    inscribed = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5).max()
    return {
        "area": area,
        "perimeter": perimeter,
        "circularity": min(4 * np.pi * area / perimeter**2, 1.0) if perimeter else 1.0,
        "solidity": solidity,
        "eccentricity": float(properties.eccentricity),
        "extent": float(properties.extent),
        "major_axis": float(properties.axis_major_length),
        "minor_axis": float(properties.axis_minor_length),
        "thickness": float(inscribed / np.sqrt(area / np.pi)),
        "roughness": float(radii.std() / max(radii.mean(), 1.0)),
    }


def _lobation(nucleus: np.ndarray) -> dict[str, float]:
    """Pieces, holes and lobes: lobes are the maxima of the distance to the border, separated by their saddles."""
    pieces = label(nucleus, connectivity=2)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= _FRAGMENT * sizes.sum()))
    depth = cv2.distanceTransform(kept.astype(np.uint8), cv2.DIST_L2, 5)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.0) * (depth > 0)
    # scikit-image's h_maxima counts maxima of equal height separately, however shallow the saddle between them
    flat = reconstruction(depth - _DENT * depth.max(), depth)
    maxima = label(local_maxima(flat) & kept, connectivity=2).max()
    return {
        "pieces": float((sizes >= _FRAGMENT * sizes.sum()).sum()),
        "holes": float((label(kept, connectivity=2).max()) - euler_number(kept, connectivity=2)),
        "lobes": float(max(maxima, 1)),
    }


def _boxed(region: np.ndarray) -> np.ndarray:
    """A region in its bounding box, with a background pixel about it, so that distances are to its border."""
    x, y, width, height = cv2.boundingRect(region.astype(np.uint8))
    return np.pad(region[y : y + height, x : x + width], 1)


def _centre(region: np.ndarray) -> np.ndarray:
    return np.argwhere(region).mean(0)
