"""Every backbone of the papers, with CBAM at each position; custom CNN; DINOv2 checkpoints; which layers learn."""

import copy
import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from wbctool.errors import InputError, UsageProblem
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.weights import load_pretrained

CLASSES = tuple("abcdefghijk")
# name → stages, blocks
BACKBONES = {
    "custom-cnn": (4, 4),
    "resnet50": (4, 16),
    "efficientnet_b0": (7, 16),
    "tf_efficientnetv2_b0": (6, 21),
    "tf_efficientnetv2_s": (6, 40),
    "mobilenetv2_100": (7, 17),
    "mobilenetv3_small_100": (6, 12),
    "mobilenetv3_large_100": (7, 16),
    "densenet121": (4, 58),
    "densenet169": (4, 82),
    "densenet201": (4, 98),
    "vgg16": (5, 13),
    "vgg19": (5, 16),
    "inception_v3": (5, 11),
    "convnext_base": (4, 36),
}
HEAVY = {"vgg16", "vgg19", "convnext_base", "densenet169", "densenet201"}


def build(backbone, **changes):
    torch.manual_seed(0)
    size = 96 if backbone == "inception_v3" else 64
    return Classifier(Architecture(**{"backbone": backbone, "classes": CLASSES, "size": size, **changes}))


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in BACKBONES]
)
def test_backbones_take_cbam_at_each_position_and_keep_their_names_and_weights(backbone, tmp_path):
    plain = build(backbone).eval()
    save_file(plain.backbone.state_dict(), tmp_path / "w.safetensors")
    images = torch.randint(0, 256, (2, 3, plain.architecture.size, plain.architecture.size), dtype=torch.uint8)
    with torch.no_grad():
        expected = plain(images)
        for position, count in zip(("head", "stages", "blocks"), (0, *BACKBONES[backbone]), strict=True):
            model = build(backbone, attention="cbam", attention_at=position).eval()
            assert len(model.inner_attention) == count
            assert load_pretrained(model, str(tmp_path / "w.safetensors")).endswith("w.safetensors")
            attended, original = model.backbone.state_dict(), plain.backbone.state_dict()
            assert attended.keys() == original.keys()
            assert all(torch.equal(attended[key], original[key]) for key in original)
            logits = model(images)
            assert logits.shape == (2, len(CLASSES))
            assert not torch.equal(logits, expected)


def test_every_attention_inside_is_cbam_of_the_width_there():
    model = build("resnet50", attention="cbam", attention_at="stages")
    widths = [module.channel.fc1.in_channels for module in model.inner_attention.values()]
    reduced = [module.channel.fc1.out_channels for module in model.inner_attention.values()]
    assert widths == [256, 512, 1024, 2048]
    assert reduced == [16, 32, 64, 128]
    assert {module.spatial.conv.conv.kernel_size for module in model.inner_attention.values()} == {(7, 7)}


def test_attention_inside_is_applied_after_the_block_and_starts_nearly_open():
    model = build("resnet50", attention="cbam", attention_at="blocks").eval()
    seen = {}
    last = model.backbone.layer4[2]
    last.act3.register_forward_hook(lambda m, i, out: seen.update(before=out.clone()))
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        after = model.maps(images)
        expected = model.inner_attention["layer4_2"](seen["before"])
    assert torch.allclose(after, expected, atol=1e-6)
    fraction = (after / seen["before"])[seen["before"] > 1e-3]
    assert 0.9 < fraction.min() <= fraction.max() <= 1


@pytest.mark.parametrize("at", ["stages", "blocks"])
def test_a_deep_copy_runs_its_own_attention(at):
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        model = build("resnet10t", attention="cbam", attention_at=at).eval()
        twin = copy.deepcopy(model)
        before = model(images)
        assert torch.equal(twin(images), before)
        for gate in model.inner_attention.values():
            gate.channel.fc2.bias.fill_(-9.0)  # closes the original's gates
        assert torch.equal(twin(images), before)
        assert not torch.equal(model(images), before)
        for gate in twin.inner_attention.values():
            gate.channel.fc2.bias.fill_(-9.0)
        assert torch.equal(twin(images), model(images))


