"""Panels of explained images, a row of pictures for each method, and sheets of many panels."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wbctool.console import warn
from wbctool.errors import ImageError
from wbctool.explaining import METHODS
from wbctool.explaining.explained_run import ExplainedRun, Explanation
from wbctool.explaining.scores import Regions
from wbctool.imaging.files import read_image, write_png
from wbctool.pipeline.names import safe_name
from wbctool.records import Record

TILE = 224  # side of a tile's picture, pixels
GAP, LINE = 8, 17  # between tiles; height of a line of text
TEXT = 2 * LINE  # height of the text under a tile
BAR = 34  # width of a colour bar and its labels
GREY = (130, 130, 130)
WHITE, INK, GREEN, RED = (255, 255, 255), (30, 30, 30), (0, 110, 40), (190, 0, 0)
HEAT, DIVERGING = "turbo", "RdBu_r"
OUTLINES = {"cell": (255, 255, 255), "nucleus": (0, 0, 0)}
MIN_WEIGHT, MAX_WEIGHT = 0.1, 0.6  # of a map over its image, where it is 0 and where it is 1

CORRECT, INCORRECT, UNLABELLED = "right", "wrong", "unlabelled"  # folders of sheets

Colour = tuple[int, int, int]


@dataclass
class Tile:
    """A picture with up to two lines of text under it."""

    picture: np.ndarray  # RGB, any square, uint8
    lines: Sequence[tuple[str, Colour]] = ()  # text, each line with its colour
    bar: tuple[str, str, str] | None = None  # colour map, lowest and highest label of the colour bar beside it


@dataclass
class Panel:
    """Rows of tiles under a title."""

    title: str
    rows: list[list[Tile]] = field(default_factory=list)

    def draw(self) -> np.ndarray:
        """Return the panel as a picture, RGB, uint8."""
        columns = max(len(row) for row in self.rows)
        has_bar = any(tile.bar for row in self.rows for tile in row)
        size = (columns * (TILE + GAP) + GAP + BAR * has_bar, LINE + GAP + len(self.rows) * (TILE + TEXT + GAP))
        page = Image.new("RGB", size, WHITE)
        ImageDraw.Draw(page).text((GAP, GAP // 2), fit_text(self.title, page.width - 2 * GAP), INK, font())
        for r, row in enumerate(self.rows):
            for c, tile in enumerate(row):
                _draw_tile(page, (GAP + c * (TILE + GAP), LINE + GAP + r * (TILE + TEXT + GAP)), tile)
        return np.asarray(page)


def _draw_tile(page: Image.Image, corner: tuple[int, int], tile: Tile) -> None:
    x, y = corner
    draw = ImageDraw.Draw(page)
    page.paste(Image.fromarray(as_tile(tile.picture)), corner)
    if tile.bar:
        name, low, high = tile.bar
        ramp = np.repeat(colours(name)[::-1][:, None], 8, axis=1)
        ramp = cv2.resize(ramp, (8, TILE), interpolation=cv2.INTER_LINEAR)
        page.paste(Image.fromarray(ramp), (x + TILE + 4, y))
        draw.text((x + TILE + 15, y - 2), high, INK, font(10))
        draw.text((x + TILE + 15, y + TILE - 12), low, INK, font(10))
    for number, (line, colour) in enumerate(tile.lines):
        draw.text((x, y + TILE + 1 + number * LINE), fit_text(line, TILE), colour, font())


def sheet_of(title: str, panels: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Arrange panels in rows under a title: RGB, uint8."""
    height, width = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    top = LINE + 2 * GAP
    page = Image.new("RGB", (columns * (width + GAP), top + rows * (height + GAP)), WHITE)
    ImageDraw.Draw(page).text((GAP, GAP), fit_text(title, page.width - 2 * GAP, 14), INK, font(14))
    for number, panel in enumerate(panels):
        corner = ((number % columns) * (width + GAP), top + (number // columns) * (height + GAP))
        page.paste(Image.fromarray(panel), corner)
    return np.asarray(page)


def heat_map(map_: np.ndarray) -> np.ndarray:
    """Colour a map, 0 to 1: RGB, uint8."""
    return colours(HEAT)[(np.clip(map_, 0, 1) * 255 + 0.5).astype(np.uint8)]


def difference_map(difference: np.ndarray) -> np.ndarray:
    """Colour a difference of maps, -1 (blue) to 0 (white) to 1 (red): RGB, uint8."""
    return colours(DIVERGING)[(np.clip(difference, -1, 1) * 127.5 + 128).astype(np.uint8)]


def overlay(image: np.ndarray, map_: np.ndarray, regions: Regions | None = None) -> np.ndarray:
    """Draw a map over its image, the denser the higher its values: RGB, uint8, TILE square."""
    image, map_ = as_tile(image), cv2.resize(map_, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    weight = (MIN_WEIGHT + (MAX_WEIGHT - MIN_WEIGHT) * map_)[..., None]
    mixed = (1 - weight) * image + weight * heat_map(map_)
    return outlined((mixed + 0.5).astype(np.uint8), regions)


def outlined(picture: np.ndarray, regions: Regions | None, bright: bool = False) -> np.ndarray:
    """Outline the cell (white, or grey on a bright picture) and the nucleus (black) on a picture, TILE square."""
    drawn = np.ascontiguousarray(picture)
    for name, colour in {**OUTLINES, **({"cell": GREY} if bright else {})}.items():
        if regions and name in regions:
            region = cv2.resize(regions[name], (TILE, TILE), interpolation=cv2.INTER_LINEAR) >= 0.5
            contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, contours, -1, colour, 1)
    return drawn


def as_tile(picture: np.ndarray) -> np.ndarray:
    """Scale a picture to TILE square."""
    if picture.shape[:2] == (TILE, TILE):
        return picture
    interpolation = cv2.INTER_AREA if min(picture.shape[:2]) > TILE else cv2.INTER_LINEAR
    return cv2.resize(picture, (TILE, TILE), interpolation=interpolation)


@lru_cache(maxsize=4)
def colours(name: str) -> np.ndarray:
    """Return a colour map of 256 steps, (256, 3), uint8."""
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def font(size: int = 12) -> ImageFont.FreeTypeFont:
    """Return the typeface that comes with matplotlib, the same on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fit_text(text: str, width: int, size: int = 12) -> str:
    """Return text on one line of at most `width` pixels, its beginning cut off where it is longer."""
    text = "".join(character if character.isprintable() else " " for character in text)
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength("…" + text) > width:
        text = text[max(1, len(text) // 16) :]
    return "…" + text


def panel_of(
    record: Record,
    image: np.ndarray,
    regions: Regions | None,
    runs: Sequence[ExplainedRun],
    explanations: Sequence[Explanation],
) -> np.ndarray:
    """Draw the panel of one image as the first run takes it, by that run and the one it is compared with."""
    panel, size, label = Panel(record["id"]), runs[0].size, record.get("label")
    names = [run.run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [run.name for run in runs]
    explained_class = runs[0].run.classes[explanations[0].class_number]
    for number, method in enumerate(explanations[0].maps):
        title = f"{method} for {explained_class}" if METHODS.get(method).depends_on_class else method
        text = [(f"label {label}" if label is not None else "no label", INK)] if number == 0 else []
        original = Tile(outlined(as_tile(image), regions), text)
        maps = [cv2.resize(one.maps[method], (size, size), interpolation=cv2.INTER_LINEAR) for one in explanations]
        overlays = [
            Tile(overlay(image, map_, regions), _caption(name, label, run, explanation, method))
            for name, run, explanation, map_ in zip(names, runs, explanations, maps, strict=True)
        ]
        if len(runs) == 1:
            heat = outlined(as_tile(heat_map(maps[0])), regions)
            overlays[-1].bar = (HEAT, "0", "1")
            panel.rows.append([original, Tile(heat, [(title, INK), (_layers(runs[0], method), INK)]), *overlays])
        else:
            difference = outlined(as_tile(difference_map(maps[1] - maps[0])), regions, bright=True)
            layers = " − ".join(_layers(run, method) for run in reversed(runs))
            lines = [(f"{title}: 2nd − 1st", INK), (layers, INK)]
            panel.rows.append([original, *overlays, Tile(difference, lines, (DIVERGING, "−1", "+1"))])
    return panel.draw()


def _layers(run: ExplainedRun, method: str) -> str:
    return ", ".join(run.explainer.explained_layers(method))


def _caption(
    name: str, label: str | None, run: ExplainedRun, explanation: Explanation, method: str
) -> list[tuple[str, Colour]]:
    """Return what a run predicts, and which fractions of the map lie in nucleus and cell."""
    best = int(explanation.probabilities.argmax())
    predicted = run.run.classes[best]
    colour = INK if label is None else GREEN if predicted == label else RED
    energy = explanation.scores[method].get("energy", {})
    fractions = [f"{region} {energy[region]:.0%}" for region in ("nucleus", "cell") if energy.get(region) is not None]
    return [(f"{name}: {predicted} {explanation.probabilities[best]:.2f}", colour), (", ".join(fractions), INK)]


class Sheets:
    """Random panels of each class, at most `limit` on a sheet; those of correct and incorrect predictions apart."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, record: Record) -> None:
        """Take the panel of a record into account; the hash of its id decides whether a sheet shows it."""
        label = record.get("label")
        folder = UNLABELLED if label is None else CORRECT if record["predicted"] == label else INCORRECT
        key = (folder, record["predicted"] if label is None else label)
        digest = hashlib.blake2b(record["id"].encode(), digest_size=8).digest()
        heapq.heappush(self._kept[key], (-int.from_bytes(digest, "little"), record["id"], record["panel"]))
        self._counts[key] += 1
        if len(self._kept[key]) > self._limit:
            heapq.heappop(self._kept[key])

    def write(self, out: Path, about: str) -> None:
        """Write `right/CLASS.png`, `wrong/CLASS.png` and `unlabelled/CLASS.png`, and remove those of earlier runs."""
        for folder in (CORRECT, INCORRECT, UNLABELLED):
            for old in (out / folder).glob("*.png"):
                old.unlink()
        taken: set[Path] = set()
        for (folder, label), kept in sorted(self._kept.items()):
            panels = []
            for _, _, path in sorted(kept, key=lambda entry: entry[1]):
                try:
                    panels.append(read_image(path))
                except ImageError as error:
                    warn(f"{error}; remove it and run again")
            name = safe_name(label)
            while out / folder / f"{name}.png" in taken:  # labels that differ in characters no file name may have
                name += "_"
            file = out / folder / f"{name}.png"
            taken.add(file)
            title = f"{name}, {folder}: {len(panels)} of {self._counts[folder, label]:,}  ({about})"
            if panels:
                write_png(file, sheet_of(title, panels))
