"""The border of a white cell: a closed shortest path around its nucleus, in polar coordinates.

Absorbance is sampled on rays from the nucleus' centre. On each ray the border lies where a map of "cell" (+1) falls to
"not cell" (−1); the path over all rays that gathers most of such falls, and bends least, is the cell's outline. Several
maps are tried, which separate cytoplasm from red cells in different ways; the outline that explains the colours of the
image best, and is round, is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wbctool.imaging.label_image import Region

RAYS = 64
STEPS = 64
REACH = 3.2  # length of a ray, in radii of the nucleus' hull
BAND = 4  # steps averaged on either side of a border
INSIDE = 0.1  # weight of the map's sum inside the border, beside the fall across it
BEND = 0.03  # cost of a border that moves one step between rays, squared for more
MAX_BEND = 3  # steps that a border moves at most between rays
RING = (0.08, 0.45)  # cytoplasm is learnt this far outside the nucleus' hull, in radii
LEVEL = 0.45  # fraction of the cytoplasm's absorbance from which a pixel belongs to the cell
DENSITY = (0.12, 2.0)  # range of the absorbance of cytoplasm, all channels together
BACKGROUND = 0.06  # absorbance under which the ring is background
UNLIKE = 4.0  # squared Mahalanobis distance from which a pixel of the ring is not of a red cell
POSITIONS = (0.5, 0.25)  # where, between the chromaticity of red cells (0) and cytoplasm (1), the cell begins
WEIGHTS = (0.4, 0.2)  # of the colour step and of the log-likelihood, beside roundness

_ANGLES = np.arange(RAYS, dtype=np.float32) * np.float32(2 * np.pi / RAYS)
_RADII = (np.arange(STEPS, dtype=np.float32) + 0.5) / STEPS * REACH
_SHIFTS = np.arange(-MAX_BEND, MAX_BEND + 1)


@dataclass(frozen=True)
class ColourModel:
    """A Gaussian model of colours in absorbance: centre (3,), inverse covariance (3, 3), log-determinant."""

    centre: np.ndarray
    inverse: np.ndarray
    log_determinant: float

    @classmethod
    def of(cls, samples: np.ndarray, regularisation: float = 0.001) -> ColourModel:
        """Fit the model to samples (n, 3); `regularisation` is added to each variance."""
        centre = np.median(samples, axis=0).astype(np.float32)
        covariance = np.cov((samples - centre).T) + np.eye(3) * regularisation
        return cls(centre, np.linalg.inv(covariance).astype(np.float32), float(np.log(np.linalg.det(covariance))))

    def distance(self, colours: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of colours (…, 3)."""
        offset = colours - self.centre
        return ((offset @ self.inverse) * offset).sum(axis=-1)

    def log_likelihood(self, colours: np.ndarray) -> np.ndarray:
        """Log-likelihood of colours (…, 3), up to a constant."""
        return -0.5 * (self.distance(colours) + self.log_determinant)


def chromaticity(density: np.ndarray) -> np.ndarray:
    """Return the fraction of the absorbance in each channel (…, 3): which stain it is, not how much of it."""
    return density / np.maximum(density.sum(axis=-1, keepdims=True), 0.15)


@dataclass(frozen=True)
class RedCellColours:
    """Colours of the field's red cells, learnt far from every nucleus."""

    density: ColourModel
    chromaticity: ColourModel

    @classmethod
    def of(cls, samples: np.ndarray) -> RedCellColours:
        """Fit both models to absorbances (n, 3)."""
        return cls(ColourModel.of(samples), ColourModel.of(chromaticity(samples), 0.0005))


def cell_outline(
    density: np.ndarray, hull: Region, nearest: np.ndarray, number: int, red: RedCellColours | None
) -> np.ndarray:
    """Find the outline of the white cell around a nucleus' filled convex hull: points (RAYS, 2) as x, y; float32.

    `density` is the absorbance, (height, width, 3), float32; `nearest` the number of the nucleus nearest to each pixel.
    Pixels nearer to another nucleus than this `number` do not belong to its cell. `red` is None in a field without red
    cells.
    """
    moments = cv2.moments(hull.mask, binaryImage=True)
    radius = float(np.sqrt(moments["m00"] / np.pi))
    centre = np.array([moments["m10"], moments["m01"]], np.float32) / moments["m00"]
    # the search stays in a window about the nucleus
    low = np.maximum(np.floor(np.subtract([hull.x, hull.y], np.float32(REACH * radius))).astype(int), 0)
    high = np.ceil(np.add([hull.x, hull.y], hull.mask.shape[::-1]) + REACH * radius).astype(int)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    density = density[window]
    foreign = (nearest[window] != number).astype(np.uint8)
    hull_mask = hull.in_window(int(low[0]), int(low[1]), foreign.shape)
    centre = (centre - np.subtract(low, [hull.x, hull.y])).astype(np.float32)
    return _outline_in_window(density, hull_mask, foreign, red, centre, radius) + low


