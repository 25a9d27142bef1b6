"""The layout of the package: imports go one way, stages do not know each other, files stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wbctool"
# From the bottom up. A module imports from its own package and from lower layers only; packages of one layer do not
# import each other, so no stage knows another stage.
LAYERS = {
    "errors": {"errors"},
    "records": {"records"},
    "hardware and terminal": {"device", "console"},
    "images": {"imaging"},
    "inputs": {"inputs"},
    "engine": {"pipeline"},
    "shared by stages": {"measuring", "statistics"},
    "models": {"modeling"},
    "stages": {
        *("enhancing", "segmentation", "cropping", "splitting", "naturalizing", "drawing"),
        *("training", "inference", "evaluation", "explaining", "fusing"),
    },
    "commands": {"commands"},
    "app": {"cli"},
}
LAYER_OF = {package: number for number, packages in enumerate(LAYERS.values()) for package in packages}
MODULES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in LAYER_OF]


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path):
    """The packages of wbctool that a module imports anywhere: at its top, in functions, under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "wbctool":
                yield from (name.name for name in node.names if name.name in LAYER_OF)
            elif (node.module or "").startswith("wbctool."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("wbctool."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = package_of(path)
    for other in imported_packages(path):
        assert other == own or LAYER_OF[other] < LAYER_OF[own], f"{own} imports {other}"


def test_every_package_has_a_layer():
    assert {package_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"} == set(LAYER_OF)


def test_few_modules_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_files_stay_short():
    for path in [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 420, path
