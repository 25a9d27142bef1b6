"""Maps against pytorch-grad-cam and plain references; their scores against plain loops and chance."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from wbctool.errors import ImageError, UsageProblem
from wbctool.explaining import METHODS, faithfulness, layers, scores
from wbctool.explaining.explainer import Explainer, fill_colour, scaled, to_image
from wbctool.explaining.method import CamContext
from wbctool.explaining.scores import regions_of
from wbctool.explaining.summary import ScoreCollector
from wbctool.imaging.files import write_png
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.ensembles import EnsembleArchitecture, make_ensemble
from wbctool.modeling.predictor import symmetries

CLASSES = tuple("abcde")
PACKAGE = {  # the class of the package pytorch-grad-cam by which each method is checked
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "eigencam": "EigenCAM",
    "scorecam": "ScoreCAM",
}


def make_model(backbone="resnet10t", size=64, **more):
    torch.manual_seed(0)
    model = Classifier(Architecture(backbone, CLASSES, size, **more)).eval()
    for module in model.modules():  # as untrained, most normalisations do nothing
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model


def pictures(count, size=64, seed=0):
    """Smooth images, (count, 3, size, size), uint8."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (255 * functional.interpolate(coarse, (size, size), mode="bilinear")).to(torch.uint8)


class Normalized(torch.nn.Module):
    """The same network for normalized images, which the package takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images * self.model.std + self.model.mean)


def maps_of_package(model, images, method, layer, classes):
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model.requires_grad_(True)
    modules = list(layers.select_layers(model, [layer]).values())
    with getattr(package, PACKAGE[method])(
        Normalized(model), modules, reshape_transform=lambda output: layers.as_feature_map(output, layer, model)
    ) as cam:
        targets = [ClassifierOutputTarget(int(number)) for number in classes]
        return cam((images.float() - model.mean) / model.std, targets)


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "more"),
    [
        ("resnet50", 64, None, {}),
        ("resnet50", 64, "layer3.2", {"attention": "cbam"}),
        ("densenet121", 64, None, {}),
        ("tf_efficientnetv2_b0", 64, None, {"attention": "cbam", "attention_at": "stages"}),
        ("mobilenetv3_small_100", 96, None, {}),
        ("mobilenetv2_100", 64, "blocks.3", {"side_heads": "covariance"}),
        ("vit_tiny_patch16_224", 96, None, {}),
        ("swin_tiny_patch4_window7_224", 64, None, {}),
        ("convnext_atto", 64, None, {"pool": "avgmax"}),
        ("custom-cnn", 64, None, {}),
    ],
)
def test_maps_equal_those_of_pytorch_grad_cam(backbone, size, layer, more):
    model, images = make_model(backbone, size, **more), pictures(2, size)
    names = [layer] if layer else layers.default_layers(model)
    fast_methods = [method for method in PACKAGE if method != "scorecam"]
    classes = np.array([1, 3])
    computed = Explainer(model, fast_methods, names)(images, classes).maps
    if backbone not in ("swin_tiny_patch4_window7_224", "convnext_atto") and not layer:
        computed |= Explainer(model, ("scorecam",), names)(images[:1], classes[:1]).maps
    for method, maps in computed.items():
        expected = maps_of_package(model, images[: len(maps)], method, names[0], classes)
        assert np.abs(maps - expected).max() <= 1e-3, method
        for one, other in zip(maps, expected, strict=True):
            assert not other.any() or np.corrcoef(one.ravel(), other.ravel())[0, 1] >= 0.999, method


def test_default_layers_are_the_last_with_a_map():
    expected = {"resnet10t": "layer4", "mobilenetv2_100": "bn2", "densenet121": "features", "vgg11": "features"}
    for backbone, layer in expected.items():
        assert layers.default_layers(make_model(backbone)) == [layer]
    assert layers.default_layers(make_model("vit_tiny_patch16_224", 32)) == ["blocks.11.norm1"]
    assert layers.default_layers(make_model(attention="cbam")) == ["attention"]
    assert layers.default_layers(make_model(attention="cbam", size=32)) == ["layer3"]
    members = (Architecture("resnet10t", CLASSES, 64), Architecture("mobilenetv3_small_050", CLASSES, 48))
    average = make_ensemble(EnsembleArchitecture("average", members, CLASSES, 64))
    assert layers.default_layers(average) == ["members.0.layer4", "members.1.blocks"]
    assert layers.default_layers(make_ensemble(EnsembleArchitecture("cbam", members, CLASSES, 64))) == ["attention"]


@pytest.mark.parametrize("backbone", ["deit_tiny_distilled_patch16_224", "cait_xxs24_224", "pvt_v2_b0"])
def test_other_transformers_have_maps(backbone):
    maps = Explainer(make_model(backbone, 64), ("layercam",))(pictures(1)).maps["layercam"]
    assert maps.shape == (1, 64, 64)
    assert maps.max() > 0.9


def test_ensembles_are_explained_as_one():
    torch.manual_seed(0)
    members = (Architecture("resnet10t", CLASSES, 64), Architecture("mobilenetv3_small_050", CLASSES, 48))
    model = make_ensemble(EnsembleArchitecture("average", members, CLASSES, 64)).eval()
    images = pictures(2)
    both = Explainer(model, ("gradcam",))(images)
    each = [Explainer(model, ("gradcam",), [name])(images, both.classes) for name in layers.default_layers(model)]
    mean = torch.from_numpy(np.mean([one.maps["gradcam"] for one in each], axis=0))
    assert np.allclose(both.maps["gradcam"], scaled(mean).numpy(), atol=5e-3)
    assert not np.allclose(each[0].maps["gradcam"], each[1].maps["gradcam"], atol=0.1)
    joined = make_ensemble(EnsembleArchitecture("cbam", members, CLASSES, 64)).eval()
    maps = Explainer(joined, ("gradcam", "scorecam", "attention"), parameters={"channels": 8})(images).maps
    assert all(maps[method].shape == (2, 64, 64) for method in maps)


@pytest.mark.parametrize("method", METHODS.names())
def test_over_eight_views_a_turned_image_has_the_turned_map(method):
    if method == "random":
        pytest.skip("random values depend on the order of pixels")
    model, images = make_model(attention="cbam"), pictures(1)
    parameters = {"channels": 4} if method == "scorecam" else {}
    explainer = Explainer(model, (method,), views=8, parameters=parameters)
    whole = explainer(images, np.array([2])).maps[method]
    for number, view in enumerate(symmetries(images, 8)):
        turned = explainer(view, np.array([2])).maps[method]
        expected = symmetries(torch.from_numpy(whole)[:, None], 8)[number][:, 0].numpy()
        assert np.abs(turned - expected).max() < 1e-4


def raw_maps(method, activations, images=None, classes=None, score=None, fill=None, views=1, **parameters):
    """The raw maps of a method; what it does not use may be left out."""
    declared = METHODS.get(method)
    context = CamContext(
        activations, images, classes, score, fill, views=views, parameters=declared.parameters(**parameters)
    )
    return declared.maps(context)


def test_eigen_cams_of_several_views_have_one_sign():
    activations = torch.randn(20, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    plain, signed = raw_maps("eigencam", activations), raw_maps("eigencam", activations, views=2)
    assert torch.equal(plain.abs(), signed.abs())
    assert not torch.equal(plain, signed)
    assert ((signed * activations.mean(1)).sum((1, 2)) >= 0).all()


def test_the_explained_class_is_the_most_probable_over_the_views_the_model_predicts_by():
    model = make_model(symmetries=8)
    images = pictures(5)
    batch = Explainer(model, ("gradcam",), views=1)(images)
    with torch.no_grad():
        probabilities = torch.stack([model(view).double().softmax(1) for view in symmetries(images, 8)]).mean(0)
    assert np.allclose(batch.probabilities, probabilities.numpy(), atol=1e-6)
    assert (batch.classes == probabilities.argmax(1).numpy()).all()
    assert Explainer(model, ("gradcam",)).views == 8


def test_score_cam_passes_over_dead_channels_and_equals_one_pass_a_channel():
    model, images = make_model(), pictures(2).float()
    activations = torch.rand(2, 6, 3, 3).relu()
    activations[0, 2] = 0
    activations[1, 4] = 0.5
    passes = []

    def score(masked):
        passes.append(len(masked))
        with torch.no_grad():
            return model(masked)

    classes = torch.tensor([0, 4])
    context = (activations, images, classes, score, fill_colour(model))
    exact = raw_maps("scorecam", *context)
    assert sum(passes) == 1 + 10
    weights = torch.zeros(2, 6)
    for i in range(2):
        for k in range(6):
            mask = functional.interpolate(activations[i, k][None, None], (64, 64), mode="bilinear", align_corners=True)
            varies = activations[i, k].amax() > activations[i, k].amin()
            mask = (mask - mask.min()) / (mask.max() - mask.min()) if varies else torch.zeros_like(mask)
            shown = ((images[i] - model.mean[0]) * mask[0] + model.mean[0])[None]
            with torch.no_grad():
                weights[i, k] = model(shown)[0, classes[i]]
    plain = (weights.softmax(1)[:, :, None, None] * activations).sum(1)
    assert torch.allclose(exact, plain, atol=1e-5)
    some = raw_maps("scorecam", *context, channels=6)
    assert np.corrcoef(some[0].ravel(), plain[0].ravel())[0, 1] > 0.9999
    one = raw_maps("scorecam", *context, channels=1)
    peak = activations.amax((2, 3)).masked_fill(activations.flatten(2).std(2) == 0, 0).argmax(1)
    assert torch.equal(one[0], activations[0, peak[0]])


@pytest.mark.parametrize("where", ["head", "stages"])
def test_attention_is_the_spatial_gate_of_cbam(where):
    model, images = make_model(attention="cbam", attention_at=where), pictures(2)
    batch = Explainer(model, ("attention",))(images)
    module = model.attention if where == "head" else list(model.inner_attention.values())[-1]
    inputs = []
    handle = module.spatial.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    maps = torch.stack([inputs[0].mean(1), inputs[0].amax(1)], 1)
    gate = module.spatial.conv(maps).sigmoid()[:, 0].detach()
    assert np.allclose(batch.maps["attention"], scaled(to_image(gate, 64)).numpy(), atol=1e-5)
    limits = torch.stack([gate.amin((1, 2)), gate.amax((1, 2))], 1)
    assert np.allclose(batch.ranges["attention"], limits.numpy(), atol=1e-6)
    if where == "stages":
        early = Explainer(model, ("attention",), ["layer1"])(images)
        assert not np.allclose(early.maps["attention"], batch.maps["attention"], atol=0.1)


@pytest.mark.parametrize(
    ("more", "words", "message"),
    [
        ({"methods": ("attention",)}, {}, "was trained without CBAM; train with --attention cbam"),
        ({"layers": ["layer5"]}, {}, "no such layer; near it: layer4, layer3"),
        ({"layers": ["nothing"]}, {}, "no such layer; among its layers:"),
        ({"layers": ["head"]}, {}, "gives 5 for an image, which is no map"),
        ({"layers": ["layer4"], "methods": ("gradcam", "cam")}, {}, "--method cam: unknown explanation method; choose"),
        ({"parameters": {"channels": 4}}, {}, "--channels goes with --method scorecam"),
        ({"methods": ("scorecam",), "parameters": {"channels": 0}}, {}, "--channels 0: give a whole number from 1"),
        ({"layers": ["head.0", "layer4"]}, {}, "gives 512 for an image, which is no map"),
        ({"layers": ["layers.0.blocks.0.attn"]}, {"backbone": "swin_tiny_patch4_window7_224"}, "gives no map of the"),
        ({"methods": ("attention",), "layers": ["layer1"]}, {"attention": "cbam"}, "has no CBAM; it is at attention"),
        ({"layers": ["inner_attention"]}, {}, "is not run when an image is classified"),
        ({"methods": ("gradcam",), "layers": ["blocks.11"]}, {"backbone": "vit_tiny_patch16_224"}, None),
        ({"methods": ("gradcam",), "layers": ["head_drop"]}, {"backbone": "vit_tiny_patch16_224"}, "which is no map"),
    ],
)
def test_what_cannot_be_explained_is_named(more, words, message):
    def explain():
        return Explainer(make_model(**words), **more)(pictures(1))

    if message is None:  # the last block's output reaches the score by its class token only: an empty map
        assert not explain().maps["gradcam"].any()
        return
    with pytest.raises(UsageProblem) as raised:
        explain()
    assert message in str(raised.value)


def test_a_score_that_does_not_depend_on_a_layer_is_refused():
    model = make_model(neighbours=None, symmetries=1)
    model.head = torch.nn.Sequential(torch.nn.Flatten(), Constant())
    with pytest.raises(UsageProblem, match="score does not depend on it"):
        Explainer(model, ("gradcam",))(pictures(1))


class Constant(torch.nn.Module):
    def forward(self, features):
        return torch.zeros(len(features), 5)


def test_energy_and_pointing_equal_plain_sums_and_chance_gives_the_area():
    rng = np.random.default_rng(0)
    region = np.zeros((32, 32), np.float32)
    region[5:20, 8:30] = 1
    regions = {"cell": region, "background": 1 - region}
    map_ = rng.random((32, 32), dtype=np.float32)
    inside = sum(float(map_[y, x]) for y in range(5, 20) for x in range(8, 30))
    assert scores.energy(map_, regions)["cell"] == pytest.approx(inside / float(map_.sum(dtype=np.float64)), abs=1e-6)
    assert sum(scores.energy(map_, regions).values()) == pytest.approx(1)
    map_[7, 9] = 2
    assert scores.pointing(map_, regions) == {"cell": True, "background": False}
    assert scores.energy(0 * map_, regions) == scores.pointing(0 * map_, regions) == {"cell": None, "background": None}
    model, images = make_model(), pictures(200, seed=3)
    explainer = Explainer(model, ("random",))
    maps = explainer(images).maps["random"]
    region = np.kron(region, np.ones((2, 2), np.float32))
    energies = [scores.energy(map_, {"cell": region})["cell"] for map_ in maps]
    assert np.mean(energies) == pytest.approx(region.mean(), abs=0.03)
    hits = [scores.pointing(rng.random((64, 64)), {"cell": region})["cell"] for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(region.mean(), abs=0.05)
    assert np.array_equal(maps, explainer(images).maps["random"])


def test_agreement_is_pearsons():
    one, other = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    assert scores.agreement(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1], abs=1e-9)
    assert scores.agreement(one, one) == pytest.approx(1)
    assert scores.agreement(one, 0 * one) is None


def test_deletion_and_insertion_equal_a_plain_loop():
    model, images = make_model(), pictures(3).float()
    maps = np.random.default_rng(1).random((3, 64, 64), dtype=np.float32)
    classes = np.array([0, 2, 4])
    fill = fill_colour(model)

    def predict(pixels):
        with torch.no_grad():
            return model(pixels).double().softmax(1).numpy()

    curves = faithfulness.curves(predict, images, fill, maps, classes, steps=8)
    blurred = faithfulness.blurred(images)
    for i in range(3):
        order = np.argsort(-maps[i].ravel())
        for step in range(9):
            count = round(step / 8 * 64 * 64)
            gone = np.zeros(64 * 64, bool)
            gone[order[:count]] = True
            gone = torch.from_numpy(gone.reshape(64, 64))
            deleted = torch.where(gone, fill, images[i])[None]
            inserted = torch.where(gone, images[i], blurred[i])[None]
            assert curves["deletion"][i, step] == pytest.approx(predict(deleted)[0, classes[i]], abs=1e-5)
            assert curves["insertion"][i, step] == pytest.approx(predict(inserted)[0, classes[i]], abs=1e-5)
    assert faithfulness.area(curves["deletion"])[0] == pytest.approx(np.trapezoid(curves["deletion"][0], dx=1 / 8))


def test_a_map_of_the_decisive_pixels_beats_chance_and_a_constant_map_equals_it():
    def predict(pixels):  # the white fraction of the left half
        left = pixels[:, 0, :, :32].mean((1, 2)).numpy() / 255
        return np.stack([left, 1 - left], 1)

    images = torch.full((1, 3, 64, 64), 255.0)
    best = np.zeros((64, 64), np.float32)
    best[:, :32] = 1
    for map_, expected in ((best, 0.25), (1 - best, 0.75), (0 * best, 0.5)):
        curves = faithfulness.curves(predict, images, torch.zeros(3, 1, 1), map_[None], np.array([0]))
        assert faithfulness.area(curves["deletion"])[0] == pytest.approx(expected, abs=0.01)


def test_regions_are_those_of_the_mask(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:50] = 1
    labels[15:25, 30:40] = 2
    write_png(tmp_path / "m.png", labels)
    cell = {"id": "x", "mask": str(tmp_path / "m.png"), "value": 1, "nucleus": {"value": 2, "area": 100}}
    regions = regions_of(cell, (40, 60), 30)
    assert regions["cell"].mean() == pytest.approx(600 / 2400, abs=1e-6)
    assert regions["nucleus"].mean() == pytest.approx(100 / 2400, abs=1e-6)
    assert np.allclose(regions["cell"] + regions["background"], 1)
    field = {"id": "x", "mask": cell["mask"], "cells": [{"value": 1, "kind": "rbc"}, {"value": 2, "kind": "wbc"}]}
    assert regions_of(field, (40, 60), 30)["cell"].mean() == pytest.approx(100 / 2400, abs=1e-6)
    assert regions_of({**field, "cells": []}, (40, 60), 30) is None
    assert regions_of({"id": "x"}, (40, 60), 30) is None
    with pytest.raises(ImageError, match=r"m\.png: the mask is 60×40, its image 30×30"):
        regions_of(cell, (30, 30), 30)
    with pytest.raises(ImageError, match=r"m\.png: has no value 7"):
        regions_of({**cell, "value": 7, "nucleus": None}, (40, 60), 30)


@pytest.mark.gpu
def test_maps_on_a_gpu_are_those_of_the_cpu():
    model, images = make_model(attention="cbam"), pictures(4)
    methods = ("gradcam", "gradcam++", "layercam", "scorecam", "attention")
    cpu = Explainer(model, methods)(images, np.zeros(4, int)).maps
    there = Explainer(model.cuda(), methods)(images.cuda(), np.zeros(4, int)).maps
    for method in methods:
        assert np.abs(cpu[method] - there[method]).max() < 0.02, method


def test_a_summary_equals_plain_means_and_a_plain_test():
    from scipy import stats

    rng = np.random.default_rng(0)
    collector, rows = ScoreCollector(), []
    for number in range(60):
        label = ("right", "all", "c")[number % 3]
        one, other = ({"cell": float(rng.random()), "nucleus": float(rng.random() / 2)} for _ in range(2))
        other["cell"] += 0.1
        methods = [{"gradcam": {"energy": energy, "pointing": {"cell": True}}} for energy in (one, other)]
        compare = {"run": "b", "predicted": "c", "methods": methods[1]}
        explained = {"methods": methods[0], "area": {"cell": 0.4, "nucleus": 0.2}, "compare": compare}
        record = {"id": f"{number}", "path": "x", "label": label, "group": f"g{number // 2}", "run": "a"}
        collector.add({**record, "schema": "wbctool.prediction/1", "predicted": label, "explain": explained})
        rows.append((one["cell"], other["cell"]))
    values = np.array(rows)
    summary = collector.summary()
    assert (summary["images"], summary["groups"]) == (60, 30)
    first, second = summary["runs"]
    assert set(first["classes"]) == {"right", "all", "c"}
    assert first["classes"]["c"]["energy in cell"] == pytest.approx(values[2::3, 0].mean(), abs=1e-5)
    assert first["all"]["energy in cell"] == pytest.approx(values[:, 0].mean(), abs=1e-5)
    assert (first["right"]["images"], second["right"]["images"], second["wrong"]["images"]) == (60, 20, 40)
    assert first["all"]["peak in cell"] == 1
    assert first["all"]["area of nucleus"] == pytest.approx(0.2)
    low, high = first["intervals"]["energy in cell"]
    assert low < values[:, 0].mean() < high < low + 0.3
    test = summary["compared"][0]["figures"]["energy in cell"]
    apart = values[:, 1] - values[:, 0]
    assert test["difference"] == pytest.approx(apart.mean(), abs=1e-5)
    assert test["p"] == pytest.approx(stats.wilcoxon(apart.reshape(30, 2).mean(1)).pvalue, rel=1e-3)
    assert test["interval"][0] < apart.mean() < test["interval"][1]
    assert ScoreCollector().summary() == {"images": 0, "runs": []}
