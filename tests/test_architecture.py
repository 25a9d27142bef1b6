"""The house: imports go one way, files stay short."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "wbctool"
# Each room may import from itself and from rooms on floors below it.
FLOORS = [
    {"errors"},
    {"records", "names"},
    {"selection", "outputs"},
    {"runs"},
    {"folders", "console", "composites", "cells", "parallel"},
    {"steps", "imaging", "device"},
    {"enhancing", "segmentation", "cropping", "splitting", "naturalizing", "evaluation", "measuring"},
    {"drawing", "preparation", "dataset"},
    {"modeling", "training", "explaining", "fusing"},
    {"commands"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SAME_FLOOR_ALLOWED = {("training", "modeling"), ("explaining", "modeling"), ("fusing", "modeling")}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "wbctool":
            yield from (name.name for name in node.names if name.name in FLOOR)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wbctool."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("wbctool."))


def test_imports_go_one_way():
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        for other in imports(path):
            below = FLOOR[other] < FLOOR[room] or other == room or (room, other) in SAME_FLOOR_ALLOWED
            assert below, f"{path.relative_to(PACKAGE)} imports {other}"


def test_files_stay_short():
    for path in [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 420, path
