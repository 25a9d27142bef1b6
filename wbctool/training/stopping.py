"""Stopping a training between two steps when the user, or the machine, asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from wbctool.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Within it a first SIGINT or SIGTERM is only noted; a second one ends at once.

    Attributes:
        asked: the signal, or None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number
        self._give_back()

    def end_if_asked(self, save: Callable[[], None]) -> None:
        """Where a signal came: save, then end as the signal would have.

        Raises:
            KeyboardInterrupt, Terminated: it was asked for.
        """
        if self.asked is None:
            return
        save()
        raise KeyboardInterrupt if self.asked == signal.SIGINT else Terminated
