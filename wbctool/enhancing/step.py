"""The folder step `enhance`: images in, enhanced images and their records out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wbctool.errors import ImageError, UsageProblem
from wbctool.imaging.enhancement import StainProfile, clahe, non_local_means, reinhard
from wbctool.imaging.files import read_image, write_png
from wbctool.pipeline.step import Step, added, same_id
from wbctool.records import Record

DENOISE = ("nlm",)


@dataclass(frozen=True)
class EnhanceOptions:
    """What is done, in this order: non-local means, Reinhard, CLAHE.

    Attributes:
        denoise: `nlm` for non-local means; None for none.
        strength: of non-local means: the filter's h, grey levels.
        profile: that Reinhard's normalisation brings images to; None for none.
        clahe: whether contrast is equalised.
        clip: limit of its histograms.
        tiles: on each side.
    """

    denoise: str | None = None
    strength: float = 5.0
    profile: StainProfile | None = None
    clahe: bool = False
    clip: float = 2.0
    tiles: int = 8

    def as_record(self) -> dict[str, Any]:
        """As records and run folders keep it: enough to do the same to other images."""
        done: dict[str, Any] = {}
        if self.denoise:
            done["denoise"] = {"method": self.denoise, "strength": self.strength}
        if self.profile:
            done["reinhard"] = {"mean": list(self.profile.mean), "std": list(self.profile.std)}
        if self.clahe:
            done["clahe"] = {"clip": self.clip, "tiles": self.tiles}
        return done


def enhance_step(options: EnhanceOptions) -> Step:
    """The step for some options.

    Raises:
        UsageProblem: nothing is to be done, or an option is out of its range.
    """
    if options.denoise not in (None, *DENOISE):
        raise UsageProblem(f"--denoise {options.denoise}: choose from {', '.join(DENOISE)}")
    if not options.as_record():
        raise UsageProblem("nothing to do; give --clahe, --reinhard REF or --denoise nlm")
    return Step(
        name="enhance",
        settings=options.as_record(),
        expected=same_id,
        work=partial(_enhance, options),
        compose=added,
        made=("path", "original", "enhance"),
        origin="original",
    )


def _enhance(options: EnhanceOptions, record: Record, folder: Path, name: str) -> list[Record]:
    if record.get("enhance"):
        raise ImageError(f"{record['path']}: was enhanced before; enhance its original, or leave it as it is")
    image = read_image(record["path"])
    if options.denoise:
        image = non_local_means(image, options.strength)
    if options.profile:
        image = reinhard(image, options.profile)
    if options.clahe:
        image = clahe(image, options.clip, options.tiles)
    path = folder / f"{name}.png"
    write_png(path, image)
    return [{"path": str(path), "original": record["path"], "enhance": options.as_record()}]
