"""JPEG with the coding of a camera's file: its tables and sampling, and its colours before they are clipped to 0–255.

Encoded with the same coding, unchanged pixels stay as they were, nearly so where colours are coded at half the size.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

BLOCK = 8  # side of the squares in which JPEG quantises, pixels

# JFIF 1.02, section 7: RGB to Y, Cb, Cr, and back
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114, 0], [-0.168735892, -0.331264108, 0.5, 128], [0.5, -0.418687589, -0.081312411, 128]]
)
_BACK = np.linalg.inv(_TO_YCC[:, :3])
_TO_RGB = np.hstack([_BACK, -_BACK @ _TO_YCC[:, 3:]])


@dataclass(frozen=True)
class JpegCoding:
    """The coding of a colour JPEG file."""

    tables: tuple[tuple[int, ...], ...]  # quantisation tables, each of 64 steps, in Pillow's order
    sampling: int  # of the colours: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0


def read_coded(path: str | Path) -> tuple[np.ndarray, JpegCoding] | None:
    """Decode a colour JPEG to float32 RGB without clipping its colours to 0–255, and tell its coding.

    Where an image is brighter than white, decoding it to 8-bit RGB and encoding it again changes it; this does not.
    None where the file is not such a JPEG: grey, CMYK or RGB, turned by its EXIF, of another sampling, or damaged.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            sampling = JpegImagePlugin.get_sampling(image)
            turned = image.getexif().get(0x0112, 1) != 1
            if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode != "RGB" or sampling < 0 or turned:
                return None
            coding = JpegCoding(tuple(tuple(image.quantization[key]) for key in sorted(image.quantization)), sampling)
            image.draft("YCbCr", image.size)
            if image.mode != "YCbCr":
                return None
            return cv2.transform(np.asarray(image, np.float32), _TO_RGB), coding
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # such as a JPEG that holds RGB itself


def encode_jpeg(image: np.ndarray, coding: JpegCoding) -> bytes:
    """Encode RGB, shape (height, width, 3), float32 on the scale of 0 to 255, with the coding of another file."""
    ycc = np.clip(np.rint(cv2.transform(image.astype(np.float32), _TO_YCC)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    tables = [list(table) for table in coding.tables]
    Image.frombytes("YCbCr", (ycc.shape[1], ycc.shape[0]), ycc.tobytes()).save(
        stream, "JPEG", qtables=tables, subsampling=coding.sampling
    )
    return stream.getvalue()
