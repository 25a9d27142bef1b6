"""`paper`: Algorithm 1 of the Naturalize paper, as published.

Red cells and one white cell are laid at random on a background without cells, with hard edges, and no bounding boxes
overlap. Kept for comparison: these composites are easily distinguished from real fields.
"""

from __future__ import annotations

import numpy as np

from wbctool.errors import ImageError
from wbctool.naturalizing.pool import Pool
from wbctool.naturalizing.scene import Scene, placement

RED_CELLS = 8
_ROUNDS = 100  # attempts, each with other red cells, if the last cell has no room


def compose_paper(pool: Pool, index: int, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """Lay red cells, by default the paper's 8, then the cell of one field, on a background of the pool."""
    wanted = RED_CELLS if red_cells is None else red_cells
    donor = pool.fields[index]
    candidates = [other for other in pool.backgrounds if pool.fields[other].is_jpeg == donor.is_jpeg]
    if not candidates:
        raise ImageError(f"{donor.id}: no background of its kind of file is left in the pool; give more fields")
    field = pool.fields[int(rng.choice(candidates))]
    image, coding = pool.read_image(field.parts["field"]["background"])
    labels = np.zeros(image.shape[:2], np.int32)
    scene = Scene(np.array(image), labels, coding, {}, {"background": field.id, "red_cells": []})
    inner = pool.read_labels(donor.parts["subject"]["mask"])
    subject = _trim(pool.read_cut_out(donor.parts["subject"]["file"]), inner)
    for _ in range(_ROUNDS):
        drawn = [pool.red_cells[int(k)] for k in rng.integers(len(pool.red_cells), size=wanted)]
        layers = [*(_trim(pool.read_cut_out(cell["file"]), None) for _, cell in drawn), subject]
        positions = _random_positions([mask.shape for _, mask in layers], scene.size, rng)
        if positions:
            break
    else:
        width, height = scene.size
        raise ImageError(
            f"{donor.id}: its cell and {wanted} red cells have no room in {width}×{height}; give a smaller --rbc"
        )
    for (x, y), (colours, mask) in zip(positions, layers, strict=True):
        scene.image[y : y + mask.shape[0], x : x + mask.shape[1]][mask > 0] = colours[mask > 0]
    for position, (_, mask), (source, _) in zip(positions, layers, drawn, strict=False):
        scene.add("rbc", mask, position, whole=True, area=int((mask > 0).sum()))
        scene.provenance["red_cells"].append({"source": pool.fields[source].id, **placement(0, *position)})
    scene.add(donor.parts["subject"]["kind"], subject[1], positions[-1])
    scene.provenance["cell"] = placement(0, *positions[-1])
    return scene


def _trim(cut_out: np.ndarray, inner: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a cut-out's colours and values without its soft edge, cropped to its bounding box."""
    opaque = cut_out[..., 3] == 255
    values = opaque.astype(np.uint8) if inner is None else np.where(inner <= 2, inner, 0) * opaque
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    if not len(rows):
        raise ImageError("a cut-out of the pool has no opaque pixel; remove it, or remove the pool to make it again")
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return cut_out[box][..., :3], values[box]


def _random_positions(
    shapes: list[tuple[int, int]], size: tuple[int, int], rng: np.random.Generator
) -> list[tuple[int, int]] | None:
    """Return random positions, x and y, for boxes (height, width) that do not overlap; None if one has no room.

    The largest is placed first: the order is not visible in the image, and so more boxes have room.
    """
    positions: dict[int, tuple[int, int]] = {}
    for index in sorted(range(len(shapes)), key=lambda k: -shapes[k][0] * shapes[k][1]):
        height, width = shapes[index]
        if width > size[0] or height > size[1]:
            return None
        free = np.ones((size[1] - height + 1, size[0] - width + 1), bool)
        for other, (x, y) in positions.items():
            free[max(0, y - height + 1) : y + shapes[other][0], max(0, x - width + 1) : x + shapes[other][1]] = False
        corners = np.flatnonzero(free)
        if not len(corners):
            return None
        y, x = divmod(int(rng.choice(corners)), free.shape[1])
        positions[index] = x, y
    return [positions[index] for index in range(len(shapes))]
