"""Signals that wait for a safe point."""

import os
import signal
import threading

import pytest

from wbctool.errors import Terminated
from wbctool.pipeline.signals import DeferredSignals


@pytest.fixture(autouse=True)
def default_interrupts():
    """The handler of a foreground job; background jobs of a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_until_it_is_raised(number, error):
    saved = []
    before = signal.getsignal(number)
    with DeferredSignals() as signals:
        signals.raise_received()
        os.kill(os.getpid(), number)
        assert signals.received == number
        assert signal.getsignal(number) == before
    with pytest.raises(error):
        signals.raise_received(lambda: saved.append(True))
    assert saved


def test_a_second_signal_acts_at_once_unless_all_wait():
    def interrupt_twice():
        with DeferredSignals():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    with DeferredSignals(once=False) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with DeferredSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
    assert signals.received is None


def test_outside_the_main_thread_nothing_is_deferred():
    handlers = []

    def enter():
        with DeferredSignals():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
