"""A small U-Net, trained on images of several laboratories with made-up stains; the default."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from wbctool.pipeline.parameters import parameter
from wbctool.segmentation.method import Image, Method, Objects, Splitting


class UnetParameters(Splitting):
    """Another network than that of the package."""

    unet_network: str | None = parameter(None, "Another network (.onnx), such as one you trained.", form="FILE")

    @field_validator("unet_network")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path == "":  # as of a shell variable that is not set
            raise ValueError("give a file")
        return path and str(Path(path).absolute())  # as records are read in other folders, too


def prepare(parameters: UnetParameters) -> None:
    """Load the network, so that a file that cannot be used is refused before the first image."""
    from wbctool.segmentation.maps import load

    load(parameters.unet_network)


def find(image: Image, parameters: UnetParameters) -> Objects:
    """Find white cells with nuclei, red cells and platelets; touching ones are always split."""
    from wbctool.segmentation.unet import segment

    return segment(image, parameters.unet_network)


UNET = Method(
    "unet",
    "a small U-Net, trained on many stains",
    "this package; U-Net: Ronneberger et al. 2015",
    find,
    UnetParameters,
    objects="whole white cells, red cells and platelets",
    prepare=prepare,
)
