"""Segment Anything (Kirillov et al. 2023): its automatic masks, sorted into cells by colour and size.

The Naturalize paper sorts such masks into white cell, red cell and background; here platelets are recognised as well,
and masks of a part of a cell, of several cells, or of a cell that has one already are left out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from wbctool.errors import DeviceError, InputError
from wbctool.imaging.label_image import Objects, Region
from wbctool.segmentation.nuclei import is_nucleus
from wbctool.segmentation.regions import hull_of
from wbctool.segmentation.stain import PLATELET, Field

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

ADVICE = "download sam_vit_b_01ec64.pth (or vit_l, vit_h) from the segment-anything project's page"
LARGEST = 12  # areas of its nucleus that a cell has at most
BATCH = 64  # points at a time; halved where memory does not suffice


@lru_cache(maxsize=1)
def load(checkpoint: str | None, name: str, device: str) -> Sam:
    """Load the model from its weights on a device; `InputError` where they are missing, damaged or of another model."""
    if checkpoint is None:
        raise InputError(f"--method sam needs --sam-checkpoint FILE; {ADVICE}")
    if not Path(checkpoint).is_file():
        raise InputError(f"{checkpoint}: no such file; {ADVICE}")
    import torch
    from segment_anything import sam_model_registry

    from wbctool.device import pick_device

    target = pick_device(device)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # the unpickler raises anything on a file that is not a checkpoint
        raise InputError(f"{checkpoint}: no SAM checkpoint that can be loaded without running code; {ADVICE}") from None
    model = sam_model_registry[name](checkpoint=None)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    is_state = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    shapes = {key: value.shape for key, value in state.items() if hasattr(value, "shape")} if is_state else {}
    if shapes != expected:
        depth = len({key.split(".")[2] for key in shapes if key.startswith("image_encoder.blocks.")})
        other = {12: "vit_b", 24: "vit_l", 32: "vit_h"}.get(depth)
        hint = f"it is for --sam-model {other}" if other and other != name else ADVICE
        raise InputError(f"{checkpoint}: no checkpoint of SAM {name}; {hint}")
    model.load_state_dict(state)
    return model.to(target).eval()


def automatic_masks(model: Sam, image: np.ndarray, points: int) -> list[np.ndarray]:
    """Compute masks of everything from a grid of points a side; fewer at a time where memory does not suffice."""
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    batch = BATCH
    while True:
        try:
            generator = SamAutomaticMaskGenerator(model, points_per_side=points, points_per_batch=batch)
            return [mask["segmentation"].astype(np.uint8) for mask in generator.generate(image)]
        except torch.OutOfMemoryError:
            if batch == 1:
                advice = "try --sam-model vit_b or --device cpu"
                raise DeviceError(f"--method sam: not enough GPU memory; {advice}") from None
            torch.cuda.empty_cache()
            batch //= 2


def sort_masks(image: np.ndarray, masks: list[np.ndarray]) -> Objects:
    """Sort masks into white cells with nuclei, red cells and platelets, by colour and size.

    For each stained region, the largest mask that holds all of it and is convex is its cell, and the mask
    within that is most like the region its nucleus. A mask that absorbs light, is not stained and has a red cell's
    size is a red cell. Masks have the image's height and width, and any order.
    """
    shape = image.shape[:2]
    field = Field.of(image)
    masks = [np.ascontiguousarray(mask) for mask in masks if 0 < cv2.countNonZero(mask) < 0.5 * mask.size]
    regions = sorted((Region.from_mask(mask) for mask in masks), key=lambda region: region.area)
    filled = cv2.resize(field.filled, shape[::-1], interpolation=cv2.INTER_NEAREST)
    unit = field.unit / field.scale**2
    objects, taken = Objects(), np.zeros(shape, np.uint8)
    for stained in field.stained_regions():
        region = stained.scaled(field.scale, shape)
        cell = max((one for one in regions if _is_cell(one, region, filled)), key=lambda one: one.area, default=None)
        if cell is None or _fraction_in(cell, taken) > 0.5:
            continue
        if region.area >= PLATELET * unit and is_nucleus(field.density, stained, cell.area / unit):
            objects.cells.append((cell, _nucleus(regions, cell, region)))
        else:
            objects.platelets.append(cell)
        taken[cell.window] |= cell.mask
    dark = cv2.resize(field.dark, shape[::-1], interpolation=cv2.INTER_NEAREST)
    for region in reversed(regions):  # the whole cell before its central pallor
        red = _fraction_in(region, dark) < 0.1 and _fraction_in(region, filled) > 0.7
        if red and 0.4 * unit < region.area < 1.7 * unit and _fraction_in(region, taken) < 0.2:
            objects.red_cells.append(region)
            taken[region.window] |= region.mask
    return objects


def _is_cell(region: Region, stained: Region, filled: np.ndarray) -> bool:
    """Whether a mask can be the cell of a nucleus: it holds all of it, no background, and is convex."""
    if not 0.9 * stained.area < region.area < LARGEST * stained.area or _common(region, stained) < 0.85 * stained.area:
        return False
    return _fraction_in(region, filled) > 0.8 and region.area > 0.88 * hull_of(region).area


def _nucleus(regions: list[Region], cell: Region, stained: Region) -> Region:
    """The mask within a cell that is most like its stained region; that region itself where none is."""
    within = [region for region in regions if region is not cell and _common(region, cell) > 0.9 * region.area]
    area = stained.area
    nucleus = max(within, key=lambda region: _common(region, stained) / (region.area + area), default=stained)
    return stained if _common(nucleus, stained) < 0.5 * area else nucleus


def _common(a: Region, b: Region) -> int:
    """Number of pixels that two regions have in common."""
    return int(cv2.countNonZero(a.mask & b.in_window(a.x, a.y, a.mask.shape)))


def _fraction_in(region: Region, mask: np.ndarray) -> float:
    """Fraction of a region that lies in a mask of the image."""
    return cv2.countNonZero(region.mask & mask[region.window]) / region.area
