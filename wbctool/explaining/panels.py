"""Pictures of explanations: the image, the map, the map over the image; two runs and their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 224  # side of a picture in a panel, pixels
GAP, LINE = 8, 17  # between pictures; height of a line of text
BAR = 34  # width of a colour bar and its figures
GREY = (130, 130, 130)
BACK, INK, RIGHT, WRONG = (255, 255, 255), (30, 30, 30), (0, 110, 40), (190, 0, 0)
HEAT, DIVERGING = "turbo", "RdBu_r"
OUTLINES = {"cell": (255, 255, 255), "nucleus": (0, 0, 0)}
LEAST, MOST = 0.1, 0.6  # weight of the map over the image, where it is 0 and where it is 1


@dataclass
class Tile:
    """One picture of a panel with up to two lines of text under it.

    Attributes:
        picture: RGB, any square, uint8.
        lines: text, each with its colour.
        bar: the colour map, and its ends, drawn beside the picture; none without.
    """

    picture: np.ndarray
    lines: Sequence[tuple[str, tuple[int, int, int]]] = ()
    bar: tuple[str, str, str] | None = None


@dataclass
class Panel:
    """Rows of tiles under a title."""

    title: str
    rows: list[list[Tile]] = field(default_factory=list)

    def drawn(self) -> np.ndarray:
        """RGB, uint8."""
        columns = max(len(row) for row in self.rows)
        text = 2 * LINE
        width = columns * (TILE + GAP) + GAP + (BAR if any(tile.bar for row in self.rows for tile in row) else 0)
        height = LINE + GAP + len(self.rows) * (TILE + text + GAP)
        page = Image.new("RGB", (width, height), BACK)
        draw = ImageDraw.Draw(page)
        draw.text((GAP, GAP // 2), fitting(self.title, width - 2 * GAP), INK, font())
        for r, row in enumerate(self.rows):
            y = LINE + GAP + r * (TILE + text + GAP)
            for c, tile in enumerate(row):
                x = GAP + c * (TILE + GAP)
                page.paste(Image.fromarray(resized(tile.picture)), (x, y))
                if tile.bar:
                    _draw_bar(page, draw, (x + TILE + 4, y), tile.bar)
                for number, (line, colour) in enumerate(tile.lines):
                    draw.text((x, y + TILE + 1 + number * LINE), fitting(line, TILE), colour, font())
        return np.asarray(page)


def _draw_bar(page: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], bar: tuple[str, str, str]) -> None:
    name, low, high = bar
    ramp = np.repeat(colours(name)[::-1][:, None], 8, axis=1)
    page.paste(Image.fromarray(cv2.resize(ramp, (8, TILE), interpolation=cv2.INTER_LINEAR)), at)
    draw.text((at[0] + 11, at[1] - 2), high, INK, font(10))
    draw.text((at[0] + 11, at[1] + TILE - 12), low, INK, font(10))


def heat(map_: np.ndarray) -> np.ndarray:
    """A map, 0 to 1, in colours: RGB, uint8."""
    return colours(HEAT)[(np.clip(map_, 0, 1) * 255 + 0.5).astype(np.uint8)]


def diverging(difference: np.ndarray) -> np.ndarray:
    """A difference, -1 to 1, in blue for less, white for none, red for more: RGB, uint8."""
    return colours(DIVERGING)[(np.clip(difference, -1, 1) * 127.5 + 128).astype(np.uint8)]


def over(image: np.ndarray, map_: np.ndarray, regions: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """A map over its image, the denser the higher it is: RGB, uint8, TILE square."""
    image, map_ = resized(image), cv2.resize(map_, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    weight = (LEAST + (MOST - LEAST) * map_)[..., None]
    mixed = (1 - weight) * image + weight * heat(map_)
    return outlined((mixed + 0.5).astype(np.uint8), regions)


def outlined(picture: np.ndarray, regions: Mapping[str, np.ndarray] | None, bright: bool = False) -> np.ndarray:
    """A picture, TILE square, with the outlines of cell (white; grey on a bright one) and nucleus (black)."""
    drawn = np.ascontiguousarray(picture)
    for name, colour in {**OUTLINES, **({"cell": GREY} if bright else {})}.items():
        if regions and name in regions:
            region = cv2.resize(regions[name], (TILE, TILE), interpolation=cv2.INTER_LINEAR) >= 0.5
            contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, contours, -1, colour, 1)
    return drawn


def resized(picture: np.ndarray) -> np.ndarray:
    """A picture as a tile."""
    if picture.shape[:2] == (TILE, TILE):
        return picture
    way = cv2.INTER_AREA if min(picture.shape[:2]) > TILE else cv2.INTER_LINEAR
    return cv2.resize(picture, (TILE, TILE), interpolation=way)


@lru_cache(maxsize=4)
def colours(name: str) -> np.ndarray:
    """A colour map of 256 steps, (256, 3), uint8."""
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=4)
def font(size: int = 12) -> ImageFont.FreeTypeFont:
    """The typeface that matplotlib brings: the same everywhere."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fitting(text: str, width: int, size: int = 12) -> str:
    """Text in one line that fits a width in pixels, its beginning left out where it does not."""
    text = "".join(character if character.isprintable() else " " for character in text)
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength("…" + text) > width:
        text = text[max(1, len(text) // 16) :]
    return "…" + text


def sheet_of(title: str, panels: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Panels in rows under a title: RGB, uint8."""
    height, width = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    head = LINE + 2 * GAP
    page = Image.new("RGB", (columns * (width + GAP), head + rows * (height + GAP)), BACK)
    ImageDraw.Draw(page).text((GAP, GAP), fitting(title, page.width - 2 * GAP, 14), INK, font(14))
    for number, panel in enumerate(panels):
        at = ((number % columns) * (width + GAP), head + (number // columns) * (height + GAP))
        page.paste(Image.fromarray(panel), at)
    return np.asarray(page)
