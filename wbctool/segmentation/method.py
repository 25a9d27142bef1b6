"""Segmentation methods: what each declares, and a method with its parameters chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import get_annotations
from typing import TYPE_CHECKING, Any

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, checked, parameter
from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from numpy import ndarray as Image

    from wbctool.imaging.label_image import Objects
else:  # names that modules of methods can import without NumPy
    Image = Objects = Any

PANEL = "Constants of the published methods"


class Splitting(Parameters):
    """Constants of the marker watershed that splits touching nuclei (EfficientNetV2-S paper, section 4.2.7)."""

    split_peak_share: float = parameter(0.5, "Depth of a marker's peak.", low=0, high=1, form="S", panel=PANEL)
    split_peak_area: float = parameter(127.0, "Least marker.", low=1, high=1e9, form="PX", panel=PANEL)
    split_marker_radius: int = parameter(2, "Dilation of markers.", low=0, high=99, form="PX", panel=PANEL)
    split_cut: float = parameter(0.4, "Depth at which markers are cut.", low=0, high=1, form="S", panel=PANEL)


class Refinement(Parameters):
    """Constants of the refinement that most threshold methods share (EfficientNetV2-S paper, section 4.2.5)."""

    radius: int = parameter(3, "Radius of the opening.", low=0, high=99, form="PX", panel=PANEL)
    iterations: int = parameter(2, "Erosions, then dilations.", low=0, high=99, panel=PANEL)
    min_area: float = parameter(80.0, "Least object.", low=1, high=1e9, form="PX", panel=PANEL)
    smooth: float = parameter(1.0, "σ of a Gaussian on the mask.", low=0, high=99, form="PX", panel=PANEL)


AS_PUBLISHED = "The rule to the letter (inverted)."


class PublishedRule(Refinement):
    """Refinement, and a switch to the published rule of a method where that selects the background."""

    as_published: bool = parameter(False, AS_PUBLISHED)


@dataclass(frozen=True)
class Method:
    """A segmentation method, declared as a constant of a module in `wbctool.segmentation.methods`.

    Attributes:
        name: as `--method` takes it.
        help: one line.
        source: the paper, and where in it.
        find: takes an RGB image (height, width, 3), uint8; the method's parameters; and the constants of the marker
            watershed where touching nuclei are to be split, else None. Returns `Objects`.
        parameters: class of its parameters.
        objects: what it finds; `segment --help` groups methods by it.
        always_splits: splits touching nuclei without `--split-touching`, too.
        prepare: called with the parameters before the first image is read; raises `InputError` where the method
            cannot work.
        jobs: processes where `--jobs` is not given; 0 for one per core.
        not_recorded: parameters that do not change what is found.
    """

    name: str
    help: str
    source: str
    find: Callable[[Image, Any, Splitting | None], Objects]
    parameters: type[Parameters] = Parameters
    objects: str = "nuclei only"
    always_splits: bool = False
    prepare: Callable[[Any], None] | None = None
    jobs: int = 0
    not_recorded: tuple[str, ...] = ()


METHODS = Registry("wbctool.segmentation.methods", Method, "segmentation method")


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method with its parameters.

    Attributes:
        method: the method.
        parameters: of the method's own class.
        splitting: constants of the marker watershed; None where touching nuclei are not split.
    """

    method: Method
    parameters: Parameters
    splitting: Splitting | None

    def find(self, image: Image) -> Objects:
        """Find cells in an RGB image (height, width, 3), uint8."""
        return self.method.find(image, self.parameters, self.splitting)

    def settings(self) -> dict[str, Any]:
        """All values, as `run.json` has them."""
        values = _values(self.parameters) | (_values(self.splitting) if self.splitting else {})
        return {name: value for name, value in values.items() if name not in self.method.not_recorded}

    def constants(self) -> dict[str, Any]:
        """The values that differ from the method's defaults, as records have them."""
        defaults = configure(self.method.name, {}).settings()
        return {k: value for k, value in self.settings().items() if k not in defaults or defaults[k] != value}


def _values(parameters: Parameters) -> dict[str, Any]:
    """Values by name, as JSON has them: those of the class itself first, then those it inherits."""
    values = parameters.model_dump(mode="json")
    return {name: values[name] for name in [*get_annotations(type(parameters)), *values]}


def configure(name: str, values: Mapping[str, Any]) -> ConfiguredMethod:
    """Choose a method and its parameters.

    Args:
        name: of a method.
        values: parameters of the method by name, `split_touching`, and the constants of its marker watershed; None
            and False stand for the default.

    Raises:
        UsageProblem: there is no such method, it does not take a parameter, or a value is out of its bounds.
    """
    method = METHODS.get(name, "--method")
    given = {key: value for key, value in values.items() if value is not None and value is not False}
    split = given.pop("split_touching", False) or method.always_splits
    splitting = {key: given.pop(key) for key in Splitting.model_fields if key in given}
    if splitting and not split:
        raise UsageProblem(f"{_option(next(iter(splitting)))}: needs --split-touching")
    for key in given:
        if key not in method.parameters.model_fields:
            raise UsageProblem(f"{_option(key)}: is not for --method {name}")
    return ConfiguredMethod(
        method,
        checked(method.parameters, given, _option),
        checked(Splitting, splitting, _option) if split else None,
    )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def find_objects(image: Image, method: str = "stain", parameters: Mapping[str, Any] | None = None) -> Objects:
    """Find cells in an image.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        method: name of a method.
        parameters: as `configure` takes them; None for the method's defaults.

    Raises:
        UsageProblem: there is no such method, it does not take a parameter, or a value is out of its bounds.
    """
    return configure(method, parameters or {}).find(image)
