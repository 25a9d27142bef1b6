"""`natural`: a real field of view in which another cell takes the place of its white cell.

A classifier detects whatever composites have in common and real images do not have: invented arrangements, flat
backgrounds, hard or blurred seams, another illumination, colours coded twice. So the field stays as it is, with its red
cells, overlaps and dust. The new cell comes with the background around it, on the same JPEG grid, with the illumination
of the field, and the seam runs along the borders of blocks, where every JPEG has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.jpeg import BLOCK
from wbctool.naturalizing.background import dilate, illumination, remove_cells, replace_region
from wbctool.naturalizing.cutting import CELL, NUCLEUS, OTHER
from wbctool.naturalizing.pool import SIMILAR, Pool, PooledField
from wbctool.naturalizing.scene import Scene, apply_symmetry, placement

_TRIES = 4  # arrangements of field and symmetry that are compared
_POSITIONS = 200  # random positions that are tried for a red cell
# Fraction of a red cell that the new cell may cover; if it covers more, the red cell is removed. Where red cells
# overlap, removing one leaves a hole in the next, so this is seldom done.
_COVERED = 0.5
_HIDDEN = 6  # pixels around a cell that it hides
_RIM = 3  # pixels around another cell of its field that it does not bring along
_MARGIN = 4  # pixels of its own background that it brings along
_NOT_VISIBLE = 3.0  # difference between two backgrounds that is left, grey levels
_SMOOTHING = 6  # radius over which two backgrounds are compared, pixels
_GAIN = (0.6, 1.6)  # limits by which the illumination is changed
# A quarter turn would lay a cell's coding across the field's: JPEG's steps differ along rows and columns.
_UPRIGHT, _ALL = (0, 0, 2, 4, 6), tuple(range(8))
_NOISY = 1.25  # ratio of the noise of two fields beyond which it is adapted
# fraction of the Laplacian of white noise that a Gaussian leaves, and the sigma of that Gaussian
_LEFT, _SIGMA = (0.135, 0.304, 0.501, 0.64, 0.788, 0.911, 0.979), (0.8, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3)


@dataclass(frozen=True)
class _Arrangement:
    """A cell over a field, its window at x and y, its label image with the symmetry applied.

    `removed` are the values of the field's cells that make room; `misfit` is the weighted number of pixels around the
    cell that do not fit.
    """

    field: PooledField
    symmetry: int
    mask: np.ndarray
    x: int
    y: int
    removed: list[int]
    misfit: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the field."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def illumination(self) -> np.ndarray:
        """Illumination of the field in the window, (height, width, 3)."""
        height, width = self.mask.shape
        return illumination(self.field.illumination, self.field.size, (self.x, self.y, width, height))


def _cell_of(mask: np.ndarray) -> np.ndarray:
    return (mask == CELL) | (mask == NUCLEUS)


def compose_natural(pool: Pool, index: int, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """Put the cell of one field into another field; with `red_cells` None, there are as many as the field has.

    If no field of the pool has room for the cell, or for so many red cells, that is an `ImageError`.
    """
    fields = _similar_fields(pool, index)
    weights = 1 / pool.popularity[fields]
    if red_cells is not None:  # prefer fields that have about as many
        weights = weights * np.exp(-0.5 * np.abs(pool.properties[fields, 4] - red_cells))
    drawn = rng.choice(fields, _TRIES, p=weights / weights.sum())
    arrangements = (_arrange(pool, pool.fields[index], pool.fields[other], rng) for other in drawn)
    best = min(arrangements, key=lambda arrangement: arrangement.misfit)
    scene = _make_room(pool, best, red_cells, rng)
    _paste(pool, pool.fields[index], best, scene)
    if red_cells is not None:
        _add_red_cells(pool, best.field, scene, red_cells, rng)
    return scene


def _similar_fields(pool: Pool, index: int) -> np.ndarray:
    """Return the fields that look most like a cell's own, had a cell of its kind and have room for its window."""
    fields, wanted = np.array(pool.cleared, np.int64), pool.properties[index]
    properties = pool.properties[fields]
    _, _, width, height = pool.fields[index].parts["subject"]["window"]
    has_room = (properties[:, 2] >= width) & (properties[:, 3] >= height)
    fields = fields[(properties[:, :2] == wanted[:2]).all(1) & has_room & (fields != index)]
    if not len(fields):
        raise ImageError(f"{pool.fields[index].id}: no other field of the pool can hold its cell; give more fields")
    return fields[pool.by_similarity(index, fields)[:SIMILAR]]


