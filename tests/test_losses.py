"""Losses, class weights, schedules and averages against plain references in float64; recipes."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from wbctool.commands.options import parse_pairs
from wbctool.errors import InputError, UsageProblem
from wbctool.training.losses import LOSSES, Objective, balanced_weights, effective_weights, make_objective
from wbctool.training.losses.focal import FocalParameters, alpha_of
from wbctool.training.recipe import Recipe
from wbctool.training.recipe_files import of_length, read_recipe, recipe_comments, recipe_names, to_toml, with_values
from wbctool.training.schedules import Schedule, WeightAverage


def plain(logits, targets, gamma, alpha=None, smoothing=0.0, weights=None):
    """Focal loss with smoothed labels, weighted, written out sample by sample; γ 0 is cross-entropy."""
    total = divisor = 0.0
    for row, target in zip(logits, targets, strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        for c in range(len(row)):
            label = smoothing / len(row) + (1 - smoothing) * (c == target)
            factor = (1 if alpha is None else alpha[c]) * (1 if weights is None else weights[c])
            total += -label * factor * (1 - p[c]) ** gamma * math.log(p[c])
        divisor += 1 if weights is None else weights[target]
    return total / divisor


def sample(seed=0, n=40, classes=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)) * 3, rng.integers(0, classes, n), rng.uniform(0.2, 3, classes)


@pytest.mark.parametrize("name", ["ce", "focal"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alphas", [None, "one", "each"])
def test_losses_equal_their_formulas_in_float64(name, gamma, smoothing, weighted, alphas):
    logits, targets, weights = sample()
    text, alpha = {
        None: ("", None),
        "one": ("0.25", np.full(5, 0.25)),
        "each": ("a=0.1,c=2,d=0.5,e=0.7", np.array([0.1, 1, 2, 0.5, 0.7])),
    }[alphas]
    parameters = FocalParameters(gamma=gamma, alpha=text)
    objective = Objective(
        LOSSES.get(name), parameters, tuple("abcde"), smoothing, torch.tensor(weights) if weighted else None
    )
    ours = objective.mean(torch.tensor(logits), torch.tensor(targets), epoch=1)
    focusing = (gamma, alpha) if name == "focal" else (0.0, None)
    expected = plain(logits, targets, *focusing, smoothing, weights if weighted else None)
    assert ours.dtype == torch.float64
    assert float(ours) == pytest.approx(expected, rel=1e-12)


def objective_of(name, smoothing, weights):
    method = LOSSES.get(name)
    return Objective(method, method.parameters(), tuple("abcde"), smoothing, weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs(smoothing):
    logits, targets, weights = map(torch.tensor, sample(1))
    ours = objective_of("ce", smoothing, weights).mean(logits, targets, 1)
    assert float(ours) == pytest.approx(
        float(functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)), rel=1e-12
    )


def test_a_scalar_alpha_scales_the_focal_loss_and_classes_not_named_have_one():
    counts, classes = torch.tensor([3, 4, 5]), ("a", "b", "c=d")
    logits, targets = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 3, (20,))
    one, quarter = (make_objective(Recipe(loss="focal", alpha=a), classes, counts).mean(logits, targets, 1)
                    for a in ("", "0.25"))  # fmt: skip
    assert float(quarter) == pytest.approx(0.25 * float(one), rel=1e-12)
    assert alpha_of("b=2,c=d=0.5", classes) == [1, 2, 0.5]
    for invalid in ("x", "b=2,3", "q=1", "b=-1", "nan", "0"):
        with pytest.raises(UsageProblem, match="--alpha"):
            make_objective(Recipe(loss="focal", alpha=invalid), classes, counts)


def test_ce_then_focal_changes_after_its_epochs():
    counts = torch.tensor([3, 4, 5])
    logits, targets = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 3, (20,))
    ce, focal = (make_objective(Recipe(loss=name), "abc", counts).mean(logits, targets, 1) for name in ("ce", "focal"))
    both = make_objective(Recipe(loss="ce-then-focal", ce_epochs=3), "abc", counts)
    assert both.switch_epoch == 3
    for epoch, expected in ((1, ce), (3, ce), (4, focal), (9, focal)):
        assert float(both.mean(logits, targets, epoch)) == float(expected)


def test_parts_of_a_batch_add_up_to_its_loss():
    logits, targets, weights = map(torch.tensor, sample(2))
    slices = (slice(0, 7), slice(7, 30), slice(30, None))
    for objective in (objective_of("ce", 0.0, weights), objective_of("focal", 0.1, weights)):
        total = sum(objective.sum(logits[s], targets[s], 1) for s in slices)
        mean = total / sum(objective.weight(targets[s]) for s in slices)
        assert float(mean) == pytest.approx(float(objective.mean(logits, targets, 1)), rel=1e-12)


def test_class_weights_equal_their_references():
    counts = torch.tensor([100, 7, 23, 1])
    labels = np.repeat([0, 1, 2, 3], counts)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert np.allclose(balanced_weights(counts), expected, rtol=1e-12)
    for beta in (0.0, 0.9, 0.999):
        weights = [(1 - beta) / (1 - beta**n) for n in counts.tolist()]
        weights = np.array(weights) * 4 / sum(weights)
        assert np.allclose(effective_weights(counts, beta), weights, rtol=1e-12)


def rates(name, steps, epochs=1, losses=(), **keys):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [parameter], "lr": 0.1}], lr=0.1)
    schedule = Schedule(optimizer, name, steps * epochs, with_values(Recipe(), keys))
    learning_rates = []
    for epoch in range(epochs):
        for _ in range(steps):
            learning_rates.append(schedule.learning_rate)
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(losses[epoch] if losses else None)
    return learning_rates


def test_schedules_equal_their_formulas():
    cosine = rates("cosine", 50, lr_floor=0.01)
    expected = [0.01 + 0.5 * (0.1 - 0.01) * (1 + math.cos(math.pi * step / 50)) for step in range(50)]
    assert cosine == pytest.approx(expected, rel=1e-9)
    one = rates("one-cycle", 100)

    def between(a, b, share):
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    up, down = 0.3 * 101 - 1, 0.7 * 101
    expected = [between(0.1 / 25, 0.1, s / up) if s <= up else between(0.1, 0.1 / 25e4, (s - up) / down)
                for s in range(100)]  # fmt: skip
    assert one == pytest.approx(expected, rel=1e-6)
    assert rates("constant", 5) == [0.1] * 5
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]
    plateau = rates("plateau", 1, 9, losses, plateau_patience=2, plateau_factor=0.1, lr_floor=0.002)
    assert plateau == pytest.approx([0.1] * 5 + [0.01] * 3 + [0.002])


def test_averaged_weights_equal_the_recursion_and_can_be_put_in_place():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average, expected = WeightAverage(model, 0.9), model[0].weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 3))
        model[1].num_batches_tracked += 1
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    before = model[0].weight.detach().clone()
    with average.in_place():
        assert torch.allclose(model[0].weight, expected, atol=1e-5)
        assert model[1].num_batches_tracked == 30
    assert torch.equal(model[0].weight, before)


def test_a_recipe_written_is_the_recipe_read(tmp_path):
    for name in recipe_names():
        recipe, comments = read_recipe(name), recipe_comments(name)
        assert comments, name
        file = tmp_path / f"{name}.toml".replace(":", "-")
        file.write_text(to_toml(recipe, comments))
        assert (read_recipe(str(file)), recipe_comments(str(file))) == (recipe, comments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -1.0}, "--lr -1.0.* from 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"size": 4}, "--size 4.* from 16 to 2048"),
        ({"loss": "hinge"}, "--loss hinge: choose from .*focal"),
        ({"frozen_optimizer": "sgd"}, "--frozen-optimizer sgd: choose from"),
        ({"epochs": 1.5}, "--epochs 1.5"),
        ({"flips": 1}, "--flips 1"),
        ({"symmetries": 4}, "--symmetries 4: choose from 1, 8"),
        ({"mean": "1,2"}, "--mean 1,2"),
        ({"dense": "a"}, "--dense a"),
        ({"gamma": -1}, "--gamma -1.* from 0"),
        ({"augment": "some"}, "--augment some: choose from"),
        ({"wings": 2}, "--set wings: no such key"),
    ],
)
def test_values_out_of_their_limits_are_usage_errors(values, message):
    with pytest.raises(UsageProblem, match=message):
        with_values(Recipe(), values)


def test_an_unknown_name_raises_in_python_too():
    with pytest.raises(UsageProblem, match="choose from"):
        Recipe(loss="hinge")
    with pytest.raises(UsageProblem, match="choose from"):
        LOSSES.get("hinge")


def test_values_are_read_as_people_write_them():
    recipe = with_values(Recipe(), {"mean": "0.5", "dense": "256,128", "lr": 1, "std": [0.1, 0.2, 0.3], "alpha": 0.25})
    assert (recipe.mean, recipe.dense, recipe.lr) == ((0.5, 0.5, 0.5), (256, 128), 1.0)
    assert (recipe.std, recipe.alpha) == ((0.1, 0.2, 0.3), "0.25")
    values = parse_pairs(["pad_type=same", "a=1", "b=0.5", "c=true", "d=None", "e=[1, 2]"], "--backbone-arg")
    assert values == {"pad_type": "same", "a": 1, "b": 0.5, "c": True, "d": None, "e": [1, 2]}
    with pytest.raises(UsageProblem, match="--set lr"):
        parse_pairs(["lr"], "--set")


def test_invalid_recipes_are_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("lr = = 1")
    (tmp_path / "key.toml").write_text("learning = 1")
    (tmp_path / "limit.toml").write_text("lr = -1")
    with pytest.raises(InputError, match="not TOML"):
        read_recipe(str(tmp_path / "bad.toml"))
    for name, message in (("key.toml", "key.toml: learning: no such key"), ("limit.toml", "limit.toml: lr -1"),
                          ("none.toml", "none.toml: no such file")):  # fmt: skip
        with pytest.raises(UsageProblem, match=message):
            read_recipe(str(tmp_path / name))
    with pytest.raises(UsageProblem, match="choose from"):
        read_recipe("bset")


def test_a_total_of_epochs_keeps_the_phases_in_proportion():
    two = Recipe(epochs=40, frozen_epochs=15, ce_epochs=10, loss="ce-then-focal")
    phases = {n: (of_length(two, n).frozen_epochs, of_length(two, n).ce_epochs) for n in (0, 1, 2, 8, 40, 80)}
    assert phases == {0: (0, 0), 1: (0, 0), 2: (1, 0), 8: (3, 2), 40: (15, 10), 80: (30, 20)}
    assert of_length(Recipe(frozen_epochs=0), 5).frozen_epochs == 0
