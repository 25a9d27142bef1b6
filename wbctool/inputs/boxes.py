"""Boxes drawn by experts: Pascal VOC, YOLO and COCO files as boxes by image."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wbctool.errors import InputError, UsageProblem
from wbctool.records import KINDS

IGNORED = "ignore"
# class names that need no mapping, in lower case
_KNOWN = {
    **dict.fromkeys(("wbc", "white blood cell", "white blood cells", "leukocyte", "leukocytes"), "wbc"),
    **dict.fromkeys(("rbc", "red blood cell", "red blood cells", "erythrocyte", "erythrocytes"), "rbc"),
    **dict.fromkeys(("platelet", "platelets", "plt", "thrombocyte", "thrombocytes"), "platelet"),
    "nucleus": IGNORED,  # which `segment --coco` writes beside the cell
}


@dataclass(frozen=True)
class Box:
    """A box of a kind of `KINDS`: left, top, right and bottom, in pixels from the upper left corner of the image."""

    kind: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Its area, pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        common = max(0.0, width) * max(0.0, height)
        return common / (self.area + other.area - common) if common else 0.0


@dataclass
class BoxFiles:
    """Boxes by relative path of the image, without suffix; YOLO files hold fractions of an image's size.

    Attributes:
        form: `VOC`, `YOLO` or `COCO`.
        files: one file per image, of VOC and YOLO.
        boxes: class and corners of each box, of COCO.
        kinds: kind of a class, or `ignore`, where the name does not say it.
        names: of the classes of YOLO, by their number.
    """

    form: str
    files: dict[str, Path] = field(default_factory=dict)
    boxes: dict[str, list[tuple[str, tuple[float, ...]]]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()

    def stems(self) -> list[str]:
        """Relative paths of all images, without suffix."""
        return list(self.files or self.boxes)

    def of(self, stem: str, size: Sequence[int]) -> list[Box]:
        """Return the boxes of an image of (width, height) pixels.

        Raises:
            InputError: its file cannot be read.
            UsageProblem: nothing says which kind a class is.
        """
        if self.form == "COCO":
            where, entries = stem, iter(self.boxes[stem])
        else:
            where = str(self.files[stem])
            entries = _voc(self.files[stem]) if self.form == "VOC" else self._yolo(self.files[stem], size)
        found = []
        for name, corners in entries:
            kind = self._kind(name)
            if kind != IGNORED:
                if not all(map(math.isfinite, corners)) or corners[0] >= corners[2] or corners[1] >= corners[3]:
                    raise InputError(f"{where}: a box of {name} has no area, or is no number; fix or remove it")
                found.append(Box(kind, *corners))
        return found

    def _kind(self, name: str) -> str:
        kind = self.kinds.get(name) or _KNOWN.get(name.lower())
        if kind is None:
            raise UsageProblem(
                f"--kinds: class {name} has no known kind; add {name}=wbc, {name}=rbc, {name}=platelet or {name}=ignore"
            )
        return kind

    def _yolo(self, file: Path, size: Sequence[int]) -> Iterator[tuple[str, tuple[float, ...]]]:
        width, height = size
        for number, line in enumerate(_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                index, (x, y, w, h) = _yolo_values(line)
            except ValueError:
                raise InputError(
                    f"{file} line {number}: not CLASS X Y WIDTH HEIGHT in fractions of the image; fix or remove it"
                ) from None
            name = self.names[index] if 0 <= index < len(self.names) else str(index)
            yield name, ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)


def parse_kinds(text: str | None) -> dict[str, str]:
    """Read `WBC=wbc,RBC=rbc,stain=ignore` as kinds by class."""
    kinds = {}
    for item in filter(None, (text or "").split(",")):
        name, equals, kind = (part.strip() for part in item.rpartition("="))
        if not equals or not name or kind not in (*KINDS, IGNORED):
            raise UsageProblem(f"--kinds {text}: write it as WBC=wbc,RBC=rbc; kinds are {', '.join(KINDS)}, {IGNORED}")
        kinds[name] = kind
    return kinds


def find_boxes(truth: Path, kinds: Mapping[str, str] | None = None) -> BoxFiles | None:
    """Find files of boxes: a COCO file, or a folder of VOC (`.xml`) or YOLO (`.txt`) files; None where there are none.

    Raises:
        InputError: a COCO file cannot be read, or two of its images have the same name.
    """
    if truth.is_file():
        return _coco(truth, kinds or {}) if truth.suffix.lower() == ".json" else None
    for form, suffix in (("VOC", ".xml"), ("YOLO", ".txt")):
        files: dict[str, Path] = {}
        for path in sorted(truth.rglob(f"*{suffix}")):
            relative = PurePosixPath(path.relative_to(truth).as_posix())
            hidden = any(part.startswith(".") for part in relative.parts)
            if path.is_file() and not hidden and path.name != "classes.txt":
                files[str(relative.with_suffix(""))] = path
        if files and (form == "VOC" or any(map(_is_yolo, files.values()))):
            return BoxFiles(form, files, kinds=kinds or {}, names=_class_names(truth) if form == "YOLO" else ())
    return None


def _is_yolo(file: Path) -> bool:
    """Whether the first line of a text file is a class and four numbers, or more."""
    try:
        line = next((line for line in _text(file).splitlines() if line.strip()), "")
        return len([float(value) for value in line.split()]) >= 5
    except (InputError, ValueError):
        return False


def _yolo_values(line: str) -> tuple[int, list[float]]:
    """Class, and centre and size in fractions of the image; a confidence may follow. `ValueError` for another line."""
    number, *values = line.split()
    fractions = [float(value) for value in values[:4]]
    if len(values) not in (4, 5) or not all(0 <= value <= 1 for value in fractions):
        raise ValueError(line)
    return int(number), fractions


def _class_names(folder: Path) -> list[str]:
    """Names of YOLO's classes, from `classes.txt` in the folder or beside it."""
    for file in (folder / "classes.txt", folder.parent / "classes.txt"):
        if file.is_file():
            return [line.strip() for line in _text(file).splitlines() if line.strip()]
    return []


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; check the truth") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not text in UTF-8; check the truth") from None


def _voc(file: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    try:
        for entry in ET.fromstring(file.read_bytes()).iter("object"):
            corners = (float(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            yield entry.findtext("name", "").strip(), tuple(corners)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; check the truth") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a Pascal VOC file ({error}); fix or remove it") from None


def _coco(file: Path, kinds: Mapping[str, str]) -> BoxFiles:
    try:
        content: dict[str, Any] = json.loads(_text(file))
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        stems = {i["id"]: str(PurePosixPath(str(i["file_name"])).with_suffix("")) for i in content["images"]}
        boxes: dict[str, list[tuple[str, tuple[float, ...]]]] = {stem: [] for stem in stems.values()}
        for entry in content["annotations"]:
            if not entry.get("iscrowd"):  # a region of many cells
                x, y, width, height = map(float, entry["bbox"])
                boxes[stems[entry["image_id"]]].append((names[entry["category_id"]], (x, y, x + width, y + height)))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{file}: not a COCO file of boxes ({error!r}); give another one") from None
    if len(boxes) < len(stems):
        twice = next(stem for stem, count in Counter(stems.values()).items() if count > 1)
        raise InputError(f"{file}: two images are {twice} but for the suffix; give them different names")
    return BoxFiles("COCO", boxes=boxes, kinds=kinds)