def _outline_in_window(
    density: np.ndarray,
    hull: np.ndarray,
    foreign: np.ndarray,
    red: RedCellColours | None,
    centre: np.ndarray,
    radius: float,
) -> np.ndarray:
    rays = _sample(density, hull, foreign, centre, radius)
    maps, _ = _maps(rays, red)
    borders = _shortest(_costs(np.stack(list(maps.values())), rays.beyond[None]))
    outlines = _points(centre[None], radius, borders)
    # a second pass from the centre of each outline, from which rays meet the border at nearly right angles
    centres = np.stack([_centre(outline) for outline in outlines])
    second = [_sample(density, hull, foreign, middle, radius) for middle in centres]
    models = [_maps(rays, red) for rays in second]
    charts = np.stack([chart.get(name, maps[name]) for name, (chart, _) in zip(maps, models, strict=True)])
    borders = _shortest(_costs(charts, np.stack([rays.beyond for rays in second])))
    outlines = _points(centres, radius, borders)
    if red is None or len(outlines) == 1:
        return outlines[0]
    steps = [_step(rays.density / tau, line) for rays, (_, tau), line in zip(second, models, borders, strict=True)]
    return outlines[_best(outlines, steps, density, hull, red, radius)]


@dataclass(frozen=True)
class _Rays:
    """Values sampled along the rays; all (RAYS, STEPS, …)."""

    density: np.ndarray
    inside: np.ndarray  # of the nucleus' hull
    beyond: np.ndarray  # distance from the hull along the ray, radii; negative inside
    foreign: np.ndarray  # nearer to another nucleus


