"""What composites bring to a class that has next to no images.

    python tests/benchmarks/scarce_class.py [--seeds 3] [--epochs 10] [--size 160] [--to 60] [--others 0]

The 11 PBC classes, whole fields, split 50/10/40; of the promyelocytes (PMY) in training 20 stay. Trained on: those;
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


def figures(given, seed):
    place = given.place / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    run("split", given.place / "masks", "--ratio", "50/10/40", "--seed", seed, "-q", into=place / "split.jsonl")
    every = [r for r in records(place / "split.jsonl") if r.get("label")]
    scarce = [k for k, r in enumerate(every) if r["label"] == "PMY" and r["split"] == "train"]
    stay = set(np.random.default_rng(seed).permutation(scarce)[:KEPT].tolist())
    real = [r for k, r in enumerate(every) if k not in scarce or k in stay]
    base = write(place / "real.jsonl", real)
    counts = dict.fromkeys(sorted({r["label"] for r in every}), given.others) | {"PMY": given.to - KEPT}
    repeats = []
    for label, count in counts.items():
        own = [r for r in real if r["label"] == label and r["split"] == "train"]
        turn = np.random.default_rng(seed).permutation(len(own))
        for k in range(count):
            one = own[turn[k % len(own)]]
            repeats.append({**one, "id": f"{one['id']}+{k // len(own)}"})
    inputs = {"none": [base], "oversampling": [base, write(place / "repeats.jsonl", repeats)]}
    for algorithm in ("paper", "natural"):
        out = place / algorithm
        inputs[algorithm] = [base]
        for classes, count in ((["PMY"], given.to - KEPT), ([c for c in counts if c != "PMY"], given.others)):
            if count:
                out = place / f"{algorithm}-{count}"
                run(
                    *("naturalize", base, "-o", out, "--pool", place / "pool", "--add", count, "--seed", seed, "-q"),
                    *("--classes", ",".join(classes), "--algorithm", algorithm, "--overwrite"),
                    *(("--rbc", 6) if algorithm == "paper" else ()),
                )
                inputs[algorithm].append(out)
    weights = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    found = {}
    for arm in given.arms:
        run(
            *("train", *inputs[arm], "-o", place / f"run-{arm}", "--backbone", "mobilenetv2_100", "--seed", seed, "-q"),
            *("--backbone-arg", "pad_type=same", "--weights", weights, "--mean", 0.5, "--std", 0.5, "--overwrite"),
            *("--epochs", given.epochs, "--size", given.size),
        )
        tested = [r for r in records(place / f"run-{arm}" / "predictions.jsonl") if r["split"] == "test"]
        assert not any(r.get("synthetic") for r in tested)
        truth, told = [r["label"] for r in tested], [r["predicted"] for r in tested]
        pmy = recall_score(truth, told, labels=["PMY"], average="macro")
        found[arm] = (f1_score(truth, told, average="macro"), pmy)
        print(f"seed {seed}  {arm:14} macro F1 {found[arm][0]:.4f}  PMY recall {pmy:.3f}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--to", type=int, default=60)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--place", type=Path, default=Path("scarce-class-benchmark"))
    given = parser.parse_args()
    run("segment", DATA / "pbc", "-o", given.place / "masks", "--label-regex", LABEL, "-q", "--skip-bad")
    found = [figures(given, seed) for seed in range(given.seeds)]
    print(f"\n{'':14}{'macro F1':>10}{'PMY recall':>12}   mean of {given.seeds} seeds; each")
    means = {}
    for arm in given.arms:
        f1, recall = np.transpose([one[arm] for one in found])
        each = "  ".join(f"{a:.4f}/{b:.3f}" for a, b in zip(f1, recall, strict=True))
        print(f"{arm:14}{f1.mean():10.4f}{recall.mean():12.3f}   {each}")
        means[arm] = f1.mean(), recall.mean()
    if {"none", "oversampling", "natural"} <= set(means):
        for number, what in enumerate(("macro F1", "recall")):
            rest = max(means["none"][number], means["oversampling"][number])
            figure(f"scarce class: {what} of natural less the best without", means["natural"][number] - rest)


if __name__ == "__main__":
    main()
