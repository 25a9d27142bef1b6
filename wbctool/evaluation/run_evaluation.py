"""The evaluation of predictions: of one run, or of several that are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbctool.console import Progress, note
from wbctool.errors import InputError, UsageProblem
from wbctool.evaluation.audit import audit_of
from wbctool.evaluation.comparison import (
    Candidate,
    candidates_of,
    compare,
    comparison_blocks,
    comparison_table,
    exact_table,
)
from wbctool.evaluation.document import Pictures, Section, Table
from wbctool.evaluation.predictions import EvaluationOptions, Predictions, collect_predictions
from wbctool.evaluation.report import SPLIT_NAMES, exact_metrics, report_of, report_sections
from wbctool.evaluation.sources import note_selection, predictions_file, reading, training_history, training_records
from wbctool.inputs.run_folders import hint_of_runs
from wbctool.records.selection import Selection
from wbctool.records.storage import write_bytes
from wbctool.statistics.metrics import metrics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class EvaluatedRun:
    """One run; its source is the input, or its own name where an input holds several."""

    source: str
    predictions: Predictions
    options: EvaluationOptions
    selection: Selection
    quiet: bool

    @cached_property
    def report(self) -> dict[str, Any]:
        """Every metric, as `evaluate --json` prints it, and the `audit` if that is wanted.

        Raises an InputError where no threshold leaves the target error, or the audit has no training records.
        """
        run, options = self.predictions, self.options
        report = report_of(run, options)
        if options.audit:
            trained = training_records(run.run, run.split, self.source, options.trained_on, self.selection)
            with Progress("audit", "images", self.quiet, total=len(run.ids) + len(trained)) as progress:
                report["audit"] = audit_of(run, trained, progress.step)
        return report

    def section(self, plots: Mapping[str, Figure], explanations: Mapping[str, str]) -> Section:
        """Lay out the report, with pictures for a page."""
        report, source = self.report, "stdin" if self.source == "-" else self.source
        title = f"{source}: {report['n']:,} images ({SPLIT_NAMES.get(report['split'], report['split'])})"
        return Section(title, report_sections(report, self.options.columns, plots, explanations))

    def plots(self) -> dict[str, Figure]:
        """Draw its plots, and its learning curves where its run folder is known."""
        from wbctool.evaluation.page import plots_of
        from wbctool.statistics.plots import learning_curves

        figures = plots_of(self.predictions, self.report)
        history, best_epoch = training_history(self.predictions.run, self.source)
        return {**figures, "learning-curves": learning_curves(history, best_epoch)} if history else figures


@dataclass
class Evaluation:
    """The evaluation of one run or several; each report is computed when it is first used.

    Attributes:
        runs: in the order of the inputs.
        columns: names of the metrics that tables show; none for the usual ones.
        candidates: of several runs, what is compared, which may join folds or repeats.
        comparison: a row for each candidate.
    """

    runs: list[EvaluatedRun]
    columns: Sequence[str]
    candidates: list[Candidate] = field(default_factory=list)
    comparison: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The report of each run, of several with its row of the comparison."""
        if not self.comparison:
            return [run.report for run in self.runs]
        row_of: dict[int, dict[str, Any]] = {}
        for candidate, row in zip(self.candidates, self.comparison, strict=True):
            for member in candidate.members:
                row_of.setdefault(id(member), row)
        return [{**run.report, "comparison": row_of[id(run.predictions)]} for run in self.runs]

    @property
    def document(self) -> Section:
        """The report of one run, or the comparison, for a terminal."""
        if self.comparison:
            metrics = metrics_of(view="terminal", names=self.columns)
            return Section(self._title, comparison_blocks(self.comparison, metrics))
        return self.runs[0].section({}, {})

    @property
    def _title(self) -> str:
        split = self.runs[0].predictions.split
        ranked = sum(row["rank"] is not None for row in self.comparison)
        return f"{ranked} runs, {SPLIT_NAMES.get(split, split)}; macro averages"

    def table(self, form: str) -> Table:
        """Return the metrics of one run with their intervals, or the comparison; in full if the form is `csv`."""
        if not self.comparison:
            return exact_metrics(self.runs[0].report, self.columns)
        if form == "csv":
            return exact_table(self.comparison, metrics_of(names=self.columns))
        return comparison_table(self.comparison, metrics_of(view="paper", names=self.columns))

    def write_page(self, file: Path, explanations: Mapping[str, str] | None = None) -> None:
        """Write an HTML page that stands alone, with all reports, plots, and explaining pictures by image id."""
        from wbctool.evaluation.page import page_of

        sections = [run.section(run.plots(), explanations or {}) for run in self.runs]
        document = sections[0]
        if self.comparison:
            blocks = comparison_blocks(self.comparison, metrics_of(view="paper", names=self.columns))
            plot = Pictures([self._parallel_coordinates()], wide=True)
            folded = [replace(section, folded=True) for section in sections]
            document = Section(self._title, [Section("Side by side", [*blocks, plot]), *folded])
        write_bytes(file, page_of(document).encode())

    def write_plots(self, folder: Path) -> None:
        """Write the plots as PNG and SVG; those of several runs into a folder each."""
        from wbctool.statistics.plots import write_plots

        taken: set[Path] = set()
        for run in self.runs:
            name = re.sub(r"[^\w.-]+", "_", run.source).strip("._") or "run"
            own = next(path for n in count(1) if (path := folder / (name if n == 1 else f"{name}-{n}")) not in taken)
            taken.add(own)
            write_plots(run.plots(), own if self.comparison else folder)
        if self.comparison:
            write_plots({"parallel-coordinates": self._parallel_coordinates()}, folder)

    def _parallel_coordinates(self) -> Figure:
        from wbctool.evaluation.page import parallel_coordinates

        return parallel_coordinates(self.comparison, metrics_of(view="axes", names=self.columns))


