"""A report as one HTML page that stands alone: pictures inside, nothing fetched."""

from __future__ import annotations

import base64

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure

from wbctool import PURPOSE, __version__
from wbctool.errors import ImageError
from wbctool.evaluation.document import Section
from wbctool.imaging.files import read_image
from wbctool.statistics.plots import as_svg

_SIDE = 300  # pixels of a thumbnail, for screens of twice the density


def page_of(document: Section) -> str:
    """Render a report as HTML, the same for the same document, with `page.html.j2`, which escapes every text."""
    loader = jinja2.PackageLoader("wbctool.evaluation", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["svg"] = _svg_uri
    environment.filters["thumbnail"] = _thumbnail_uri
    return environment.get_template("page.html.j2").render(document=document, version=__version__, purpose=PURPOSE)


def _svg_uri(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(as_svg(figure)).decode()}"


def _thumbnail_uri(path: str) -> str:
    """Return a small JPEG of an image as a data URI; nothing where it cannot be read."""
    try:
        image = read_image(path)
    except (ImageError, OSError):
        return ""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
