"""Segment Anything (Kirillov et al. 2023): its automatic masks, sorted into cells by colour and size.

The Naturalize paper sorts such masks into white cell, red cell and background; here platelets are told
as well, and what is only a part of a cell, several cells, or the same cell again is left out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from wbctool.errors import DeviceError, InputError, UsageProblem
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.nuclei import has_nucleus
from wbctool.segmentation.regions import gather_lobes, hull_of
from wbctool.segmentation.stain import MIN_AREA, SPECK, Field
from wbctool.segmentation.thresholds import Splitting

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

CONSTANTS = {"sam_checkpoint": None, "sam_model": "vit_b", "sam_points": 32, "device": "auto"}
MODELS = ("vit_b", "vit_l", "vit_h")
ADVICE = "download sam_vit_b_01ec64.pth (or vit_l, vit_h) from the segment-anything project's page"
LARGEST = 12  # a cell is at most so many times as large as its nucleus
BATCH = 64  # points at once; halved where memory does not suffice


def segment(
    image: np.ndarray, split: Splitting | None, sam_checkpoint: str | None, sam_model: str, sam_points: int, device: str
) -> Objects:
    """White cells with nuclei, platelets and red cells of an RGB image (height, width, 3), uint8.

    `split` changes nothing: each mask is one object already.

    Raises:
        InputError: no checkpoint, a damaged one, or one for another model.
        UsageProblem: no such model or device.
        DeviceError: no such GPU, or not enough memory for one point at a time.
    """
    model = load(sam_checkpoint, sam_model, device)
    return sort_masks(image, automatic_masks(model, image, sam_points))


@lru_cache(maxsize=1)
def load(checkpoint: str | None, name: str, device: str) -> Sam:
    """The model, on its device.

    Raises:
        InputError: no checkpoint, a damaged one, or one for another model.
        UsageProblem: no such model.
    """
    if name not in MODELS:
        raise UsageProblem(f"--sam-model {name}: choose from {', '.join(MODELS)}")
    if checkpoint is None:
        raise InputError(f"--method sam needs --sam-checkpoint FILE; {ADVICE}")
    if not Path(checkpoint).is_file():
        raise InputError(f"{checkpoint}: no such file; {ADVICE}")
    import torch
    from segment_anything import sam_model_registry

    from wbctool.device import pick_device

    where = pick_device(device)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # whatever a file that is no checkpoint makes of the unpickler
        raise InputError(f"{checkpoint}: no SAM checkpoint that can be loaded without running code; {ADVICE}") from None
    model = sam_model_registry[name](checkpoint=None)
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    shapes = {key: value.shape for key, value in state.items() if hasattr(value, "shape")} if _is_state(state) else {}
    if shapes != wanted:
        depth = len({key.split(".")[2] for key in shapes if key.startswith("image_encoder.blocks.")})
        other = {12: "vit_b", 24: "vit_l", 32: "vit_h"}.get(depth)
        hint = f"it is for --sam-model {other}" if other and other != name else ADVICE
        raise InputError(f"{checkpoint}: no checkpoint of SAM {name}; {hint}")
    model.load_state_dict(state)
    return model.to(where).eval()


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(key, str) for key in state)


def automatic_masks(model: Sam, image: np.ndarray, points: int) -> list[np.ndarray]:
    """Masks of everything, by a grid of points; fewer at once where memory does not suffice.

    Args:
        model: a `Sam`.
        image: RGB, uint8.
        points: of the grid, a side.

    Returns:
        Masks of the image's shape, uint8.

    Raises:
        DeviceError: not enough memory for one point at a time.
    """
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    batch = BATCH
    while True:
        try:
            generator = SamAutomaticMaskGenerator(model, points_per_side=points, points_per_batch=batch)
            found = generator.generate(image)
            return [one["segmentation"].astype(np.uint8) for one in found]
        except torch.OutOfMemoryError:
            if batch == 1:
                raise DeviceError(
                    "--method sam: not enough GPU memory; try --sam-model vit_b or --device cpu"
                ) from None
            torch.cuda.empty_cache()
            batch //= 2


def sort_masks(image: np.ndarray, masks: list[np.ndarray]) -> Objects:
    """Tell by colour and size which masks are white cells, nuclei, red cells and platelets.

    A nucleus' stain decides: the largest mask that holds all of it and is one convex body is its cell,
    and the mask within that is most like the stain its nucleus. What absorbs, is not stained and has a
    red cell's size is one.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        masks: of the same height and width, uint8, 0 or 1, in any order.
    """
    shape = image.shape[:2]
    field = Field.of(image)
    regions = [Region.of(np.ascontiguousarray(mask)) for mask in masks if 0 < cv2.countNonZero(mask) < 0.5 * mask.size]
    regions.sort(key=lambda region: region.area)
    dark = cv2.resize(field.dark, shape[::-1], interpolation=cv2.INTER_NEAREST)
    filled = cv2.resize(field.filled, shape[::-1], interpolation=cv2.INTER_NEAREST)
    unit = field.unit / field.scale**2
    cells, platelets, taken = [], [], np.zeros(shape, np.uint8)
    for seed in gather_lobes(field.dark, MIN_AREA, field.filled, field.red_area or np.inf):
        stain = seed.scaled(field.scale, shape)
        own = stain.area
        whole = max(
            (region for region in regions if _is_cell(region, stain, filled)),
            key=lambda region: region.area,
            default=None,
        )
        if whole is None or _common(whole, Region.of(taken)) > 0.5 * whole.area:
            continue
        within = [region for region in regions if region is not whole and _common(region, whole) > 0.9 * region.area]
        nucleus = max(within, key=lambda region: _common(region, stain) / (region.area + own), default=stain)
        if _common(nucleus, stain) < 0.5 * own:
            nucleus = stain
        if own >= SPECK * unit and has_nucleus(field.density, seed, whole.area / unit):
            cells.append((whole, nucleus))
        else:
            platelets.append(whole)
        taken[whole.window] |= whole.mask
    red_cells = []
    for region in reversed(regions):  # the whole cell before its pale middle
        red = _share(region, dark) < 0.1 and _share(region, filled) > 0.7 and 0.4 * unit < region.area < 1.7 * unit
        if red and _common(region, Region.of(taken)) < 0.2 * region.area:
            red_cells.append(region)
            taken[region.window] |= region.mask
    return Objects(cells, platelets, red_cells)


def _is_cell(region: Region, stain: Region, filled: np.ndarray) -> bool:
    """Whether a mask can be the cell of a nucleus: it holds all of it, no slide, and is one convex body."""
    if not 0.9 * stain.area < region.area < LARGEST * stain.area or _common(region, stain) < 0.85 * stain.area:
        return False
    return _share(region, filled) > 0.8 and region.area > 0.88 * hull_of(region).area


def _common(a: Region, b: Region) -> int:
    """Pixels that two regions share."""
    top, left = max(a.y, b.y), max(a.x, b.x)
    bottom = min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    right = min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    if bottom <= top or right <= left:
        return 0
    first = a.mask[top - a.y : bottom - a.y, left - a.x : right - a.x]
    second = b.mask[top - b.y : bottom - b.y, left - b.x : right - b.x]
    return int(cv2.countNonZero(first & second))


def _share(region: Region, mask: np.ndarray) -> float:
    """Share of a region that lies in a mask of the image."""
    return cv2.countNonZero(region.mask & mask[region.window]) / region.area
