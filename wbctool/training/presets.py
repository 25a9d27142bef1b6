"""What `--augment` sets; a recipe's own keys go over it."""

from __future__ import annotations

PRESETS: dict[str, dict[str, float | bool]] = {
    "none": {},
    "flips": {"flips": True, "turns": True},
    # the ranges of the attentive-CNN paper, section 2.4, and quarter turns
    "full": {
        "flips": True,
        "turns": True,
        "rotation": 30.0,
        "shift": 0.1,
        "zoom": 0.2,
        "shear": 0.05,
        "brightness": 0.2,
    },
    "strong": {
        "flips": True,
        "turns": True,
        "rotation": 180.0,
        "shift": 0.1,
        "zoom": 0.25,
        "shear": 0.05,
        "brightness": 0.1,
        "stain": 0.1,
    },
}
