"""Segmentation methods: what each declares, and the parameters that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import get_annotations
from typing import TYPE_CHECKING, Any

from wbctool.errors import UsageProblem
from wbctool.pipeline.parameters import Parameters, checked, option_name, parameter
from wbctool.pipeline.registry import Registry

if TYPE_CHECKING:
    from numpy import ndarray as Image

    from wbctool.imaging.label_image import Objects
else:  # names that modules of methods can import without NumPy
    Image = Objects = Any

PANEL = "Constants of the published methods"
AS_PUBLISHED = "The rule to the letter (inverted)."


class Splitting(Parameters):
    """The marker watershed that splits touching nuclei (EfficientNetV2-S paper, section 4.2.7)."""

    split_touching: bool = parameter(False, "Marker watershed; stain and unet always split touching cells.")
    split_peak_share: float = parameter(0.5, "Depth of a marker's peak.", low=0, high=1, form="S", panel=PANEL)
    split_peak_area: float = parameter(127.0, "Least marker.", low=1, high=1e9, form="PX", panel=PANEL)
    split_marker_radius: int = parameter(2, "Dilation of markers.", low=0, high=99, form="PX", panel=PANEL)
    split_cut: float = parameter(0.4, "Depth at which markers are cut.", low=0, high=1, form="S", panel=PANEL)


class Refinement(Splitting):
    """The refinement that most threshold methods share (EfficientNetV2-S paper, section 4.2.5)."""

    radius: int = parameter(3, "Radius of the opening.", low=0, high=99, form="PX", panel=PANEL)
    iterations: int = parameter(2, "Erosions, then dilations.", low=0, high=99, panel=PANEL)
    min_area: float = parameter(80.0, "Least object.", low=1, high=1e9, form="PX", panel=PANEL)
    smooth: float = parameter(1.0, "σ of a Gaussian on the mask.", low=0, high=99, form="PX", panel=PANEL)


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
        find: takes an RGB image (height, width, 3), uint8, and the method's parameters; returns `Objects`.
        parameters: class of its parameters.
        objects: what it finds; `segment --help` groups methods by it.
        prepare: called with the parameters before the first image is read; raises `InputError` where the method
            cannot work.
        jobs: processes where `--jobs` is not given; 0 for one per core.
        not_recorded: parameters that do not change what is found.
    """

    name: str
    help: str
    source: str
    find: Callable[[Image, Any], Objects]
    parameters: type[Parameters] = Parameters
    objects: str = "nuclei only"
    prepare: Callable[[Any], None] | None = None
    jobs: int = 0
    not_recorded: tuple[str, ...] = ()

    def configured(self, values: Mapping[str, Any]) -> Parameters:
        """Return parameters with these values by name; None and False stand for the default.

        Raises:
            UsageProblem: the method does not take a parameter, or a value is out of its bounds.
        """
        changed = {key: value for key, value in values.items() if value is not None and value is not False}
        for key in changed:
            if key not in self.parameters.model_fields:
                raise UsageProblem(f"{option_name(key)}: is not for --method {self.name}")
        parameters = checked(self.parameters, changed, option_name)
        for key in changed:
            if key in Splitting.model_fields and not getattr(parameters, "split_touching", False):
                raise UsageProblem(f"{option_name(key)}: needs --split-touching")
        return parameters

    def settings(self, parameters: Parameters) -> dict[str, Any]:
        """Return all values, as `run.json` has them: those of the class itself first, then those it inherits."""
        left_out = {"split_touching", *self.not_recorded}
        if not getattr(parameters, "split_touching", False):
            left_out |= Splitting.model_fields.keys()
        values = parameters.model_dump(mode="json", exclude=left_out)
        names = [name for parent in type(parameters).__mro__ for name in get_annotations(parent)]
        return {name: values[name] for name in names if name in values}

    def constants(self, parameters: Parameters) -> dict[str, Any]:
        """Return the values that differ from the defaults, as records have them."""
        defaults = self.settings(self.parameters())
        return {k: value for k, value in self.settings(parameters).items() if (k, value) not in defaults.items()}


METHODS = Registry("wbctool.segmentation.methods", Method, "segmentation method")


def find_objects(image: Image, method: str = "unet", parameters: Mapping[str, Any] | None = None) -> Objects:
    """Find cells in an image.

    Args:
        image: RGB, shape (height, width, 3), uint8.
        method: name of a method.
        parameters: of the method, by name, that are not to have their default.

    Raises:
        UsageProblem: there is no such method, it does not take a parameter, or a value is out of its bounds.
    """
    chosen = METHODS.get(method, "--method")
    return chosen.find(image, chosen.configured(parameters or {}))