def _arrange(pool: Pool, donor: PooledField, field: PooledField, rng: np.random.Generator) -> _Arrangement:
    """Lay a cell over a field with a random symmetry, where the field had its own cell."""
    mask = pool.read_labels(donor.parts["subject"]["mask"])
    fits_turned = mask.shape[0] <= field.size[0] and mask.shape[1] <= field.size[1]
    symmetry = int(rng.choice(_ALL if fits_turned and not donor.is_jpeg else _UPRIGHT))
    mask = apply_symmetry(mask, symmetry)
    height, width = mask.shape
    rows, columns = np.nonzero(_cell_of(mask))
    centre = field.parts["field"]["centre"]
    wanted = centre[0] - columns.mean(), centre[1] - rows.mean()
    x, y = (
        int(np.clip(round(start / BLOCK), 0, (side - length) // BLOCK)) * BLOCK
        for start, side, length in zip(wanted, field.size, (width, height), strict=True)
    )
    removed, misfit = _fit(pool, field, mask, (x, y))
    return _Arrangement(field, symmetry, mask, x, y, removed, misfit)


def _fit(pool: Pool, field: PooledField, mask: np.ndarray, position: tuple[int, int]) -> tuple[list[int], float]:
    """Return the cells of a field that a cell covers and that must be removed, and the weighted number of misfits."""
    scene, (x, y), (height, width) = field.parts["field"], position, mask.shape
    cell = _cell_of(mask)
    near = dilate(cell, 3)
    under = pool.read_labels(scene["mask"])[y : y + height, x : x + width]
    covered = np.bincount(under[near].ravel(), minlength=65536 if under.dtype == np.uint16 else 256)
    removed = [c["value"] for c in field.cells if covered[c["value"]] > _COVERED * c["area"]]
    stays = (under > 0) & ~np.isin(under, removed)
    touched = near & (mask == OTHER)
    hidden, incomplete = dilate(cell, _HIDDEN), 0.0  # visible pixels at which cells lack what the old cell covered
    for value, (count, samples) in scene["touching"].items():
        spots = np.array(samples) - position
        spots = spots[((spots >= 0) & (spots < (width, height))).all(1)]
        if int(value) not in removed:
            incomplete += count * (1 - np.count_nonzero(hidden[spots[:, 1], spots[:, 0]]) / len(samples))
    misfit = (
        np.count_nonzero(touched & ~stays)
        + 0.5 * np.count_nonzero(cell & stays)
        + 0.5 * incomplete
        + 0.2 * sum(c["area"] for c in field.cells if c["value"] in removed)
    )
    return removed, misfit


def _make_room(pool: Pool, best: _Arrangement, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """Return the field with room for the cell, and with no more red cells than wanted."""
    parts = best.field.parts["field"]
    image, coding = pool.read_image(parts["file"])
    labels = pool.read_labels(parts["mask"]).astype(np.int32)
    areas = np.bincount(labels.ravel(), minlength=65536)
    cells: dict[int, dict[str, Any]] = {
        cell["value"]: {key: cell[key] for key in ("kind", "area", "whole") if key in cell}
        for cell in best.field.cells
        if areas[cell["value"]]
    }
    removed = [value for value in best.removed if value in cells]
    if red_cells is not None:
        stay = [value for value, cell in cells.items() if cell["kind"] == "rbc" and value not in removed]
        if len(stay) > red_cells:
            removed += [int(value) for value in rng.choice(stay, len(stay) - red_cells, replace=False)]
    if removed:
        room = np.isin(labels, removed)
        image = remove_cells(image, pool.read_image(parts["background"])[0], room, (labels > 0) & ~room)
        labels[room] = 0
    left = {value: cell for value, cell in cells.items() if value not in removed}
    return Scene(np.array(image), labels, coding, left, {"field": best.field.id})


def _paste(pool: Pool, donor: PooledField, best: _Arrangement, scene: Scene) -> None:
    """Put the cell into the scene, adapted to its noise, illumination and background."""
    subject, window, cell = donor.parts["subject"], best.window, _cell_of(best.mask)
    patch = apply_symmetry(pool.read_image(subject["exact"])[0], best.symmetry)
    light = apply_symmetry(illumination(donor.illumination, donor.size, tuple(subject["window"])), best.symmetry)
    patch = _match_noise(patch - light, donor, best, pool) + light
    patch = patch * np.clip(best.illumination / np.maximum(light, 8), *_GAIN)
    is_background = (scene.labels[window] == 0) & ~dilate(best.mask > 0, 3)
    patch = patch + _background_difference(scene.image[window] - patch, is_background)
    keep = ((scene.labels[window] > 0) | dilate(best.mask == OTHER, _RIM)) & ~cell
    touched = dilate(cell, 1)
    region = (dilate(cell, _MARGIN) & ~keep) | touched
    scene.image[window] = replace_region(scene.image[window], patch, region, keep)
    for value in np.unique(scene.labels[window][touched & ~cell]):
        if value in scene.cells:
            scene.cells[value]["whole"] = False
    scene.add(subject["kind"], np.where(best.mask == OTHER, 0, best.mask), (best.x, best.y))
    scene.provenance["cell"] = placement(best.symmetry, best.x, best.y)


def _background_difference(difference: np.ndarray, is_background: np.ndarray) -> np.ndarray:
    """Smooth the difference of two windows where both show background, and extrapolate it to the rest of the window."""
    weight = is_background.astype(np.float32)
    box = (2 * _SMOOTHING + 1, 2 * _SMOOTHING + 1)
    coverage = cv2.blur(cv2.blur(weight, box), box)
    total = cv2.blur(cv2.blur(difference * weight[..., None], box), box)
    mean = (difference * weight[..., None]).sum((0, 1)) / max(weight.sum(), 1)
    smooth = (total + 0.05 * mean) / (coverage + 0.05)[..., None]
    return np.sign(smooth) * np.maximum(np.abs(smooth) - _NOT_VISIBLE, 0)


def _match_noise(residual: np.ndarray, donor: PooledField, best: _Arrangement, pool: Pool) -> np.ndarray:
    """Give a cell's window, its illumination subtracted, the noise of the field that it goes into."""
    noise, wanted = (pooled.parts["traits"]["noise"] for pooled in (donor, best.field))
    if noise > _NOISY * wanted:
        sigma = float(np.interp(wanted / noise, _LEFT, _SIGMA))
        return cv2.GaussianBlur(residual, (0, 0), sigma)
    if wanted > _NOISY * noise:
        grain = pool.read_image(best.field.parts["field"]["background"])[0][best.window] - best.illumination
        grain = grain - cv2.GaussianBlur(grain, (0, 0), 2)
        return residual + grain * np.float32(np.sqrt(1 - (noise / wanted) ** 2))
    return residual


def _add_red_cells(pool: Pool, field: PooledField, scene: Scene, wanted: int, rng: np.random.Generator) -> None:
    """Add red cells of similar fields at free positions until there are as many as wanted."""
    missing = wanted - sum(cell["kind"] == "rbc" for cell in scene.cells.values())
    if missing <= 0:
        return
    if not pool.red_cells:
        raise ImageError("no whole red cell is in the pool; give no --rbc, or fields that show some")
    donors = np.array([index for index, _ in pool.red_cells])
    near = pool.by_similarity(pool.index_of[field.id], donors)[: 4 * SIMILAR]
    scene.provenance["red_cells"] = []
    for _ in range(missing):
        if not any(_add_red_cell(pool, field, scene, near, rng) for _ in range(_POSITIONS)):
            width, height = scene.size
            raise ImageError(f"{wanted} red cells have no room in a field of {width}×{height}; give a smaller --rbc")


def _add_red_cell(pool: Pool, field: PooledField, scene: Scene, near: np.ndarray, rng: np.random.Generator) -> bool:
    """Add a random red cell at a random position; return False if it has no room there."""
    index, cell = pool.red_cells[int(rng.choice(near))]
    donor = pool.fields[index]
    symmetry = int(rng.choice(_UPRIGHT if donor.is_jpeg else _ALL))
    cut_out = apply_symmetry(pool.read_cut_out(cell["file"]), symmetry)
    (height, width), (scene_width, scene_height) = cut_out.shape[:2], scene.size
    if height > scene_height or width > scene_width:
        return False
    x = int(rng.integers((scene_width - width) // BLOCK + 1)) * BLOCK
    y = int(rng.integers((scene_height - height) // BLOCK + 1)) * BLOCK
    window = slice(y, y + height), slice(x, x + width)
    mask = cut_out[..., 3] == 255
    if (scene.labels[window][dilate(mask, 2)] > 0).any():
        return False
    light = apply_symmetry(illumination(donor.illumination, donor.size, tuple(cell["window"])), symmetry)
    field_light = illumination(field.illumination, field.size, (x, y, width, height))
    patch = cut_out[..., :3] * np.clip(field_light / np.maximum(light, 8), *_GAIN)
    alpha = cut_out[..., 3:].astype(np.float32) / 255
    scene.image[window] += (patch - scene.image[window]) * alpha
    scene.add("rbc", mask.astype(np.uint8), (x, y), whole=True, area=int(mask.sum()))
    scene.provenance["red_cells"].append({"source": donor.id, **placement(symmetry, x, y)})
    return True
