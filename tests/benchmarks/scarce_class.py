"""What composites bring to a class that has next to no images.

    python tests/benchmarks/scarce_class.py [--seeds 3] [--epochs 10] [--size 160] [--to 60] [--others 0]

The 11 PBC classes, whole fields, split 50/10/40; of the promyelocytes (PMY) in training 20 are kept. Trained on: those;
with the 20 repeated until the class is as large as the others; with `paper` or `natural` composites of the 20 in
place of the repeats. With --others N, N of each other class, too: repeats, or composites. All else is the same.
Figures are of real images only: none of the test is ever synthetic.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from composites import DATA, LABEL, records, run
from figures import figure
from sklearn.metrics import f1_score, recall_score

KEPT = 20
ARMS = ("none", "oversampling", "paper", "natural")


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def figures(options, seed):
    folder = options.folder / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    run("split", options.folder / "masks", "--ratio", "50/10/40", "--seed", seed, "-q", into=folder / "split.jsonl")
    fields = [r for r in records(folder / "split.jsonl") if r.get("label")]
    scarce = [k for k, r in enumerate(fields) if r["label"] == "PMY" and r["split"] == "train"]
    kept = set(np.random.default_rng(seed).permutation(scarce)[:KEPT].tolist())
    real = [r for k, r in enumerate(fields) if k not in scarce or k in kept]
    base = write(folder / "real.jsonl", real)
    counts = dict.fromkeys(sorted({r["label"] for r in fields}), options.others) | {"PMY": options.to - KEPT}
    repeats = []
    for label, count in counts.items():
        candidates = [r for r in real if r["label"] == label and r["split"] == "train"]
        turn = np.random.default_rng(seed).permutation(len(candidates))
        for k in range(count):
            one = candidates[turn[k % len(candidates)]]
            repeats.append({**one, "id": f"{one['id']}+{k // len(candidates)}"})
    inputs = {"none": [base], "oversampling": [base, write(folder / "repeats.jsonl", repeats)]}
    for algorithm in ("paper", "natural"):
        out = folder / algorithm
        inputs[algorithm] = [base]
        for classes, count in ((["PMY"], options.to - KEPT), ([c for c in counts if c != "PMY"], options.others)):
            if count:
                out = folder / f"{algorithm}-{count}"
                run(
                    *("naturalize", base, "-o", out, "--pool", folder / "pool", "--add", count, "--seed", seed, "-q"),
                    *("--classes", ",".join(classes), "--algorithm", algorithm, "--overwrite"),
                    *(("--rbc", 6) if algorithm == "paper" else ()),
                )
                inputs[algorithm].append(out)
    weights = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    scores = {}
    for arm in options.arms:
        run(
            *(
                "train",
                *inputs[arm],
                "-o",
                folder / f"run-{arm}",
                "--backbone",
                "mobilenetv2_100",
                "--seed",
                seed,
                "-q",
            ),
            *("--backbone-arg", "pad_type=same", "--weights", weights, "--mean", 0.5, "--std", 0.5, "--overwrite"),
            *("--epochs", options.epochs, "--size", options.size, "-q"),
        )
        tested = [r for r in records(folder / f"run-{arm}" / "predictions.jsonl") if r["split"] == "test"]
        assert not any(r.get("synthetic") for r in tested)
        labels, predicted = [r["label"] for r in tested], [r["predicted"] for r in tested]
        pmy = recall_score(labels, predicted, labels=["PMY"], average="macro")
        scores[arm] = (f1_score(labels, predicted, average="macro"), pmy)
        print(f"seed {seed}  {arm:14} macro F1 {scores[arm][0]:.4f}  PMY recall {pmy:.3f}", flush=True)
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--to", type=int, default=60)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--place", dest="folder", type=Path, default=Path("scarce-class-benchmark"))
    options = parser.parse_args()
    run("segment", DATA / "pbc", "-o", options.folder / "masks", "--label-regex", LABEL, "-q", "--skip-bad")
    scores = [figures(options, seed) for seed in range(options.seeds)]
    print(f"\n{'':14}{'macro F1':>10}{'PMY recall':>12}   mean of {options.seeds} seeds; each")
    means = {}
    for arm in options.arms:
        f1, recall = np.transpose([one[arm] for one in scores])
        each = "  ".join(f"{a:.4f}/{b:.3f}" for a, b in zip(f1, recall, strict=True))
        print(f"{arm:14}{f1.mean():10.4f}{recall.mean():12.3f}   {each}")
        means[arm] = f1.mean(), recall.mean()
    if {"none", "oversampling", "natural"} <= set(means):
        for number, what in enumerate(("macro F1", "recall")):
            rest = max(means["none"][number], means["oversampling"][number])
            figure(f"scarce class: {what} of natural less the best without", means["natural"][number] - rest)


if __name__ == "__main__":
    main()
