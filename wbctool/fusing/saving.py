"""Writing a fused run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wbctool.fusing.fusion import FittedFusion, Fusion
from wbctool.fusing.importance import IMAGES, importance_of, importance_plot
from wbctool.modeling import run_folder
from wbctool.modeling.run_folder import HOLDOUT, write_dataset, write_predictions
from wbctool.records import to_line
from wbctool.records.storage import atomic, write_bytes, write_json
from wbctool.statistics.plots import as_png, learning_curves


def save_run(
    out: Path, fusion: Fusion, fitted: FittedFusion, training: dict[str, Any], info: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of a run folder, `model.json` last.

    Args:
        out: the folder.
        fusion: with the dataset.
        fitted: the model.
        training: its options, for `model.json`.
        info: for `run.json`.

    Returns:
        The importance of its features.
    """
    dataset, model = fusion.dataset, fitted.model
    write_dataset(out, dataset)
    holdout = {
        split: (
            [dataset.everything[row] for row in fusion.rows[split]],
            fusion.probabilities(model, fusion.rows[split]),
        )
        for split in HOLDOUT
    }
    calibration = write_predictions(out, str(out), dataset.classes, holdout)
    rows = fusion.rows["val"] if len(fusion.rows["val"]) else fusion.rows["train"]
    rows = rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).astype(np.int64)]  # sorted by class: of all
    features = fusion.table.reader(model.architecture).read(rows)
    importance = importance_of(model, features, fusion.start(model, rows))
    write_json(out / "importance.json", importance)
    write_bytes(out / "importance.png", as_png(importance_plot(importance)))
    write_bytes(out / "curves.png", as_png(learning_curves(fitted.boosting.history, fitted.boosting.rounds)))
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in fitted.boosting.history)
    write_json(out / "run.json", info)
    about = {"training": training, "preparation": dataset.preparation, "calibration": calibration}
    run_folder.save(out, model, {**about, "best_epoch": fitted.boosting.rounds})
    return importance
