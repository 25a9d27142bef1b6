"""What is written and shown after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbctool.console import note
from wbctool.errors import UsageProblem
from wbctool.records import to_line
from wbctool.records.storage import atomic
from wbctool.training.state import TrainingState


def write_history(out: Path, state: TrainingState) -> None:
    """Write `history.jsonl`."""
    with atomic(out / "history.jsonl", "w") as stream:
        stream.writelines(to_line(row) + "\n" for row in state.history)


class EpochLog:
    """Writes the history after each epoch, and shows the epoch on stderr.

    Args:
        out: the run folder.
        epochs: of the training.
        images: of an epoch.
        tensorboard: also write events for TensorBoard.
        quiet: show nothing.

    Raises:
        UsageProblem: TensorBoard is not installed.
    """

    def __init__(self, out: Path, epochs: int, images: int, tensorboard: bool, quiet: bool) -> None:
        self._out, self._epochs, self._images, self._quiet = out, epochs, images, quiet
        self._writer = _event_writer(out) if tensorboard else None

    def __call__(self, state: TrainingState) -> None:
        """Log the last epoch of the history."""
        row = state.history[-1]
        write_history(self._out, state)
        if not self._quiet:
            note(self._line(row))
        if self._writer:
            for key, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(key, value, row["epoch"])
            self._writer.flush()

    def _line(self, row: dict[str, Any]) -> str:
        text = f"epoch {row['epoch']}/{self._epochs} {row['phase']}: loss {row['train_loss']:.3f}"
        if "val_loss" in row:
            text += f", validation loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.3f}"
        return f"{text}, {row['seconds']:.0f} s, {self._images / max(row['seconds'], 1e-3):.0f} images/s"


def _event_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageProblem("--tensorboard needs a further package: pip install 'wbctool[tensorboard]'") from None
    return SummaryWriter(str(out / "tensorboard"))
