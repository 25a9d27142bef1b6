"""The classes that a run answers with: some of its own left out, others merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wbctool.errors import UsageProblem


@dataclass(frozen=True)
class Answers:
    """How probabilities of a run's classes become those of the classes that are asked for.

    Attributes:
        classes: of the run.
        merged: the classes that each answer stands for, where that is not the class of the same name alone.
        excluded: classes of the run that are no answer.
    """

    classes: tuple[str, ...]
    merged: Mapping[str, tuple[str, ...]]
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, classes: Sequence[str], kept: str | None, rename: Sequence[str]) -> Answers:
        """Answers of a run with these classes.

        Args:
            classes: of the run.
            kept: names with commas, after renaming; None keeps all.
            rename: `old=new` each; several with the same new name are merged.

        Raises:
            UsageProblem: a name in `kept` is no answer of the run, or fewer than two are left.
        """
        names = dict(pair.split("=", 1) for pair in rename)
        answer_of = {name: names.get(name, name) for name in classes}
        wanted = [name.strip() for name in (kept or "").split(",") if name.strip()]
        if unknown := [name for name in wanted if name not in answer_of.values()]:
            known = ", ".join(dict.fromkeys(answer_of.values()))
            raise UsageProblem(f"--classes {', '.join(unknown)}: the run does not answer that; it answers {known}")
        answers = [name for name in dict.fromkeys(answer_of.values()) if not wanted or name in wanted]
        if (wanted or rename) and len(answers) < 2:
            raise UsageProblem(f"only the class {answers[0]} is left to answer; keep two or more")
        sources = {answer: tuple(name for name in classes if answer_of[name] == answer) for answer in answers}
        return cls(
            tuple(classes),
            {answer: of for answer, of in sources.items() if of != (answer,)},
            tuple(name for name in classes if answer_of[name] not in answers),
        )

    @cached_property
    def answer_of(self) -> dict[str, str]:
        """The answer that each class of the run belongs to; not of excluded ones."""
        answer_of = {name: answer for answer, sources in self.merged.items() for name in sources}
        return {name: answer_of.get(name, name) for name in self.classes if name not in self.excluded}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes that are answered, in the order of the run's."""
        return tuple(dict.fromkeys(self.answer_of.values()))

    @property
    def known(self) -> frozenset[str]:
        """Names that a person may give: the run's classes, and the answers."""
        return frozenset((*self.classes, *self.names))

    @property
    def stated(self) -> dict[str, Any]:
        """What differs from the run's own classes, as predictions state it."""
        merged = {"merged": {answer: list(sources) for answer, sources in self.merged.items()}} if self.merged else {}
        return merged | ({"excluded": list(self.excluded)} if self.excluded else {})

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Turn probabilities of the run's classes, (n, classes), into those of the answers, (n, answers).

        Those of merged classes add up; without the excluded ones, each row adds up to 1 again. Where the run is sure of
        an excluded class, all answers are equally probable.
        """
        sums = np.zeros((len(rows), len(self.names)))
        for name, answer in self.answer_of.items():
            sums[:, self.names.index(answer)] += rows[:, self.classes.index(name)]
        totals = sums.sum(axis=1, keepdims=True)
        return np.where(totals == 0, 1 / len(self.names), sums / np.where(totals == 0, 1, totals))
