"""Fault campaign: mutated records, malicious records and labels, altered models."""

import json
import random
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import TINY, contents, read_records, write_records

pytestmark = pytest.mark.slow


def outside(folder):
    """Return the files beside the folders that commands may write."""
    return {name: data for name, data in contents(folder, leave=("out.jsonl",)).items() if not name.startswith("out")}


VALUES = (
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    "x",
    "\ud800",
    "../../evil",
    "/etc/passwd",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
)


def mutated(line, chance):
    """Return a line of a record file with a random fault; by chance it may still be valid."""
    kind = chance.randrange(6)
    if kind == 0:
        cut = sorted(chance.randrange(len(line) + 1) for _ in range(2))
        return line[: cut[0]] + line[cut[1] :]
    if kind == 1:
        raw = bytearray(line.encode())
        for _ in range(chance.choice((1, 5))):
            raw[chance.randrange(len(raw))] = chance.choice(b'"{}[],:0e-\\nul\x00\xff')
        return bytes(raw).replace(b"\n", b" ")
    if kind == 2:
        return chance.choice(
            ("[" * 5000, '{"a":' * 900, "null", '"x"', "1", "NaN", '{"schema":"wbctool.mask/1"}', "{}")
        )
    record = json.loads(line)
    container = record
    for _ in range(chance.randrange(4)):  # somewhere within
        inner = [
            value
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, dict | list) and value
        ]
        container = chance.choice(inner) if inner else container
    key = chance.choice(sorted(container)) if isinstance(container, dict) else chance.randrange(len(container))
    if kind == 3:
        del container[key]
    else:
        container[key] = chance.choice(VALUES)
    return json.dumps(record)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("crop", 3300),
        ("split", 3000),
        ("enhance", 500),
        ("naturalize", 500),
        ("evaluate", 1500),
        ("info", 1000),
        ("train", 100),
        ("explain", 100),
    ],
)
def test_mutated_record_lines_are_records_or_errors(cli, masks, cells, run_folder, tmp_path, campaign, name, count):
    chance = random.Random(name)
    folder = {"train": cells, "explain": cells}.get(name, masks)
    if name == "evaluate":
        lines = [json.dumps(record) for record in read_records(run_folder / "predictions.jsonl")]
    else:
        lines = []
        for record in read_records(folder / "records.jsonl"):
            paths = {key: str((folder / record[key]).resolve()) for key in ("path", "mask", "source") if key in record}
            lines.append(json.dumps({**record, **paths, "split": chance.choice(("train", "val"))}))
    made = []
    for number in range(count):  # unique ids, so that they are not refused for these
        record = json.loads(chance.choice(lines))
        made.append(mutated(json.dumps({**record, "id": f"{number}/{record['id']}"}), chance))
    made = [line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass") for line in made]
    before = outside(tmp_path)
    words = {
        "crop": ("crop", "-", "-o", tmp_path / "out", "--size", 16, "--jobs", 1),
        "split": ("split", "-"),
        "enhance": ("enhance", "-", "-o", tmp_path / "out", "--clahe", "--jobs", 1),
        "naturalize": ("naturalize", "-", "-o", tmp_path / "out", "--add", 1, "--jobs", 1),
    }
    if name in words:
        file = tmp_path / "out.jsonl"
        file.write_bytes(b"\n".join([*(line.encode() for line in lines), *made]) + b"\n")
        done = cli(*[file if word == "-" else word for word in words[name]])
        assert done.code in (0, 3, 4), done.err[-600:]
        assert "bug:" not in done.err, done.err[-600:]
        assert "unexpected" not in done.out, [line for line in done.out.splitlines() if "unexpected" in line][:1]
        if name != "naturalize":
            assert len({json.loads(line)["id"] for line in done.out.splitlines()}) > len(lines)
        campaign(f"mutated record lines through {name}", count)
        return
    per = 5  # mutated lines per command, which may refuse all for one of them
    codes = set()
    for number, begin in enumerate(range(0, count, per)):
        file = tmp_path / "out.jsonl"
        good = [line.encode() for line in lines]
        file.write_bytes(b"\n".join([*good, *made[begin : begin + per]]) + b"\n")
        words = {
            "evaluate": ("evaluate", file, "--json", "--quiet"),
            "info": ("info", file),
            "train": ("train", file, "-o", tmp_path / f"out-{number}", *TINY, "--size", 16, "--epochs", 0, "-q"),
            "explain": (
                "explain",
                run_folder,
                file,
                "-o",
                tmp_path / f"out-{number}",
                "--no-panels",
                "--split",
                "all",
                "-q",
            ),
        }
        done = cli(*words[name])
        codes.add(done.code)
        assert done.code in (0, 3, 4), (done.code, done.err[-600:], made[begin : begin + per])
        assert "bug:" not in done.err, (done.err[-600:], made[begin : begin + per])
        for folder in tmp_path.glob("out-*"):
            shutil.rmtree(folder)
    assert codes & {3, 4} or name == "info"  # which counts what is damaged
    assert outside(tmp_path) == before
    campaign(f"mutated record lines through {name}", count)


def test_records_cannot_write_outside(cli, masks, tmp_path, campaign):
    chance = random.Random(1)
    record = next(r for r in read_records(masks / "records.jsonl") if r["cells"])
    record |= {key: str((masks / record[key]).resolve()) for key in ("path", "mask")}
    parts = (
        "..",
        ".",
        "~",
        "",
        "a",
        "/",
        "//",
        "\\..\\",
        "etc",
        "\u202e",
        "%2e%2e",
        "a\nb",
        "CON",
        " ",
        "-rf",
        "$(touch x)",
    )
    ids = ["/".join(chance.choices(parts, k=chance.randrange(1, 6))) for _ in range(300)]
    file = write_records(tmp_path / "out.jsonl", [{**record, "id": name or "x"} for name in ids])
    (tmp_path / "home").mkdir()
    before = outside(tmp_path)
    for words in (
        ("crop", file, "-o", tmp_path / "out" / "c", "--size", 16, "--jobs", 1),
        ("segment", file, "-o", tmp_path / "out" / "s", "--method", "cyan-otsu", "--jobs", 1),
        ("enhance", file, "-o", tmp_path / "out" / "e", "--clahe", "--jobs", 1),
    ):
        done = cli(*words)
        assert done.code in (0, 4), done.err
        assert "bug:" not in done.err
        for line in done.out.splitlines():
            made = json.loads(line)
            if made["schema"] != "wbctool.error/1":
                written = made["mask"] if words[0] == "segment" else made["path"]
                assert Path(written).resolve().is_relative_to((tmp_path / "out").resolve())
    assert outside(tmp_path) == before
    campaign("records whose ids point elsewhere, through crop, segment and enhance", 3 * len(ids))


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.handlers = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]


