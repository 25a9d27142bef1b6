"""Decoding images of every kind to RGB, and writing label images and crops.

In wbctool an image is an RGB array of shape (height, width, 3), uint8.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from wbctool import MAX_PIXELS
from wbctool.errors import ImageError
from wbctool.records.storage import write_bytes

cv2.setNumThreads(1)  # processes work on images in parallel; threads on top slow them down

_PNG = b"\x89PNG\r\n\x1a\n"
# In JPEG's entropy-coded data 0xFF is followed by 0 or a restart number; all else is a marker.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_IN_SCANS = frozenset(b"\xc4\xcc\xda\xdb\xdc\xdd\xfe") | frozenset(range(0xE0, 0xF0))


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file to RGB: grey, palette, CMYK, 16-bit and alpha too, turned as its EXIF says.

    16-bit samples are scaled by the depth that holds their maximum (8, 10, 12, 14 or 16 bits), as cameras store fewer
    bits than the file has. A transparent PNG lies on white, as a smear does.

    Raises:
        ImageError: the file is missing, empty, truncated, damaged, too large or not an image.
    """
    return decode(_read(path), str(path))


def _read(path: str | Path, advice: str = "") -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}{advice}") from None


def decode(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file; see `read_image`."""
    alpha = data.startswith(_PNG) and data[25:26] in (b"\4", b"\6")
    deep = data.startswith(_PNG) and data[24:25] == b"\20"
    deep = deep or data[:4] in (b"II*\0", b"MM\0*") or data[4:8] == b"jP  "
    image, fault = _decoded(data, cv2.IMREAD_UNCHANGED if alpha or deep else cv2.IMREAD_COLOR_RGB)
    if image is not None and deep and not alpha and image.dtype == np.uint8:
        image, fault = _decoded(data, cv2.IMREAD_COLOR_RGB)
        deep = False
    if image is None:
        large = fault.startswith("over")
        advice = "cut it into tiles first" if large else "get the file again from its source"
        raise ImageError(f"{name}: {fault}; {advice}")
    return _as_rgb(image, name) if alpha or deep else image


def decode_unchanged(data: bytes) -> tuple[np.ndarray | None, str]:
    """Decode a mask or a cut-out as it is: grey, BGR or BGRA of any depth, or None; and what is wrong, or ""."""
    return _decoded(data, cv2.IMREAD_UNCHANGED)


def _decoded(data: bytes, flag: int) -> tuple[np.ndarray | None, str]:
    """The array, or None; and what is wrong with the data, else ""."""
    fault = _fault_of(data) if data else "the file is empty"
    if fault:
        return None, fault
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if "CV_IO_MAX" in str(error):
            return None, f"over {MAX_PIXELS:,} pixels"
        reason = str(error.err if getattr(error, "err", None) else error).strip().splitlines()[0][:120]
        return None, f"cannot be decoded ({reason})"
    return image, "" if image is not None else f"not an image that can be decoded ({len(data):,} bytes)"


def _as_rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Convert an array as OpenCV decodes it (grey, BGR or BGRA; any depth) to 8-bit RGB."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: holds {image.dtype} samples; convert it to 8 or 16 bits")
    if image.dtype == np.uint16:
        samples = image[..., :3] if image.ndim == 3 else image
        peak = int(samples.max(initial=0))
        top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if peak < 2**bits)
        # a constant alpha of full scale must not set the depth of the colours
        colours = (samples.astype(np.float32) * (255.0 / top) + 0.5).astype(np.uint8)
        if image.ndim == 3 and image.shape[2] == 4:
            colours = np.dstack([colours, (image[..., 3] >> 8).astype(np.uint8)])
        image = colours
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        raise ImageError(f"{name}: has {image.shape[2]} channels; convert it to RGB")
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255.0
        image = np.round(image[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _fault_of(data: bytes) -> str | None:
    """What is wrong with a JPEG, PNG or BMP that the decoder does not report."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_fault(data)
    if data.startswith(_PNG):
        return _png_fault(data)
    if data.startswith(b"BM") and len(data) >= 26 and len(data) < struct.unpack_from("<I", data, 2)[0]:
        return f"truncated BMP: {len(data):,} of {struct.unpack_from('<I', data, 2)[0]:,} bytes"
    return None


def _jpeg_fault(data: bytes) -> str | None:
    position, kind = 2, 0
    while kind != 0xDA:  # segments before the picture data, with thumbnails inside them
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        if position + 4 > len(data):
            return f"truncated JPEG: {len(data):,} bytes and no picture data"
        if data[position] != 0xFF:
            return f"damaged JPEG: no marker at byte {position:,} of {len(data):,}"
        kind = data[position + 1]
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    while True:
        marker = _JPEG_MARKER.search(data, position)
        if marker is None:
            return f"truncated JPEG: the end is missing after {len(data):,} bytes"
        if marker[1] == b"\xd9":
            return None
        if marker[1][0] not in _JPEG_IN_SCANS:
            return f"damaged JPEG: stray marker at byte {marker.start():,} of {len(data):,}"
        position = marker.end()
        if position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]


def _png_fault(data: bytes) -> str | None:
    position = len(_PNG)
    if data[position : position + 8] != b"\0\0\0\rIHDR":
        return "damaged PNG: no header"
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return f"damaged PNG: wrong checksum at byte {position:,} of {len(data):,}"
        if kind == b"IEND":
            return None
        position = end
    return f"truncated PNG: the end is missing after {len(data):,} bytes"


def read_labels(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image, uint8 or uint16, from a grey PNG; `size` is its (width, height), if known.

    Raises:
        ImageError: the file is missing, damaged, coloured or of another size.
    """
    advice = "; run `wbctool segment` again"
    labels, fault = decode_unchanged(_read(path, advice))
    if labels is None or labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: not a label image ({fault or 'not a grey PNG'}){advice}")
    if size and labels.shape[::-1] != tuple(size):
        width, height = labels.shape[::-1]
        raise ImageError(f"{path}: the mask is {width}×{height}, its image {size[0]}×{size[1]}{advice}")
    return labels


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB or RGBA (height, width, 3 or 4) or labels (height, width) as PNG, whole or not at all."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise ImageError(f"{path}: cannot be encoded as PNG")
    write_bytes(path, data.tobytes())
