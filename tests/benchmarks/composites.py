"""Can a classifier distinguish composites from real fields? And how fast are they made?

    python tests/benchmarks/composites.py [--add 60] [--network] [--sheet FILE.png]

The PBC images with a subclass, half for composites, the other half as the real ones they are compared with, so that
no cell and no field is on both sides. A plain classifier uses colour, spectrum and noise statistics, in 5 folds; a
stricter one uses the steps along JPEG's grid, too. Of three models the most accurate one counts.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from figures import figure
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DATA = Path(os.environ.get("WBCTOOL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
LABEL = "^(?P<label>BA|BNE|EO|ERB|LY|MMY|MO|MY|PLATELET|PMY|SNE)_"


def colour(image):
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    statistics = []
    for values in (*cv2.split(image), *cv2.split(lab)):
        statistics += [values.mean(), values.std(), *np.percentile(values, [1, 5, 10, 50, 90, 95, 99])]
    return statistics + [np.corrcoef(image[..., a].ravel(), image[..., b].ravel())[0, 1] for a, b in ((0, 1), (1, 2))]


def spectrum(image):
    side = min(image.shape[:2])
    window = np.outer(np.hanning(side), np.hanning(side))
    rows, columns = np.indices((side, side))
    radius = np.hypot(rows - side // 2, columns - side // 2) / (side / 2)
    spectrum = []
    for plane in cv2.split(image[:side, :side].astype(np.float32)):
        power = np.fft.fftshift(np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2)
        bands = np.minimum(radius * 16, 16).astype(int)
        spectrum += np.log(
            np.bincount(bands.ravel(), power.ravel())[:16] / np.bincount(bands.ravel())[:16] + 1e-9
        ).tolist()
    return spectrum


def noise(image):
    statistics = []
    for plane in cv2.split(image.astype(np.float32)):
        fine = plane - cv2.GaussianBlur(plane, (0, 0), 1.5)
        spread = fine.std()
        statistics += [spread, np.median(np.abs(fine)), ((fine / spread) ** 4).mean()]
        statistics += np.log(np.percentile(cv2.blur(fine * fine, (9, 9)), [1, 5, 10, 25, 50, 75, 90]) + 1e-3).tolist()
        for a, b in ((fine[:, 1:], fine[:, :-1]), (fine[1:], fine[:-1]), (fine[:, 2:], fine[:, :-2])):
            statistics.append((a * b).mean() / spread**2)
    return statistics


def grid(image):
    spectrum = []
    for plane in cv2.split(image.astype(np.float32)):
        for steps in (np.abs(np.diff(plane, axis=1)).mean(0), np.abs(np.diff(plane, axis=0)).mean(1)):
            phases = steps[: len(steps) // 8 * 8].reshape(-1, 8).mean(0)
            spectrum += (phases / phases.mean()).tolist()
    return spectrum


def features(path):
    cv2.setNumThreads(1)
    image = cv2.imread(str(path))
    return np.nan_to_num(np.array(colour(image) + spectrum(image) + noise(image) + grid(image)))


GRID = 48  # the last of the features


def auc(real, made):
    x, y = np.vstack([real, made]), np.r_[np.zeros(len(real)), np.ones(len(made))]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    models = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000)),
        "forest": RandomForestClassifier(300, random_state=0, n_jobs=-1),
        "boosting": HistGradientBoostingClassifier(random_state=0),
    }
    return {
        name: roc_auc_score(y, cross_val_predict(model, x, y, cv=folds, method="predict_proba")[:, 1])
        for name, model in models.items()
    }


def run(*words, into=None):
    out = open(into, "wb") if into else subprocess.DEVNULL
    subprocess.run([sys.executable, "-m", "wbctool", *map(str, words)], check=True, stdout=out)


def records(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def sheet(path, rows):
    lines = []
    for paths in rows:
        lines.append(
            np.hstack([cv2.resize(cv2.imread(str(p)), (270, 270), interpolation=cv2.INTER_AREA) for p in paths])
        )
    cv2.imwrite(str(path), np.vstack(lines))


def network_auc(folder, real, made):
    """Fine-tune the given mobilenetv2_100 on two classes, and its AUC on a third of the images."""
    lines = [
        {"schema": "wbctool.image/1", "id": f"{label}/{k}", "path": str(path), "label": label}
        for label, paths in (("real", real), ("composite", made))
        for k, path in enumerate(paths)
    ]
    (folder / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("split", folder / "two.jsonl", "--ratio", "55/10/35", into=folder / "two-split.jsonl")
    weights = DATA / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    run(
        *("train", folder / "two-split.jsonl", "-o", folder / "two", "--backbone", "mobilenetv2_100", "--size", 224),
        *("--backbone-arg", "pad_type=same", "--weights", weights, "--mean", 0.5, "--std", 0.5, "--epochs", 8),
        "--overwrite",
    )
    tested = [r for r in records(folder / "two" / "predictions.jsonl") if r.get("split") == "test"]
    return roc_auc_score([r["label"] == "composite" for r in tested], [r["probabilities"]["composite"] for r in tested])


def make_sets(folder, add, algorithms=("natural", "paper"), every=1):
    """Paths of real fields and of composites of the other half's, so many of each class; of some of all images."""
    folder.mkdir(exist_ok=True)
    run("split", DATA / "pbc", "--label-regex", LABEL, "--ratio", "50/50", "-q", into=folder / "images.jsonl")
    halves = [record for record in records(folder / "images.jsonl") if record.get("label")][::every]
    sets = {"real": [record["path"] for record in halves if record["split"] == "test"]}
    (folder / "half.jsonl").write_text("".join(json.dumps(r) + "\n" for r in halves if r["split"] == "train"))
    run("segment", folder / "half.jsonl", "-o", folder / "masks", "-q", "--skip-bad", into=folder / "split.jsonl")
    for algorithm in algorithms:
        out = folder / algorithm
        run(
            *("naturalize", folder / "split.jsonl", "-o", out, "--pool", folder / "pool", "--add", add),
            *("--algorithm", algorithm, "-q", "--overwrite", "--skip-bad"),
        )
        sets[algorithm] = [out / r["path"] for r in records(out / "records.jsonl") if "cells" in r]
    return sets