def _sample(density: np.ndarray, hull: np.ndarray, foreign: np.ndarray, centre: np.ndarray, radius: float) -> _Rays:
    x = centre[0] + np.cos(_ANGLES)[:, None] * (radius * _RADII)
    y = centre[1] + np.sin(_ANGLES)[:, None] * (radius * _RADII)
    colours = cv2.remap(density, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    masks = cv2.merge([hull, foreign])
    near = cv2.remap(masks, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    inside = near[..., 0] > 0
    last = np.where(inside, np.arange(STEPS), -1).max(axis=1)
    beyond = (np.arange(STEPS) - last[:, None]) * np.float32(REACH / STEPS)
    return _Rays(colours, inside, beyond, near[..., 1] > 0)


def _maps(rays: _Rays, red: RedCellColours | None) -> tuple[dict[str, np.ndarray], float]:
    """Maps of "cell", −1 to 1, by name; and the absorbance of the cytoplasm."""
    total = rays.density.sum(axis=-1)
    ring = (rays.beyond > RING[0]) & (rays.beyond < RING[1])
    ring_stained = ring & (np.abs(rays.density).max(axis=-1) > BACKGROUND)
    count = int(ring_stained.sum())
    tau = float(np.median(total[ring_stained])) if count > 0.15 * ring.sum() else 0.5
    tau = min(max(tau, DENSITY[0]), DENSITY[1])
    stained = np.clip(total / (LEVEL * tau) - 1, -1, 1)
    maps = {"stained": stained}
    if red is not None and count > 20:
        colours = chromaticity(rays.density)
        samples = colours[ring_stained]
        unlike = samples[red.chromaticity.distance(samples) > UNLIKE]
        cytoplasm_colour = np.median(unlike if len(unlike) > 0.1 * count else samples, axis=0)
        axis = red.chromaticity.inverse @ (cytoplasm_colour - red.chromaticity.centre)
        separation = float((cytoplasm_colour - red.chromaticity.centre) @ axis)
        if separation > 1:
            position = ((colours - red.chromaticity.centre) @ axis) / separation
            for start in POSITIONS:
                maps[f"chromaticity {start}"] = np.minimum(stained, np.clip((position - start) * 2.5, -1, 1))
        samples = rays.density[ring_stained]
        unlike = samples[red.density.distance(samples) > UNLIKE]
        cytoplasm = ColourModel.of(unlike if len(unlike) > 20 else samples)
        odds = cytoplasm.log_likelihood(rays.density) - red.density.log_likelihood(rays.density) + 0.6
        maps["colours"] = np.minimum(stained, np.clip(odds / 3, -1, 1))
    for name, chart in maps.items():
        chart[rays.foreign] = -1
        chart[rays.inside] = 1
        maps[name] = chart.astype(np.float32)
    return maps, tau


def _bands(chart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the BAND steps up to each step, and over the BAND steps after it (along the last axis)."""
    sums = np.cumsum(np.concatenate([chart[..., :1]] * (BAND + 1) + [chart] + [chart[..., -1:]] * BAND, -1), -1)
    before = sums[..., BAND + 1 : BAND + 1 + STEPS] - sums[..., 1 : 1 + STEPS]
    after = sums[..., 2 * BAND + 1 :] - sums[..., BAND + 1 : BAND + 1 + STEPS]
    return before / BAND, after / BAND


def _costs(charts: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Cost of a border at each step of each ray, (maps, RAYS, STEPS)."""
    before, after = _bands(charts)
    inside = np.cumsum(charts * (_RADII * (REACH / STEPS)), axis=-1)
    cost = -0.5 * (before - after) - INSIDE * inside
    return np.where(beyond < 0, 5.0, cost).astype(np.float32)


def _shortest(costs: np.ndarray) -> np.ndarray:
    """The cheapest closed path of each map: its step on each ray, (maps, RAYS).

    Dynamic programming over one and a half turns; the turn in the middle is returned, whose ends meet.
    """
    count, turns, quarter = len(costs), RAYS + RAYS // 2, RAYS // 4
    bend = (BEND * _SHIFTS.astype(np.float32) ** 2)[:, None]
    totals = np.full((turns, count, STEPS + 2 * MAX_BEND), 1e9, np.float32)
    reachable = np.lib.stride_tricks.sliding_window_view(totals, STEPS, axis=2)  # turns, maps, shifts, STEPS
    moved = np.empty(reachable.shape[1:], np.float32)
    total = np.zeros((count, STEPS), np.float32)
    for turn in range(turns):
        totals[turn, :, MAX_BEND : MAX_BEND + STEPS] = total
        np.add(reachable[turn], bend, out=moved)
        np.minimum.reduce(moved, axis=1, out=total)
        total += costs[:, turn % RAYS]
    rows = np.arange(count)
    path = np.empty((turns, count), np.int64)
    step = total.argmin(axis=1)
    for turn in range(turns - 1, -1, -1):
        path[turn] = step
        step = step + (reachable[turn, rows, :, step] + bend[:, 0]).argmin(axis=1) - MAX_BEND
    return np.concatenate([path[RAYS : RAYS + quarter], path[quarter:RAYS]]).T


def _points(centres: np.ndarray, radius: float, borders: np.ndarray) -> np.ndarray:
    """Outlines (maps, RAYS, 2) of borders (maps, RAYS) about centres (maps, 2)."""
    length = (borders + 1) * np.float32(REACH / STEPS * radius)
    around = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
    return (centres[:, None] + length[..., None] * around).astype(np.float32)


def _centre(outline: np.ndarray) -> np.ndarray:
    moments = cv2.moments(outline[:, None])
    return np.array([moments["m10"], moments["m01"]], np.float32) / moments["m00"]


def _step(colours: np.ndarray, border: np.ndarray) -> float:
    """The change of colour across a border, at its weakest fifth."""
    before, after = _bands(np.moveaxis(colours, -1, 1))
    change = (before - after)[np.arange(RAYS), :, border]
    return float(np.percentile(np.linalg.norm(change, axis=1), 20))


def _best(
    outlines: np.ndarray, steps: list[float], density: np.ndarray, hull: np.ndarray, red: RedCellColours, radius: float
) -> int:
    """Number of the outline that is round, has a colour step across it, and splits the image into probable colours."""
    height, width = hull.shape
    low = np.maximum(outlines.min(axis=(0, 1)).astype(int) - 3, 0)
    high = np.minimum(outlines.max(axis=(0, 1)).astype(int) + 4, [width, height])
    stride = max(1, int(radius / 10))
    window = (slice(low[1], high[1], stride), slice(low[0], high[0], stride))
    masks = []
    for outline in outlines:
        mask = np.zeros(high[::-1] - low[::-1], np.uint8)
        cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 1, shift=4)
        masks.append(mask[::stride, ::stride])
    union = cv2.dilate(np.bitwise_or.reduce(masks), np.ones((3, 3), np.uint8))
    compared = (union > 0) & (hull[window] == 0)
    colours = density[window][compared]
    background = -0.5 * ((colours**2).sum(axis=-1) / 0.0025 + 3 * np.log(0.0025))
    outside = np.maximum(red.density.log_likelihood(colours), background)
    scores = []
    for outline, mask, step in zip(outlines, masks, steps, strict=True):
        in_cell = mask[compared] > 0
        inside = ColourModel.of(colours[in_cell]).log_likelihood(colours) if in_cell.sum() > 30 else outside
        likelihood = np.clip(np.where(in_cell, inside, outside), -10, 10).mean() if len(colours) else 0.0
        curve = outline[:, None]
        roundness = 4 * np.pi * cv2.contourArea(curve) / cv2.arcLength(curve, True) ** 2
        scores.append(roundness + WEIGHTS[0] * min(step, 0.4) + WEIGHTS[1] * likelihood)
    return int(np.argmax(scores))
