"""Decoding: every kind of file gives the same picture, every damaged one a clear error."""

import cv2
import numpy as np
import pytest
from PIL import Image

from wbctool.drawing import draw_field
from wbctool.errors import ImageError
from wbctool.imaging.colour import background_colour, cyan, optical_density
from wbctool.imaging.files import decode, read_image, read_labels, write_png


@pytest.fixture(scope="module")
def picture():
    return draw_field("neutrophil", np.random.default_rng(1), size=120)[0][:100]


def save(picture, path, kind):
    image = Image.fromarray(picture)
    if kind == "exif":
        exif = Image.Exif()
        exif[0x112] = 6  # turned a quarter
        image.rotate(90, expand=True).save(path, exif=exif, quality=98)
    elif kind == "rgba":
        image.putalpha(255)
        image.save(path)
    elif kind == "16-bit":
        cv2.imwrite(str(path), picture[..., ::-1].astype(np.uint16) * 257)
    elif kind == "12 of 16 bits":
        cv2.imwrite(str(path), picture[..., ::-1].astype(np.uint16) * 16 + 15)
    elif kind == "cmyk":
        image.convert("CMYK").save(path, quality=98)
    else:
        image.save(path, **({"quality": 98} if path.suffix == ".jpg" else {}))


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("a.png", "rgb", 0),
        ("a.bmp", "rgb", 0),
        ("a.tif", "rgb", 0),
        ("a.jpg", "rgb", 3),
        ("a.jpg", "exif", 3),
        ("a.png", "exif", 0),
        ("a.jpg", "cmyk", 4),
        ("a.tif", "cmyk", 1),
        ("a.png", "rgba", 0),
        ("a.png", "16-bit", 0),
        ("a.tif", "16-bit", 0),
        ("a.png", "12 of 16 bits", 1),
        ("a.webp", "rgb", 12),
    ],
)
def test_every_kind_of_file_gives_the_same_picture(tmp_path, picture, name, kind, tolerance):
    save(picture, tmp_path / name, kind)
    read = read_image(tmp_path / name)
    assert read.shape == picture.shape
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - picture).mean() <= tolerance


def test_grey_images_become_three_equal_channels(tmp_path, picture):
    grey = Image.fromarray(picture).convert("L")
    for name in ("g.png", "g.tif"):
        grey.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert np.array_equal(read, np.repeat(np.asarray(grey)[..., None], 3, axis=2))


def test_transparent_pixels_are_white(tmp_path):
    image = np.zeros((4, 4, 4), np.uint8)
    image[:2, :, :] = (10, 20, 30, 255)
    Image.fromarray(image, "RGBA").save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif", "a.webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_a_truncated_file_is_an_error_and_never_half_a_picture(tmp_path, picture, name, share):
    save(picture, tmp_path / name, "rgb")
    raw = (tmp_path / name).read_bytes()
    with pytest.raises(ImageError, match=f"^{name}: "):
        decode(raw[: int(len(raw) * share)], name)


def test_a_jpeg_with_a_thumbnail_is_still_seen_to_be_truncated(tmp_path, picture):
    small = tmp_path / "t.jpg"
    Image.fromarray(picture[:20, :20]).save(small)
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    raw = (tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(small.read_bytes()) + 2).to_bytes(2, "big") + small.read_bytes()
    whole = raw[:2] + segment + raw[2:]
    assert decode(whole, "a.jpg").shape == picture.shape
    with pytest.raises(ImageError, match="truncated JPEG"):
        decode(whole[:-200], "a.jpg")


@pytest.mark.parametrize("raw", [b"", b"x", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", bytes(1000)])
def test_a_file_that_is_not_an_image_is_named(raw):
    with pytest.raises(ImageError, match=r"^x: "):
        decode(raw, "x")


def test_random_damage_never_crashes(picture):
    rng = np.random.default_rng(0)
    for ending in (".jpg", ".png", ".bmp", ".tif"):
        raw = bytearray(cv2.imencode(ending, picture)[1].tobytes())
        for _ in range(60):
            damaged = bytearray(raw)
            for place in rng.integers(0, len(raw), 8):
                damaged[place] = rng.integers(256)
            try:
                assert decode(bytes(damaged), "x").ndim == 3
            except ImageError as error:
                assert str(error).startswith("x: ")  # noqa: PT017


def test_an_absurdly_large_image_is_refused_before_it_is_decoded(tmp_path):
    header = bytearray(cv2.imencode(".bmp", np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    header[18:26] = (200_000).to_bytes(4, "little") * 2
    header[2:6] = len(header).to_bytes(4, "little")
    with pytest.raises(ImageError, match=r"^x: "):
        decode(bytes(header), "x")


def test_labels_survive_a_round_trip_in_8_and_16_bits(tmp_path):
    for dtype, top in ((np.uint8, 255), (np.uint16, 60_000)):
        labels = np.arange(20, dtype=dtype).reshape(4, 5)
        labels[0, 0] = top
        write_png(tmp_path / "l.png", labels)
        read = read_labels(tmp_path / "l.png", (5, 4))
        assert read.dtype == dtype
        assert np.array_equal(read, labels)
    with pytest.raises(ImageError, match="the mask is 5×4, its image 4×5"):
        read_labels(tmp_path / "l.png", (4, 5))


def test_colour_measures_follow_their_formulas(picture):
    assert np.allclose(cyan(np.array([[[50, 100, 200], [0, 0, 0], [10, 10, 10]]], np.uint8)), [[0.75, 0, 0]])
    background = background_colour(picture)
    assert np.all(background > np.median(picture, axis=(0, 1)) - 25)
    density = optical_density(picture, background)
    assert np.allclose(density, -np.log((picture.astype(float) + 1) / (background + 1)), atol=1e-5)
