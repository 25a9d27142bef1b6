"""`natural`: a real field whose white cell is taken out, and another's put in its place.

Everything that composites share and no real image has gives them away: invented arrangements, flat backgrounds, hard
or blurred seams, another light, colours coded twice. So the field stays as it is, red cells, count, overlaps, dust
and all; the new cell comes with the slide about it, on the same JPEG grid, lit as the field is, and the seam runs
along the borders of blocks, where any JPEG has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from wbctool.errors import ImageError
from wbctool.imaging.jpeg import BLOCK
from wbctool.naturalizing.background import emptied, grown, light
from wbctool.naturalizing.blocks import replaced
from wbctool.naturalizing.cutting import CELL, NUCLEUS, OTHER
from wbctool.naturalizing.pool import NEAREST, Piece, Pool
from wbctool.naturalizing.scene import Scene, turned

_TRIES = 4  # arrangements of field and turn that are compared
_LOOKED = 200  # places looked at for a red cell before there is taken to be none
# Share of a red cell that the new cell may cover; more, and what is left of it goes. Where red cells lie on one
# another, taking one away leaves a hole in the next, so it is seldom done.
_COVERED = 0.5
_HIDDEN = 6  # pixels that a cell hides about it
_RIM = 3  # pixels about another cell of its field that do not
_REACH = 4  # pixels of its own slide that come with the cell
_ALIKE = 3.0  # grey levels by which two windows' slides may differ and are left so
_SEEN = 6  # pixels over which two windows' slides are compared
_GAIN = (0.6, 1.6)  # of the light, at most
# A quarter turn would lay a cell's coding across the field's: JPEG's steps differ along rows and columns.
_UPRIGHT, _ALL = (0, 0, 2, 4, 6), tuple(range(8))
_NOISY = 1.25  # ratio of two fields' noise from which it is evened out
# of white noise, what a Gaussian leaves of its Laplacian, and that Gaussian's sigma
_LEFT, _SIGMA = (0.135, 0.304, 0.501, 0.64, 0.788, 0.911, 0.979), (0.8, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3)


@dataclass(frozen=True)
class _Arrangement:
    """A cell over a field.

    Attributes:
        field: whose field.
        turn: of the cell, see `scene.turned`.
        mask: the cell's label image, turned.
        x, y: place of its window in the field.
        gone: values of the field's cells that make room.
        misfit: how many pixels of its surroundings do not go with it.
    """

    field: Piece
    turn: int
    mask: np.ndarray
    x: int
    y: int
    gone: list[int]
    misfit: float

    @property
    def cell(self) -> np.ndarray:
        """The cell in its window, bool."""
        return (self.mask == CELL) | (self.mask == NUCLEUS)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the field."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def compose_natural(pool: Pool, number: int, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """Put the white cell of one piece into the field of another.

    Args:
        pool: the parts.
        number: of the piece whose cell it is.
        red_cells: how many the composite is to have; None for as many as the field has.
        rng: all chance.

    Raises:
        ImageError: no field of the pool can hold the cell, or not so many red cells.
    """
    piece = pool.pieces[number]
    mask = pool.labels(piece.parts["subject"]["mask"])
    fields = _fields_like(pool, number)
    share = 1 / pool.wanted_by[fields]
    if red_cells is not None:  # of fields that have about so many
        share = share * np.exp(-0.5 * np.abs(pool.columns[fields, 4] - red_cells))
    best = min(
        (_arranged(pool, piece, mask, int(other), rng) for other in rng.choice(fields, _TRIES, p=share / share.sum())),
        key=lambda arrangement: arrangement.misfit,
    )
    scene = _emptied(pool, best, red_cells, rng)
    _paste(pool, piece, best, scene)
    if red_cells is not None:
        _add_red_cells(pool, best.field, scene, red_cells, rng)
    return scene


def _fields_like(pool: Pool, number: int) -> np.ndarray:
    """The fields that look most like a piece's own, and held a cell of its kind and about as large."""
    fields, columns = np.array(pool.fields, np.int64), pool.columns[number]
    kind = pool.columns[fields]
    _, _, width, height = pool.pieces[number].parts["subject"]["window"]
    fits = (kind[:, :2] == columns[:2]).all(1) & (kind[:, 2] >= width) & (kind[:, 3] >= height) & (fields != number)
    fields = fields[fits]
    if not len(fields):
        raise ImageError(f"{pool.pieces[number].id}: no other field of the pool can hold its cell; give more fields")
    far = ((pool.traits[fields] - pool.traits[number]) ** 2).sum(1)
    return fields[np.argsort(far, kind="stable")[:NEAREST]]


