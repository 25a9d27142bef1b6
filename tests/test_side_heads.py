"""Further heads on the covariance of maps half-way: against plain references, in networks, in training."""

import copy
import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from wbctool.modeling import run_folder
from wbctool.modeling.architecture import Architecture
from wbctool.modeling.classifier import Classifier
from wbctool.modeling.heads import CovarianceHead, matrix_root, mean_log_probabilities

CLASSES = ("a", "b", "c")


def build(backbone, side_heads="covariance", size=96, **changes):
    torch.manual_seed(0)
    return Classifier(Architecture(backbone, CLASSES, size=size, side_heads=side_heads, **changes))


def images(count=4, size=96):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(1))


def test_the_root_is_that_of_the_eigenvalues():
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.manual_seed(0)))[0]
    values = torch.linspace(1, 2, 4, dtype=torch.float64)
    matrix = basis @ torch.diag(values) @ basis.T
    root = matrix_root(matrix[None])[0]
    torch.testing.assert_close(root, basis @ torch.diag(values.sqrt()) @ basis.T, rtol=0, atol=1e-4)


def test_the_root_of_zeros_is_zeros():
    assert torch.equal(matrix_root(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))


@pytest.mark.parametrize("channels", [20, 100])
def test_a_head_takes_the_covariance_of_the_channels(channels):
    torch.manual_seed(0)
    head = CovarianceHead(channels, 5).eval()
    torch.nn.init.normal_(head.last.weight)
    maps = torch.randn(3, channels, 7, 7)
    reduced = head.reduce(maps).flatten(2).detach()
    assert reduced.shape[1] == min(channels, 64)
    for number in range(3):
        matrix = matrix_root(torch.cov(reduced[number], correction=0)[None])[0]
        vector = torch.tensor([matrix[i, j] for i in range(len(matrix)) for j in range(i, len(matrix))])
        plain = head.last.weight @ (vector / (1 + 1e-5) ** 0.5)
        torch.testing.assert_close(head(maps)[number], plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "heads"),
    [
        ("resnet26t", ["layer2", "layer3"]),
        ("mobilenetv2_100", ["blocks_2", "blocks_3", "blocks_4"]),
        ("efficientnet_b0", ["blocks_2", "blocks_3", "blocks_4"]),
        ("vit_tiny_patch16_224", []),
    ],
)
def test_heads_are_at_maps_of_an_eighth_and_a_sixteenth(backbone, heads):
    model = build(backbone)
    assert list(model.side_heads) == heads
    assert model.train()(images()).shape == ((1 + len(heads), 4, 3) if heads else (4, 3))
    assert model.eval()(images()).shape == (4, 3)


def test_the_backbone_and_its_learning_layers_are_as_without_side_heads():
    plain, model = build("resnet26t", "none"), build("resnet26t")
    assert model.backbone.state_dict().keys() == plain.backbone.state_dict().keys()
    for one in (plain, model):
        one.unfreeze("last:20")
    learning = [[name for name, p in one.backbone.named_parameters() if p.requires_grad] for one in (plain, model)]
    assert learning[0] == learning[1] != []
    assert all(parameter.requires_grad for parameter in model.side_heads.parameters())


def test_a_prediction_is_the_mean_of_the_heads_log_probabilities():
    model = build("resnet26t").eval()
    for head in model.side_heads.values():
        torch.nn.init.normal_(head.last.weight, std=0.01)
    with torch.no_grad():
        main = model.head(model.vector(model.features(images())))
        with model.side_heads.collecting() as side_logits:
            model.maps(images())
        combined = model(images())
    every = [logits.float().log_softmax(1) for logits in (main, *side_logits)]
    assert len(every) == 3
    torch.testing.assert_close(combined, sum(every) / 3)
    torch.testing.assert_close(mean_log_probabilities(torch.stack([main, *side_logits])), combined)


def test_a_deep_copy_runs_its_own_side_heads():
    model = build("resnet26t").eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = twin(images())
        for head in model.side_heads.values():
            head.last.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
        assert torch.equal(twin(images()), before)
        assert not torch.equal(model(images()), before)
        with twin.side_heads.collecting() as collected:
            twin.maps(images())
        assert len(collected) == 2


def test_each_head_learns_from_its_own_loss():
    model = build("resnet26t", dropout=0.0).train()
    targets = torch.tensor([0, 1, 2, 0])
    sum(cross_entropy(logits, targets) for logits in model(images())).backward()
    for head in model.side_heads.values():
        assert head.last.weight.grad.abs().sum() > 0
    model.zero_grad()
    logits = model(images())
    cross_entropy(logits[1], targets).backward()
    assert model.head[-1].weight.grad is None or model.head[-1].weight.grad.abs().sum() == 0


def test_a_run_with_side_heads_trains_is_kept_and_predicts_the_same(cli, cells, tmp_path):
    chosen = ("--backbone", "resnet26t", "--weights", "none", "--size", 64, "--side-heads", "covariance")
    done = cli("train", cells, "-o", tmp_path / "run", *chosen, "--epochs", 2, "--set", "best_by=last")
    assert done.code == 0, done.err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["side_heads"] == "covariance"
    assert run["best_epoch"] == 2
    loaded = run_folder.load(tmp_path / "run", torch.device("cpu"))
    assert list(loaded.model.side_heads) == ["layer2", "layer3"]
    again = cli("predict", tmp_path / "run", cells)
    assert again.code == 0, again.err
    first = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    probabilities = {record["id"]: record["probabilities"] for record in again.records}
    assert first
    for record in first:
        for name, value in record["probabilities"].items():
            assert probabilities[record["id"]][name] == pytest.approx(value, abs=2e-4)
