"""Signals that wait: work ends at a safe point when the user, or the machine, asks for its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from wbctool.errors import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Context in which a first SIGINT or SIGTERM is only noted; a second one takes effect at once.

    Outside the main thread, where Python takes no signals, it does nothing.

    Attributes:
        received: number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def raise_received(self, save: Callable[[], None] = lambda: None) -> None:
        """If a signal has been received, save, then raise what the signal would have raised.

        Raises:
            KeyboardInterrupt: after SIGINT.
            Terminated: after SIGTERM.
        """
        if self.received is not None:
            save()
            raise KeyboardInterrupt if self.received == signal.SIGINT else Terminated
