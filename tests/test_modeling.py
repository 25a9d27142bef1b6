"""The classifier against plain references; weights that are read, and those that are refused; devices."""

import json
import pickle
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wbctool.device import autocast, free_memory, pick_device, pick_precision
from wbctool.errors import DeviceError, InputError, UsageProblem
from wbctool.modeling import run_folder
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.heads import NearestNeighbours
from wbctool.modeling.weights import load_pretrained, read_state


def architecture(**changes):
    return Architecture(
        **{"backbone": "resnet10t", "classes": ("a", "b", "c"), "size": 64, "attention": "cbam", **changes}
    )


class PlainCbam(nn.Module):
    """CBAM as in Woo et al. 2018, equations 2 and 3, written out."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        n, c = x.shape[:2]
        average, maximum = x.mean((2, 3)), x.flatten(2).max(2).values
        gate = sum(self.expand(torch.relu(self.reduce(v))) for v in (average, maximum))
        x = x * torch.sigmoid(gate).view(n, c, 1, 1)
        maps = torch.stack([x.mean(1), x.max(1).values], 1)
        return x * torch.sigmoid(self.norm(self.spatial(maps)))


def test_cbam_equals_a_plain_reference():
    torch.manual_seed(0)
    model = Classifier(architecture()).double().eval()
    module, plain = model.attention, PlainCbam(model.backbone.num_features).double().eval()
    with torch.no_grad():
        for layer, source in ((plain.reduce, module.channel.fc1), (plain.expand, module.channel.fc2)):
            layer.weight.copy_(source.weight[:, :, 0, 0])
            layer.bias.copy_(source.bias)
        plain.spatial.weight.copy_(module.spatial.conv.conv.weight)
        x = torch.randn(3, model.backbone.num_features, 5, 5, dtype=torch.float64)
        assert torch.allclose(module(x), plain(x), atol=1e-12)


def test_the_classifier_is_normalisation_backbone_attention_and_head():
    model = Classifier(architecture(attention="none", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    scaled = images / 255
    normal = (scaled - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / torch.tensor([0.2, 0.25, 0.5]).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(model(images), model.head(model.backbone(normal)), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vit_tiny_patch16_224", "size": 224}, "--attention none"),
        ({"backbone": "resnet50x"}, "near it: .*resnet50"),
        ({"backbone_args": {"depth": 3}}, "--backbone resnet10t"),
    ],
)
def test_a_model_that_cannot_be_built_is_a_usage_error(changes, message):
    with pytest.raises(UsageProblem, match=message):
        Classifier(architecture(**changes))


def test_freezing_leaves_the_new_parts_and_the_batch_statistics():
    model = Classifier(architecture())
    model.unfreeze("none")
    model.train()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in model.named_parameters() if n.startswith(("attention.", "head."))}
    before = model.backbone.bn1.running_mean.clone()
    model(torch.rand(4, 3, 64, 64) * 255)
    assert torch.equal(before, model.backbone.bn1.running_mean)
    model.unfreeze("all")
    model.train()
    model(torch.rand(4, 3, 64, 64) * 255)
    assert all(p.requires_grad for p in model.parameters())
    assert not torch.equal(before, model.backbone.bn1.running_mean)


def pretrained(tmp_path, suffix, classes=7):
    import timm

    torch.manual_seed(5)
    state = timm.create_model("resnet10t", num_classes=classes).state_dict()
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    return path, state


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classes", [3, 7])
def test_pretrained_weights_fill_the_backbone_and_never_the_last_layer(tmp_path, suffix, classes):
    path, state = pretrained(tmp_path, suffix, classes)
    model = Classifier(architecture())
    head = model.head[-1].weight.clone()
    load_pretrained(model, str(path))
    assert torch.equal(model.backbone.conv1[0].weight, state["conv1.0.weight"])
    assert torch.equal(model.backbone.bn1.running_var, state["bn1.running_var"])
    assert torch.equal(model.head[-1].weight, head)


def test_weights_of_another_backbone_are_refused(tmp_path):
    path, _ = pretrained(tmp_path, ".safetensors")
    with pytest.raises(InputError, match="mobilenetv2_035"):
        load_pretrained(Classifier(architecture(backbone="mobilenetv2_035")), str(path))


class Malicious:
    def __reduce__(self):
        return (print, ("unpickled!",))


def test_a_pickle_is_never_loaded(tmp_path, capsys):
    torch.save({"state_dict": Malicious()}, tmp_path / "malicious.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious()))
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "text.pth").write_text("hello")
    for name in ("malicious.pth", "raw.pth", "noise.safetensors", "text.pth", "missing.pth"):
        with pytest.raises(InputError, match=name):
            read_state(tmp_path / name)
    assert "unpickled!" not in capsys.readouterr().out


def test_without_a_network_imagenet_says_the_two_ways_out_and_soon(cli, cells, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    done = cli("train", cells, "-o", tmp_path / "r", "--backbone", "resnet18", "--size", "32", "--device", "cpu")
    assert done.code == 3
    assert "--weights FILE.safetensors" in done.err
    assert "--weights none" in done.err
    assert time.monotonic() - start < 20
    assert len(done.err.strip().splitlines()) <= 3


def test_a_run_folder_can_be_written_read_and_moved(tmp_path):
    torch.manual_seed(1)
    model = Classifier(architecture()).eval()
    run_folder.save(tmp_path / "a", model, {"preparation": {}})
    (tmp_path / "a").rename(tmp_path / "b")
    run = run_folder.load(tmp_path / "b", torch.device("cpu"))
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.allclose(run.model(images), model(images), atol=1e-6)
    info = json.loads((tmp_path / "b" / "model.json").read_text())
    assert info["parameters"] == sum(p.numel() for p in model.parameters())
    assert info["classes"] == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["no folder", "no model", "bad json", "no classes", "bad weights", "other weights"])
def test_a_damaged_run_folder_is_named(tmp_path, damage):
    run = tmp_path / "run"
    if damage != "no folder":
        run_folder.save(run, Classifier(architecture()), {})
    if damage == "no model":
        (run / "model.json").unlink()
    elif damage == "bad json":
        (run / "model.json").write_text("{")
    elif damage == "no classes":
        info = json.loads((run / "model.json").read_text())
        del info["classes"]
        (run / "model.json").write_text(json.dumps(info))
    elif damage == "bad weights":
        (run / "weights.safetensors").write_bytes(b"x" * 100)
    elif damage == "other weights":
        save_file({"x": torch.zeros(1)}, run / "weights.safetensors")
    with pytest.raises(InputError, match="run"):
        run_folder.load(run, torch.device("cpu"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("attention", "se"), ("size", 0), ("dense", [0]), ("std", [0, 1, 1]), ("mean", [0.5]), ("wings", 2)],
)
def test_an_invalid_architecture_raises(key, value):
    with pytest.raises(ValueError, match=key):
        Architecture(**{"backbone": "resnet10t", "classes": ("a", "b"), key: value})


def test_an_unknown_model_type_raises(tmp_path):
    run_folder.save(tmp_path / "run", Classifier(architecture()), {})
    info = json.loads((tmp_path / "run" / "model.json").read_text())
    (tmp_path / "run" / "model.json").write_text(json.dumps({**info, "ensemble": "vote", "members": []}))
    with pytest.raises(InputError, match="ensemble"):
        run_folder.load(tmp_path / "run", torch.device("cpu"))


def test_neighbours_vote_under_autocast_as_in_float32():
    torch.manual_seed(0)
    head = NearestNeighbours(16, 3, 5, 0)
    head.store(torch.randn(40, 16), torch.randint(0, 3, (40,)))
    vectors = torch.randn(7, 16)
    expected = head(vectors)
    with autocast(torch.device("cpu"), "bf16"):
        assert torch.equal(head(vectors), expected)


def test_free_memory_is_that_of_the_machine():
    import psutil

    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


def test_devices_and_precisions():
    assert pick_device("cpu").type == "cpu"
    for name in ("tpu", "mps", "cud"):
        with pytest.raises(UsageProblem, match="--device"):
            pick_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="--device cuda"):
            pick_device("cuda")
    with pytest.raises(UsageProblem, match="--precision"):
        pick_precision("fp8", torch.device("cpu"))
    assert pick_precision("auto", torch.device("cpu")) in ("float32", "bf16")


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    torch.manual_seed(0)
    model = Classifier(architecture()).eval()
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        on_cpu = model(images)
        on_gpu = model.to("cuda", memory_format=torch.channels_last)(images.cuda()).cpu()
    assert torch.allclose(on_cpu, on_gpu, atol=1e-2, rtol=1e-2)
