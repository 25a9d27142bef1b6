"""`paper`: Algorithm 1 of the Naturalize paper, as published.

A background without cells, red cells and one white cell laid on it at random, none touching another's box, with
hard edges. Kept for comparison: its composites are told from real fields at a glance.
"""

from __future__ import annotations

import numpy as np

from wbctool.errors import ImageError
from wbctool.naturalizing.pool import Pool
from wbctool.naturalizing.scene import Scene

RED_CELLS = 8
_ROUNDS = 100  # beginnings anew, where the last cell has found no room


def compose_paper(pool: Pool, number: int, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """Lay red cells, then the white cell of a piece, on a background of the pool.

    Args:
        pool: the parts.
        number: of the piece whose cell it is.
        red_cells: how many; None for the paper's 8.
        rng: all chance.

    Raises:
        ImageError: there is no room for them.
    """
    wanted = RED_CELLS if red_cells is None else red_cells
    piece = pool.pieces[number]
    kind = [b for b in pool.backgrounds if pool.pieces[b].is_jpeg == piece.is_jpeg]
    if not kind:
        raise ImageError(f"{piece.id}: no background of its kind of file is left in the pool; give more fields")
    ground = pool.pieces[int(rng.choice(kind))]
    image, coding = pool.image(ground.parts["field"]["background"])
    scene = Scene(np.array(image), np.zeros(image.shape[:2], np.int32), coding, {}, {"background": ground.id})
    inner = pool.labels(piece.parts["subject"]["mask"])
    own = _trimmed(pool.cut_out(piece.parts["subject"]["file"]), inner)
    for _ in range(_ROUNDS):
        drawn = [pool.red_cells[int(k)] for k in rng.integers(len(pool.red_cells), size=wanted)]
        layers = [*(_trimmed(pool.cut_out(cell["file"]), None) for _, cell in drawn), own]
        places = _apart([mask.shape for _, mask in layers], scene.size, rng)
        if places:
            break
    else:
        width, height = scene.size
        raise ImageError(
            f"{piece.id}: its cell and {wanted} red cells have no room in {width}×{height}; give a smaller --rbc"
        )
    scene.how["red_cells"] = []
    for place, (colours, mask), (source, _) in zip(places, layers, [*drawn, (number, None)], strict=True):
        x, y = place
        window = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        scene.image[window][mask > 0] = colours[mask > 0]
        last = len(scene.how["red_cells"]) == wanted
        if last:
            scene.add(piece.parts["subject"]["kind"], mask, place)
            scene.how["cell"] = {"turn": 0, "mirrored": False, "at": [x, y]}
        else:
            scene.add("rbc", mask, place, whole=True, area=int((mask > 0).sum()))
            scene.how["red_cells"].append(
                {"source": pool.pieces[source].id, "turn": 0, "mirrored": False, "at": [x, y]}
            )
    return scene


def _trimmed(cut_out: np.ndarray, inner: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A cut-out's colours and values without its soft edge, cut to its bounding box."""
    hard = cut_out[..., 3] == 255
    values = hard.astype(np.uint8) if inner is None else np.where(inner <= 2, inner, 0) * hard
    rows, columns = np.flatnonzero(hard.any(1)), np.flatnonzero(hard.any(0))
    if not len(rows):
        raise ImageError("a cut-out of the pool has nothing opaque in it; remove it, or make the pool anew")
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return cut_out[box][..., :3], values[box]


def _apart(
    shapes: list[tuple[int, int]], size: tuple[int, int], rng: np.random.Generator
) -> list[tuple[int, int]] | None:
    """Random places for boxes (height, width) that meet nowhere, x and y; None where the last found no room.

    The largest is laid first: nothing of the order is seen in the picture, and more finds room.
    """
    places: dict[int, tuple[int, int]] = {}
    for number in sorted(range(len(shapes)), key=lambda k: -shapes[k][0] * shapes[k][1]):
        height, width = shapes[number]
        if width > size[0] or height > size[1]:
            return None
        free = np.ones((size[1] - height + 1, size[0] - width + 1), bool)
        for other, (x, y) in places.items():
            free[max(0, y - height + 1) : y + shapes[other][0], max(0, x - width + 1) : x + shapes[other][1]] = False
        corners = np.flatnonzero(free)
        if not len(corners):
            return None
        y, x = divmod(int(rng.choice(corners)), free.shape[1])
        places[number] = x, y
    return [places[number] for number in range(len(shapes))]
