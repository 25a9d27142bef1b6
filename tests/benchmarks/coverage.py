"""How often the 95 % intervals of `evaluate` cover the true value, in simulations.

    python tests/benchmarks/coverage.py --simulations 1000

Eight classes of unequal frequency; images alone, or in groups that differ in accuracy (beta distributed) and in their
mixture of classes. Prints per cent; 95 is the goal.
"""

import argparse
import time

import numpy as np
from figures import figure

from wbctool.statistics.counts import ConfusionCounts
from wbctool.statistics.intervals import Draws, confusion_intervals
from wbctool.statistics.metrics import METRICS

FREQUENCIES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03])
CLASSES = len(FREQUENCIES)
SHOWN = ("accuracy", "macro_f1", "mcc", "balanced_accuracy", "kappa", "weighted_f1")


def draw(rng: np.random.Generator, images: int, groups: int, skill: float) -> tuple[np.ndarray, ...]:
    """Truth, predictions and group numbers."""
    if groups:
        group = np.repeat(np.arange(groups), images // groups)
        skills = rng.beta(10 * skill, 10 * (1 - skill), groups)[group]
        mixtures = rng.dirichlet(20 * FREQUENCIES, groups).cumsum(axis=1)[group]
    else:
        group = np.arange(images)
        skills, mixtures = np.full(images, skill), np.tile(FREQUENCIES.cumsum(), (images, 1))
    truth = np.minimum((mixtures < rng.random(len(group))[:, None]).sum(axis=1), CLASSES - 1)
    other = (truth + rng.integers(1, CLASSES, len(group))) % CLASSES
    return truth, np.where(rng.random(len(group)) < skills, truth, other), group


def simulate(images: int, groups: int, skill: float, simulations: int) -> list[float]:
    confusion = np.full((CLASSES, CLASSES), (1 - skill) / (CLASSES - 1))
    np.fill_diagonal(confusion, skill)
    counts = ConfusionCounts(FREQUENCIES[:, None] * confusion)
    true = {name: METRICS.get(name).compute(counts) for name in SHOWN}
    rng = np.random.default_rng(images + groups)
    covered = np.zeros(len(SHOWN))
    for number in range(simulations):
        truth, predicted, group = draw(rng, images, groups, skill)
        intervals, _ = confusion_intervals(Draws(group, number), truth, predicted, CLASSES)
        covered += [intervals[name][0] <= true[name] <= intervals[name][1] for name in SHOWN]
    return [100 * value / simulations for value in covered]


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
                percentages = simulate(images, groups, skill, simulations)
                for name, value in zip(SHOWN, percentages, strict=True):
                    spread.setdefault(name, []).append(value)
                line = " ".join(f"{value:17.1f}" for value in percentages)
                print(f"{images:6} {groups:6} {skill:5}  {line}  {time.perf_counter() - start:.0f} s", flush=True)
    for name in ("accuracy", "macro_f1", "mcc"):
        figure(f"coverage of {name}: least", min(spread[name]))
        figure(f"coverage of {name}: most", max(spread[name]))


if __name__ == "__main__":
    main()