def test_the_custom_cnn_has_the_parameters_of_the_paper(cli, cells, tmp_path):
    model = Classifier(Architecture("custom-cnn", CLASSES, size=224))
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_310_251
    done = cli("train", cells, "-o", tmp_path / "r", "--backbone", "custom-cnn", "--weights", "none", "--epochs", 0,
               "--size", 48, "-q")  # fmt: skip
    assert done.code == 0, done.err
    info = json.loads((tmp_path / "r" / "model.json").read_text())
    convolutions = sum(a * b * 9 + b for a, b in ((3, 16), (16, 32), (32, 64), (64, 128)))
    assert info["parameters"] == convolutions + 128 * 9 * 128 + 128 + 128 * 8 + 8
    with pytest.raises(UsageProblem, match="custom-cnn"):
        Classifier(Architecture("custom-cnn", CLASSES, size=8))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_with_cbam_is_a_usage_error(name):
    with pytest.raises(UsageProblem, match="--attention none"):
        Classifier(Architecture(name, CLASSES, attention="cbam"))


def first_learning(model):
    return next(name for name, p in model.backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("backbone", "rule", "first"),
    [
        ("resnet50", "last:80", "layer3.1.conv2.weight"),
        ("resnet50", "stages:2", "layer3.0.conv1.weight"),
        ("resnet50", "stages:4", "conv1.weight"),
        ("resnet50", "all", "conv1.weight"),
        ("efficientnet_b0", "stages:2", "blocks.5.0.conv_pw.weight"),
        ("densenet121", "stages:1", "features.transition3.norm.weight"),
        ("inception_v3", "stages:2", "Mixed_6a.branch3x3.conv.weight"),
        ("custom-cnn", "last:5", "stages.3.0.weight"),
        ("resnet50", "last:46%", "layer3.1.conv2.weight"),
        ("resnet50", "last:100%", "conv1.weight"),
    ],
)
def test_unfreezing_starts_where_the_rule_says(backbone, rule, first):
    model = build(backbone)
    model.unfreeze(rule)
    assert first_learning(model) == first
    after = [p.requires_grad for _, p in model.backbone.named_parameters()]
    assert after == sorted(after)  # once learning, everything after it learns
    assert all(p.requires_grad for p in model.head.parameters())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        *((rule, "last:N") for rule in ("last", "some", "last:0", "stages:50%")),
        ("last:9999", "173 layers"),
        ("stages:9", "4 stages"),
    ],
)
def test_invalid_rules_are_usage_errors(rule, message):
    with pytest.raises(UsageProblem, match=message):
        build("resnet50").unfreeze(rule)