def measure(paths):
    with multiprocessing.Pool() as workers:
        return np.array(workers.map(features, paths, chunksize=16))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", type=int, default=55)
    parser.add_argument("--place", dest="folder", type=Path, default=Path("composites-benchmark"))
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    sets = make_sets(options.folder, options.add)
    measures = {name: measure(paths) for name, paths in sets.items()}
    print(f"{'':10}{'images':>8}{'plain AUC':>12}{'and JPEG grid':>15}   each model, plain")
    for name in ("natural", "paper"):
        plain, full = auc(measures["real"][:, :-GRID], measures[name][:, :-GRID]), auc(measures["real"], measures[name])
        each = "  ".join(f"{model} {value:.3f}" for model, value in plain.items())
        figure(f"composites {name}: AUC of a plain classifier", max(plain.values()))
        print(f"{name:10}{len(sets[name]):8}{max(plain.values()):12.3f}{max(full.values()):15.3f}   {each}", flush=True)
    subprocess.run([sys.executable, __file__, "--speed", str(options.folder)], check=True)
    if options.sheet:
        pick = np.random.default_rng(1)
        sheet(options.sheet, [[paths[k] for k in pick.permutation(len(paths))[:6]] for paths in sets.values()])
    if options.network:
        for name in ("natural", "paper"):
            value = network_auc(options.folder, sets["real"], sets[name])
            print(f"{name}: AUC of a fine-tuned mobilenetv2_100 {value:.3f}", flush=True)


def speed(folder):
    """Composites per second in this process, cut-outs ready and the files written."""
    from wbctool.naturalizing.plan import CompositeOptions, plan_composites
    from wbctool.naturalizing.pool import read_pool
    from wbctool.naturalizing.step import compose_planned

    pool = read_pool(folder / "pool")
    for algorithm in ("natural", "paper"):
        few = 6 if algorithm == "paper" else None
        options = CompositeOptions(add=30, algorithm=algorithm, rbc=few, seed=1)
        plan = list(plan_composites(pool, dict.fromkeys(pool.subjects, 30), options, folder))
        for record in plan[:20]:
            compose_planned(str(pool.folder), "", record, folder / "speed", record["id"])
        start = time.perf_counter()
        for record in plan:
            compose_planned(str(pool.folder), "", record, folder / "speed", record["id"])
        rate = len(plan) / (time.perf_counter() - start)
        print(f"{algorithm:10}{rate:6.0f} composites/s")
        figure(f"composites {algorithm}: a second", rate)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--speed"]:
        speed(Path(sys.argv[2]))
    else:
        main()
