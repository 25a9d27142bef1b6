"""Signals that wait for a safe point, such as the end of a training step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from wbctool.errors import Terminated


class DeferredSignals:
    """A context in which SIGINT and SIGTERM raise nothing; the first one is noted.

    Signals that the process ignores, as background jobs of a shell ignore SIGINT, stay ignored. Outside the main
    thread, where Python takes no signals, nothing is deferred.

    Args:
        once: whether a second signal acts at once. If not, it waits, too: for calls of a library that would lose the
            exception.

    Attributes:
        received: number of the first signal; None for none.
    """

    def __init__(self, once: bool = True) -> None:
        self.received: int | None = None
        self._once = once
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._once:
            self.__exit__()

    def raise_received(self, save: Callable[[], None] | None = None) -> None:
        """End as the first signal would have; do nothing where none was received.

        Args:
            save: called before.

        Raises:
            KeyboardInterrupt: SIGINT was received.
            Terminated: SIGTERM was received.
        """
        if self.received is None:
            return
        if save:
            save()
        raise KeyboardInterrupt if self.received == signal.SIGINT else Terminated