def test_batch_statistics_of_what_does_not_learn_stay():
    model = build("resnet50")
    model.unfreeze("stages:1")
    model.train()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items() if "running_mean" in key}
    model(torch.rand(4, 3, 64, 64) * 255)
    changed = {key for key, value in model.backbone.state_dict().items() if key in before
               and not torch.equal(value, before[key])}  # fmt: skip
    assert changed == {key for key in before if key.startswith("layer4")}
    model.unfreeze("all", keep_statistics=True)
    model.train()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items() if "running" in key}
    model(torch.rand(4, 3, 64, 64) * 255)
    assert all(torch.equal(model.backbone.state_dict()[key], before[key]) for key in before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_learning_rates_can_fall_from_the_head_to_the_first_layer():
    from wbctool.training.recipe import Recipe
    from wbctool.training.recipe_files import with_values
    from wbctool.training.schedules import make_optimizer

    model = build("mobilenetv2_100")
    model.unfreeze("all")
    optimizer = make_optimizer(model, with_values(Recipe(), {"lr": 1.0, "lr_depth": 0.01}), frozen=False)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stem, head = rate[id(model.backbone.conv_stem.weight)], rate[id(model.head[-1].weight)]
    assert stem == pytest.approx(0.01)
    assert head == 1.0
    order = [rate[id(block[0].conv_pw.weight)] for block in list(model.backbone.blocks)[1:]]
    assert order == sorted(order)
    decays = {group["weight_decay"] for group in optimizer.param_groups for p in group["params"] if p.ndim == 1}
    assert decays == {0.0}


def dinov2_state(name, size=224):
    """A random checkpoint as DINOv2's own code, and the haematology models made with it, write them."""
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=0, img_size=size)
    state = {key.replace("reg_token", "register_tokens"): torch.randn_like(value) * 0.02
             for key, value in model.state_dict().items()}  # fmt: skip
    state["mask_token"] = torch.zeros(1, state["cls_token"].shape[-1])
    return state


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [224, 518, 56])
def test_a_dinov2_checkpoint_loads_with_its_prefixes_and_its_own_input_size(tmp_path, chunked, size):
    name = "vit_small_patch14_dinov2"
    state = dinov2_state(name, size)
    named = {f"backbone.{k.replace('blocks.', 'blocks.0.') if chunked else k}": v for k, v in state.items()}
    teacher = {**named, "dino_head.mlp.0.weight": torch.zeros(3, 3), "ibot_head.last_layer.weight": torch.zeros(2)}
    torch.save({"teacher": teacher}, tmp_path / "dinobloom.pth")
    model = Classifier(Architecture(name, CLASSES, size=56)).eval()
    assert load_pretrained(model, str(tmp_path / "dinobloom.pth")).startswith("174 tensors")
    assert torch.equal(model.backbone.blocks[11].mlp.fc2.weight, state["blocks.11.mlp.fc2.weight"])
    assert model.backbone.pos_embed.shape == (1, 17, 384)
    if size == 56:
        assert torch.equal(model.backbone.pos_embed, state["pos_embed"])
        plain = timm.create_model(name, num_classes=0, img_size=56).eval()
        plain.load_state_dict({key: value for key, value in state.items() if key != "mask_token"})
        images = torch.rand(2, 3, 56, 56)
        with torch.no_grad():
            assert torch.allclose(plain(images), model.vector(model.backbone.forward_features(images)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_base_patch14_dinov2", "vit_large_patch14_dinov2"])
def test_larger_dinov2_checkpoints_load(tmp_path, name):
    torch.save({"teacher": {f"backbone.{k}": v for k, v in dinov2_state(name).items()}}, tmp_path / "w.pth")
    model = Classifier(Architecture(name, CLASSES, size=28))
    assert load_pretrained(model, str(tmp_path / "w.pth")).endswith("w.pth")


def test_a_dinov2_checkpoint_of_another_size_is_refused(tmp_path):
    torch.save({"teacher": dinov2_state("vit_small_patch14_dinov2", 28)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="vit_base_patch14_dinov2"):
        load_pretrained(Classifier(Architecture("vit_base_patch14_dinov2", CLASSES, size=28)), str(tmp_path / "w.pth"))


def test_weights_with_nan_are_refused(tmp_path):
    state = timm.create_model("resnet10t").state_dict()
    state["layer1.0.conv1.weight"][0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="weight holds NaN"):
        load_pretrained(build("resnet10t"), str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("pool", ["backbone", "avg", "max", "avgmax"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_heads_have_the_pooling_and_the_layers_of_the_architecture(pool, norm):
    model = build("mobilenetv3_small_100", pool=pool, norm=norm, dense=(32, 16), dropout=0.5).eval()
    names = [type(layer).__name__ for layer in model.head]
    expected = {"none": [], "batch": ["BatchNorm1d"], "layer": ["LayerNorm"]}[norm]
    assert names == [*expected, "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    images = torch.rand(3, 3, 64, 64) * 255
    with torch.no_grad():
        maps = model.maps(images)
        average, maximum = maps.mean((2, 3)), maps.flatten(2).max(2).values
        if pool != "backbone":  # the backbone's own adds a layer before its last one
            vector = {"avg": average, "max": maximum, "avgmax": 0.5 * (average + maximum)}[pool]
            assert torch.allclose(model(images), model.head(vector), atol=1e-6)
            assert not any(name.startswith("backbone.conv_head") for name, _ in model.named_parameters())
        assert torch.allclose(model(images), model(model.frozen_features(images), frozen=True), atol=1e-6)


@pytest.mark.parametrize("at", ["stages", "blocks"])
def test_cbam_learns_nothing_from_finding_the_order_of_layers(at):
    more = {"attention": "cbam", "attention_at": at, "side_heads": "covariance"}
    model = Classifier(Architecture("resnet10t", ("a", "b"), 64, **more)).train()
    assert all(int(gate.spatial.conv.bn.num_batches_tracked) == 0 for gate in model.inner_attention.values())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.unfreeze("last:50%")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