def evaluate_predictions(
    inputs: Sequence[str],
    options: EvaluationOptions | None = None,
    selection: Selection | None = None,
    quiet: bool = True,
) -> Evaluation:
    """Evaluate predictions against their labels.

    Args:
        inputs: run folders, record files, or `-` for stdin. An input may hold several runs.
        options: the split, a threshold, an audit…; see `EvaluationOptions`.
        selection: of labels and groups; by default those of the records.
        quiet: no notes and no progress on stderr.

    Returns:
        The reports, and their layouts.

    Raises:
        InputError: an input has no labelled predictions, is damaged, or holds composites to test on.
        UsageProblem: options that do not go together, or a name that does not exist.
    """
    options, selection = options or EvaluationOptions(), selection or Selection()
    options.check()
    sources = [source.rstrip("/") or source for source in inputs]  # a shell's pattern `runs/*/` leaves a slash
    if twice := [source for source, number in Counter(sources).items() if number > 1]:
        raise UsageProblem(f"{twice[0]}: is given twice")
    runs = [run for source in sources for run in _read_runs(source, options, selection, quiet)]
    if not quiet and options.split is None and any(run.predictions.split == "test" for run in runs):
        note("the records carry splits: test is evaluated (--split all for all)")
    if len(runs) > 1:
        candidates = candidates_of([(run.source, run.predictions) for run in runs])
        return Evaluation(runs, options.columns, candidates, compare(candidates, options.baseline))
    if options.baseline:
        raise UsageProblem("--baseline: give the runs that are compared with it, too")
    return Evaluation(runs, options.columns)


def _read_runs(source: str, options: EvaluationOptions, selection: Selection, quiet: bool) -> list[EvaluatedRun]:
    if hint := hint_of_runs(Path(source)):
        raise InputError(hint)
    with reading([predictions_file(source)], selection) as (records, tally):
        collected = collect_predictions(records, source, tally, options)
    if not quiet:
        note_selection(tally, source)
    names = [source] if len(collected) == 1 else [predictions.run for predictions in collected]
    return [EvaluatedRun(*run, options, selection, quiet) for run in zip(names, collected, strict=True)]
