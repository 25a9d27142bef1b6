"""Fault campaign: damaged images, strange names, links in circles."""

import io
import os
import random
import shutil
import struct
import zlib

import pytest
from conftest import TINY, contents, in_shell, read_records
from PIL import Image

pytestmark = pytest.mark.slow


def outside(folder):
    """What lies beside the folders that commands may write."""
    return {name: data for name, data in contents(folder, leave=("out.jsonl",)).items() if not name.startswith("out")}


def encoded(image, kind, **how):
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def png_of(width, height, depth=8, colour=2, data=b""):
    """A PNG that claims to be so large, its checksums right."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs():
    """Files that claim to be huge, or nothing at all."""
    yield ".png", png_of(60_000, 60_000, data=zlib.compress(bytes(1000)))
    yield ".png", png_of(2**31 - 1, 2**31 - 1)
    yield ".png", png_of(0, 0)
    yield ".png", png_of(1, 2**31 - 1)
    yield ".png", png_of(30_000, 30_000, 1, 0, zlib.compress(bytes(3751 * 30_000), 9))
    yield ".png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    for width, height in ((60_000, 60_000), (-60_000, 60_000), (0, 10), (1, -(2**31))):
        yield ".bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    for size in (2**20, 2**31):
        tags = [(256, size), (257, size), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, size), (279, 100)]
        body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        yield ".tif", b"II*\0" + struct.pack("<I", 8) + body + bytes(4)
    for size in (0, 65_535):
        frame = struct.pack(">HBHHB", 17, 8, size, size, 3) + b"\x01\x22\x00\x02\x11\x01\x03\x11\x01"
        yield ".jpg", b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\x00\x0c" + bytes(10) + b"\x00\xff\xd9"
    yield ".jpg", b"\xff\xd8" + b"\xff" * 1_000_000 + b"\0"
    yield ".gif", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20)
    yield ".webp", b"RIFF" + struct.pack("<I", 2**31) + b"WEBPVP8 " + bytes(40)
    yield ".jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)
    yield ".ppm", b"P6 99999 99999 255\n" + bytes(100)
    yield ".pgm", b"P5 -5 -5 255\n"


def damaged(source, count, chance):
    """`count` files that are no whole images: suffix and bytes."""
    image = Image.open(source).convert("RGB")
    whole = {
        ".jpg": source.read_bytes(),
        ".png": encoded(image, "PNG"),
        ".tif": encoded(image, "TIFF", compression="tiff_lzw"),
        ".bmp": encoded(image, "BMP"),
        ".webp": encoded(image, "WEBP"),
        ".jp2": encoded(image, "JPEG2000"),
        ".gif": encoded(image, "GIF"),
    }
    made = list(bombs())
    while len(made) < count:
        suffix = chance.choice(sorted(whole))
        data = bytearray(whole[suffix])
        way = chance.randrange(4)
        if way == 0:
            data = data[: chance.randrange(len(data))]
        elif way == 1:
            for _ in range(chance.choice((1, 10, 1000))):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif way == 2:
            data = bytearray(whole[chance.choice(sorted(set(whole) - {suffix}))])  # a wrong suffix, which does no harm
        else:
            data = bytearray(chance.randbytes(chance.choice((0, 1, 100, 10_000))))
        made.append((suffix, bytes(data)))
    return made


def test_damaged_images_each_get_one_record(drawn, run_folder, tmp_path, campaign):
    source = sorted((drawn / "images" / "monocyte").iterdir())[0]
    made = damaged(source, 500, random.Random(9))
    folder = tmp_path / "in" / "monocyte"
    folder.mkdir(parents=True)
    for number, (suffix, data) in enumerate(made):
        (folder / f"{number:03}{suffix}").write_bytes(data)
    shutil.copy(source, folder / "good.jpg")
    before = outside(tmp_path)
    failed = None
    for name, words in {
        "segment": ("segment", tmp_path / "in", "-o", tmp_path / "out-s", "--method", "cyan-otsu"),
        "enhance": ("enhance", tmp_path / "in", "-o", tmp_path / "out-e", "--clahe"),
        "predict": ("predict", run_folder, tmp_path / "in", "--device", "cpu"),
    }.items():
        done = in_shell(*words)
        assert done.code == 4, (name, done.err[-500:])
        assert "Traceback" not in done.err
        assert [record["id"] for record in done.records] == sorted(f"monocyte/{path.name}" for path in folder.iterdir())
        bad = {record["id"] for record in done.records if record["schema"] == "wbctool.error/1"}
        assert "monocyte/good.jpg" not in bad
        assert {f"monocyte/{number:03}{suffix}" for number, (suffix, _) in enumerate(bombs())} <= bad
        assert failed is None or bad == failed, name
        failed = bad
    for words in (("split", tmp_path / "in", "--near-duplicates", "-q"), ("info", tmp_path / "in")):
        done = in_shell(*words)
        assert done.code in (0, 4), done.err
        assert "Traceback" not in done.err
    assert outside(tmp_path) == before
    campaign(f"damaged images ({len(failed)} with an error record, the others can be read)", len(made))


def test_strange_names_go_through_every_command(cli, drawn, tmp_path, campaign):
    classes = {"Stab kernig": "band", "リンパ球\n2": "lymphocyte", "é" * 120 + "<b>": "monocyte"}
    names = ["a b", "q'uo\"te", "new\nline", "тест", "名" * 80, "n" * 246, "-rf", "#1", "100%", "a.b.c", "~", "$HOME"]
    folder = tmp_path / "in put\n"
    for label, source in classes.items():
        (folder / label).mkdir(parents=True)
        paths = sorted((drawn / "images" / source).iterdir())
        for number, name in enumerate(names):
            shutil.copy(paths[number % len(paths)], folder / label / f"{name}.jpg")
    out = tmp_path / "out ñ"
    tiny = [*TINY, "--size", "32", "--epochs", "1", "-q"]
    for words in (
        ("enhance", folder, "-o", out / "e", "--clahe", "-q", "--jobs", 1),
        ("segment", out / "e", "-o", out / "m", "-q", "--jobs", 2, "--overlay", "--coco", out / "c.json"),
        ("split", out / "m", "--ratio", "1/1/1", "-o", out / "s.jsonl", "-q"),
        ("naturalize", out / "s.jsonl", "-o", out / "n", "--add", 1, "-q", "--jobs", 1),
        ("crop", out / "s.jsonl", "-o", out / "cells", "-q", "--jobs", 1),
        ("train", out / "cells", "-o", out / "run", *tiny),
        ("predict", out / "run", out / "cells", "-o", out / "p.jsonl", "-q"),
        ("explain", out / "run", out / "cells", "-o", out / "x", "--split", "all", "--sheet", 2, "-q"),
        ("xgboost-fuse", out / "run", out / "cells", "-o", out / "f", "--morphology", "--rounds", 5, "-q"),
        (
            "evaluate",
            out / "run",
            "--html",
            out / "page.html",
            "--explanations",
            out / "x",
            "--plots",
            out / "plots",
            "-q",
        ),
        ("info", out / "run"),
    ):
        done = cli(*words)
        assert done.code == 0, (words[0], done.err)
    cropped = [record for record in read_records(out / "cells" / "records.jsonl") if "value" in record]
    assert len({record["path"] for record in cropped}) == len(cropped) > 30
    assert {record["label"] for record in cropped} == set(classes)
    assert all((out / "cells" / record["path"]).is_file() for record in cropped)
    assert max(len(name.encode()) for _, folders, files in os.walk(out) for name in (*folders, *files)) <= 255
    campaign("images of strange names through eleven commands", len(classes) * len(names))


def test_links_in_circles_and_to_nothing(drawn, tmp_path, campaign):
    folder = tmp_path / "in"
    shutil.copytree(drawn / "images" / "band", folder / "band")
    for name, target in {
        "up": folder,
        "self": "self",
        "band/again": folder / "band",
        "a": "b",
        "b": "a",
        "gone": "x",
    }.items():
        (folder / name).symlink_to(target)
    (folder / "band" / "loop.jpg").symlink_to("loop.jpg")
    (folder / "band" / "gone.jpg").symlink_to("nothing.jpg")
    done = in_shell("segment", folder, "-o", tmp_path / "out", "-q")
    assert done.code == 4, done.err
    good = [record["id"] for record in done.records if record["schema"] == "wbctool.mask/1"]
    assert len(good) == len(set(good)) == 6
    assert {r["id"] for r in done.records} - set(good) == {"band/loop.jpg", "band/gone.jpg"}
    campaign("links in circles and to nothing", 8)