def _arranged(pool: Pool, piece: Piece, mask: np.ndarray, other: int, rng: np.random.Generator) -> _Arrangement:
    field = pool.pieces[other]
    scene = field.parts["field"]
    fits_turned = mask.shape[0] <= field.size[0] and mask.shape[1] <= field.size[1]
    turn = int(rng.choice(_ALL if fits_turned and not piece.is_jpeg else _UPRIGHT))
    mask = turned(mask, turn)
    cell = (mask == CELL) | (mask == NUCLEUS)
    height, width = mask.shape
    rows, columns = np.nonzero(cell)
    # where the field had its own cell, so that places are as real ones are
    wished = scene["centre"][0] - columns.mean(), scene["centre"][1] - rows.mean()
    x, y = (
        int(np.clip(round(at / BLOCK), 0, (side - own) // BLOCK)) * BLOCK
        for at, side, own in zip(wished, field.size, (width, height), strict=True)
    )
    under = pool.labels(scene["mask"])[y : y + height, x : x + width]
    near = grown(cell, 3)
    covered = np.bincount(under[near].ravel(), minlength=65536 if under.dtype == np.uint16 else 256)
    gone = [c["value"] for c in field.cells if covered[c["value"]] > _COVERED * c["area"]]
    stays = (under > 0) & ~np.isin(under, gone)
    leant = near & (mask == OTHER)
    misfit = (
        np.count_nonzero(leant & ~stays)
        + 0.5 * np.count_nonzero(cell & stays)
        + 0.5 * _torn(scene["touching"], gone, grown(cell, _HIDDEN), (x, y))
        + 0.2 * sum(c["area"] for c in field.cells if c["value"] in gone)
    )
    return _Arrangement(field, turn, mask, x, y, gone, misfit)


def _torn(touching: dict[str, Any], gone: list[int], hidden: np.ndarray, place: tuple[int, int]) -> float:
    """Pixels of cells that leant on the old cell, lack what it covered, and show it."""
    height, width = hidden.shape
    torn = 0.0
    for value, (count, spots) in touching.items():
        at = np.array(spots) - place
        at = at[((at >= 0) & (at < (width, height))).all(1)]
        if int(value) not in gone:
            torn += count * (1 - np.count_nonzero(hidden[at[:, 1], at[:, 0]]) / len(spots))
    return torn


def _emptied(pool: Pool, best: _Arrangement, red_cells: int | None, rng: np.random.Generator) -> Scene:
    """The field with room for the cell, and not too many red cells."""
    parts = best.field.parts["field"]
    image, coding = pool.image(parts["file"])
    labels = pool.labels(parts["mask"]).astype(np.int32)
    seen = np.bincount(labels.ravel(), minlength=65536)
    cells: dict[int, dict[str, Any]] = {
        cell["value"]: {key: cell[key] for key in ("kind", "area", "whole") if key in cell}
        for cell in best.field.cells
        if seen[cell["value"]]
    }
    gone = [value for value in best.gone if value in cells]
    if red_cells is not None:
        stay = [value for value, cell in cells.items() if cell["kind"] == "rbc" and value not in gone]
        if len(stay) > red_cells:
            gone += [int(value) for value in rng.choice(stay, len(stay) - red_cells, replace=False)]
    if gone:
        room = np.isin(labels, gone)
        others = (labels > 0) & ~room
        slide = pool.image(parts["background"])[0]
        image = emptied(image, slide, room, others)
        labels[room] = 0
    left = {value: cell for value, cell in cells.items() if value not in gone}
    return Scene(np.array(image), labels, coding, left, {"field": best.field.id})


def _paste(pool: Pool, piece: Piece, best: _Arrangement, scene: Scene) -> None:
    subject = piece.parts["subject"]
    window, (height, width) = best.window, best.mask.shape
    patch = turned(pool.image(subject["exact"])[0], best.turn)
    own_light = turned(light(piece.light, piece.size, tuple(subject["window"])), best.turn)
    lit = light(best.field.light, best.field.size, (best.x, best.y, width, height))
    patch = _as_noisy(patch - own_light, piece, best, pool, lit) + own_light
    patch = patch * np.clip(lit / np.maximum(own_light, 8), *_GAIN)
    cell = best.cell
    patch = patch + _unlike(scene.image[window] - patch, (scene.labels[window] == 0) & ~grown(best.mask > 0, 3))
    kept = ((scene.labels[window] > 0) | grown(best.mask == OTHER, _RIM)) & ~cell
    touched = grown(cell, 1)
    wanted = (grown(cell, _REACH) & ~kept) | touched
    scene.image[window] = replaced(scene.image[window], patch, wanted, kept)
    for value in np.unique(scene.labels[window][touched & ~cell]):
        if value in scene.cells:
            scene.cells[value]["whole"] = False
    scene.add(subject["kind"], np.where(best.mask == OTHER, 0, best.mask), (best.x, best.y))
    scene.how["cell"] = {"turn": best.turn % 4 * 90, "mirrored": best.turn >= 4, "at": [best.x, best.y]}


def _unlike(rest: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """How much darker or brighter the slide is in the one of two windows, where both show it; carried on elsewhere."""
    weight = slide.astype(np.float32)
    spread = (2 * _SEEN + 1, 2 * _SEEN + 1)
    much = cv2.blur(cv2.blur(weight, spread), spread)
    seen = cv2.blur(cv2.blur(rest * weight[..., None], spread), spread)
    mean = (rest * weight[..., None]).sum((0, 1)) / max(weight.sum(), 1)
    found = (seen + 0.05 * mean) / (much + 0.05)[..., None]
    return np.sign(found) * np.maximum(np.abs(found) - _ALIKE, 0)


def _as_noisy(rest: np.ndarray, piece: Piece, best: _Arrangement, pool: Pool, lit: np.ndarray) -> np.ndarray:
    """A cell's window, its light taken off, with the noise of the field that it goes into."""
    own, wanted = (p.parts["traits"]["noise"] for p in (piece, best.field))
    if own > _NOISY * wanted:
        sigma = float(np.interp(wanted / own, _LEFT, _SIGMA))
        return cv2.GaussianBlur(rest, (0, 0), sigma)
    if wanted > _NOISY * own:
        grain = pool.image(best.field.parts["field"]["background"])[0][best.window] - lit
        grain = grain - cv2.GaussianBlur(grain, (0, 0), 2)
        return rest + grain * np.float32(np.sqrt(1 - (own / wanted) ** 2))
    return rest


def _add_red_cells(pool: Pool, field: Piece, scene: Scene, wanted: int, rng: np.random.Generator) -> None:
    """Lay red cells of fields like this one where there is room, until there are as many as wanted."""
    have = sum(cell["kind"] == "rbc" for cell in scene.cells.values())
    if have >= wanted:
        return
    if not pool.red_cells:
        raise ImageError("no whole red cell is in the pool; give no --rbc, or fields that show some")
    donors = np.array([number for number, _ in pool.red_cells])
    far = ((pool.traits[donors] - pool.traits[pool.numbers[field.id]]) ** 2).sum(1)
    near = np.argsort(far, kind="stable")[: 4 * NEAREST]
    width, height = scene.size
    scene.how["red_cells"] = []
    left = _LOOKED
    while left:
        left -= 1
        number, cell = pool.red_cells[int(rng.choice(near))]
        donor = pool.pieces[number]
        turn = int(rng.choice(_UPRIGHT if donor.is_jpeg else _ALL))
        colours = turned(pool.cut_out(cell["file"]), turn)
        high, wide = colours.shape[:2]
        if high > height or wide > width:
            continue
        x = int(rng.integers((width - wide) // BLOCK + 1)) * BLOCK
        y = int(rng.integers((height - high) // BLOCK + 1)) * BLOCK
        window = slice(y, y + high), slice(x, x + wide)
        mask = colours[..., 3] == 255
        if (scene.labels[window][grown(mask, 2)] > 0).any():
            continue
        own_light = turned(light(donor.light, donor.size, tuple(cell["window"])), turn)
        lit = light(field.light, field.size, (x, y, wide, high))
        patch = colours[..., :3] * np.clip(lit / np.maximum(own_light, 8), *_GAIN)
        share = colours[..., 3:].astype(np.float32) / 255
        scene.image[window] += (patch - scene.image[window]) * share
        scene.add("rbc", mask.astype(np.uint8), (x, y), whole=True, area=int(mask.sum()))
        scene.how["red_cells"].append({"source": donor.id, "turn": turn % 4 * 90, "mirrored": turn >= 4, "at": [x, y]})
        have += 1
        left = _LOOKED
        if have == wanted:
            return
    raise ImageError(f"{wanted} red cells have no room in a field of {width}×{height}; give a smaller --rbc")