def test_names_and_labels_do_not_become_html(cli, run_folder, tmp_path, campaign):
    payloads = [
        f"{front}{body}{back}"
        for front in ("", '"', "'", "-->", "</title>", "</style>", "]]>", "&lt;")
        for body, back in (
            ("<script>alert(1)</script>", ""),
            ("<img src=x onerror=alert(1)>", ""),
            ("<svg/onload=alert(1)>", "<"),
            ('" onmouseover="alert(1)', '"'),
            ("<iframe src=javascript:alert(1)>", "&"),
        )
    ]
    rows = read_records(run_folder / "predictions.jsonl")
    shown = []
    for number, text in enumerate(payloads):
        row = rows[number % len(rows)]
        names = [f"{text}{k}" for k in range(2)]
        shown.append({
            **row, "id": f"{number}{text}", "path": f"/x/{number}{text}.jpg", "group": text, "run": text,
            "label": names[0], "predicted": names[1], "confidence": 0.9, "split": "test",
            "probabilities": {names[0]: 0.1, names[1]: 0.9},
        })  # fmt: skip
        shown.append({**shown[-1], "id": f"b{number}", "label": names[1]})
    count = 0
    for begin in range(0, len(shown), 8):
        file = write_records(tmp_path / "p.jsonl", shown[begin : begin + 8])
        done = cli("evaluate", file, "--html", tmp_path / "page.html", "-q")
        assert done.code == 0, done.err
        page = Page()
        page.feed((tmp_path / "page.html").read_text())
        assert not {"script", "iframe", "object", "embed"} & set(page.tags), payloads[begin // 2 :][:4]
        assert not page.handlers, payloads[begin // 2 :][:4]
        count += 4
    campaign("names and labels that are HTML, on pages", count)


def test_altered_models_are_refused(cli, run_folder, cells, tmp_path, campaign):
    chance = random.Random(3)
    whole = (run_folder / "weights.safetensors").read_bytes()
    model = json.loads((run_folder / "model.json").read_text())
    header = struct.unpack("<Q", whole[:8])[0]
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    weights = [whole[: chance.randrange(len(whole))] for _ in range(10)]
    for _ in range(20):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        weights.append(bytes(data))
    weights += [struct.pack("<Q", size) + whole[8:] for size in (0, 2**63, 2**40, header + 8)]
    weights += [whole + bytes(1000), b"", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."]
    for data in weights:
        (run / "weights.safetensors").write_bytes(data)
        done = cli("predict", run, cells, "--device", "cpu", "-q")
        assert done.code == 3, done.err
        assert "weights.safetensors" in done.err
        assert "Traceback" not in done.err
    (run / "weights.safetensors").write_bytes(whole)
    altered = 0
    keys = [key for key in model if key != "checksums"]
    large = {
        "dense": [10**9],
        "size": 10**9,
        "backbone_args": {"num_classes": 5},
        "classes": ["a"] * 100_000,
        "neighbours": [5, 10**9],
    }
    hostile = [*((key, value) for key in keys for value in VALUES[::2] if value != model[key]), *large.items()]
    hostile += [("backbone_args", {key: "/etc/passwd"}) for key in ("checkpoint_path", "pretrained_cfg", "cache_dir")]
    for key, value in hostile:
        (run / "model.json").write_text(json.dumps({**model, key: value}))
        done = cli("predict", run, cells, "--device", "cpu", "-q")
        assert done.code in (0, 3), (key, value, done.err)
        assert "bug:" not in done.err, (key, value, done.err)
        altered += 1
    assert not (tmp_path / "pwned").exists()
    assert not Path("pwned").exists()
    campaign("run folders with altered weights", len(weights))
    campaign("run folders with altered model.json", altered)
