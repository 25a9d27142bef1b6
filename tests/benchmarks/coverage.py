"""How often the 95 % intervals of `evaluate` hold the true figure, in simulations.

    python tests/benchmarks/coverage.py --simulations 1000

Eight classes in unequal shares; images alone, or in groups whose share of right answers differs (beta
distributed) and whose mixture of classes does, too. Prints per cent; 95 is right.
"""

import argparse
import time

import numpy as np
from figures import figure

from wbctool.statistics import intervals, metrics

SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03])
CLASSES = len(SHARES)
SHOWN = ("accuracy", "macro_f1", "mcc", "balanced_accuracy", "kappa", "weighted_f1")


def draw(rng: np.random.Generator, images: int, groups: int, skill: float) -> tuple[np.ndarray, ...]:
    """Truth, predictions and group numbers."""
    if groups:
        group = np.repeat(np.arange(groups), images // groups)
        skills = rng.beta(10 * skill, 10 * (1 - skill), groups)[group]
        mixtures = rng.dirichlet(20 * SHARES, groups).cumsum(axis=1)[group]
    else:
        group = np.arange(images)
        skills, mixtures = np.full(images, skill), np.tile(SHARES.cumsum(), (images, 1))
    truth = np.minimum((mixtures < rng.random(len(group))[:, None]).sum(axis=1), CLASSES - 1)
    wrong = (truth + rng.integers(1, CLASSES, len(group))) % CLASSES
    return truth, np.where(rng.random(len(group)) < skills, truth, wrong), group


def simulate(images: int, groups: int, skill: float, simulations: int) -> list[float]:
    confusion = np.full((CLASSES, CLASSES), (1 - skill) / (CLASSES - 1))
    np.fill_diagonal(confusion, skill)
    true = metrics.figures_of(SHARES[:, None] * confusion)
    rng = np.random.default_rng(images + groups)
    held = np.zeros(len(SHOWN))
    for number in range(simulations):
        truth, predicted, group = draw(rng, images, groups, skill)
        found, _ = intervals.of_confusion(intervals.Draws(group, number), truth, predicted, CLASSES)
        held += [found[name][0] <= true[name] <= found[name][1] for name in SHOWN]
    return [100 * value / simulations for value in held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    simulations = parser.parse_args().simulations
    spread: dict[str, list[float]] = {}
    print(f"{'images':>6} {'groups':>6} {'skill':>5}  " + " ".join(f"{name:>17}" for name in SHOWN))
    for images in (300, 1000):
        for groups in (0, 30, 60):
            for skill in (0.9, 0.7):
                start = time.perf_counter()
                shares = simulate(images, groups, skill, simulations)
                for name, value in zip(SHOWN, shares, strict=True):
                    spread.setdefault(name, []).append(value)
                held = " ".join(f"{value:17.1f}" for value in shares)
                print(f"{images:6} {groups:6} {skill:5}  {held}  {time.perf_counter() - start:.0f} s", flush=True)
    for name in ("accuracy", "macro_f1", "mcc"):
        figure(f"coverage of {name}: least", min(spread[name]))
        figure(f"coverage of {name}: most", max(spread[name]))


if __name__ == "__main__":
    main()
