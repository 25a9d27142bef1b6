"""Parallel work in processes of this machine or on a Dask cluster, with results in the order of the items."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from wbctool import __version__
from wbctool.errors import DeviceError, InputError, UsageProblem

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

Item = TypeVar("Item")
Result = TypeVar("Result")
_Future = TypeVar("_Future", bound="Future[Any] | DaskFuture[Any]")

_RERUN = "run the same command again to continue"
# Seconds until a note says that a cluster has no workers; the command waits on.
_PATIENCE = 10.0


def in_processes(call: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Call a function on items in processes of this machine; only a few items are read ahead.

    Raises:
        DeviceError: a process was killed.
    """
    pool = worker_pool(jobs)
    closed = False
    try:
        yield from _in_order(lambda item: pool.submit(call, item), items, 4 * jobs, Future.result)
    except BrokenProcessPool:
        raise DeviceError("a worker process was killed, probably out of memory; try fewer --jobs") from None
    except GeneratorExit:
        closed = True  # whoever closes it may remove what the workers write
        raise
    finally:
        pool.shutdown(wait=closed, cancel_futures=True)


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """A pool of processes that leave Ctrl-C to this one, and end with it."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker)


def on_cluster(
    call: Callable[[Item], Result], items: Iterable[Item], address: str, notify: Callable[[str], None]
) -> Iterator[Result]:
    """Call a function on items on the workers of a Dask cluster, which see the same files and have this package.

    Where a worker dies, others process its items; workers may join while the command runs.

    Args:
        call: a function that pickle finds by name.
        items: only a few are read ahead.
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.
        notify: called with what the command waits for.

    Raises:
        UsageProblem: Dask is not installed, or the address is invalid.
        InputError: the scheduler does not answer, or is gone.
        DeviceError: an item has killed several workers, or workers have another version of this package.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed import TimeoutError as DaskTimeout  # before Python 3.11 not the built-in one
        from distributed.comm import CommClosedError
    except ImportError:
        raise UsageProblem("--scheduler needs Dask: pip install 'wbctool[dask]'") from None
    if not re.fullmatch(r"\w+://.+:\d+", address):
        raise UsageProblem(f"--scheduler {address}: give an address such as tcp://10.0.0.1:8786")
    for name in list(logging.root.manager.loggerDict):  # its messages are of no use to a person
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {address}: no answer ({_line(error)}); is `dask scheduler` running?") from None

    def result(future: DaskFuture[Result]) -> Result:
        while True:
            with suppress(DaskTimeout):
                return future.result(timeout=_PATIENCE)
            _wait_for_worker(client, address, notify)

    try:
        _wait_for_worker(client, address, notify)
        _check_versions(client, address)
        ahead = 4 * sum(client.ncores().values())
        yield from _in_order(lambda item: client.submit(call, item, pure=False), items, ahead, result)
    except KilledWorker:
        raise DeviceError(
            f"--scheduler {address}: several workers died while processing the same image, probably out of memory; "
            "give them more, or see their logs"
        ) from None
    except (CancelledError, CommClosedError):
        raise InputError(f"--scheduler {address}: the cluster has gone; start it and {_RERUN}") from None
    finally:
        client.close(timeout=2)


def _wait_for_worker(client: Client, address: str, notify: Callable[[str], None]) -> None:
    from distributed import TimeoutError as DaskTimeout

    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except DaskTimeout:
        notify(f"{address} has no workers; waiting for one (`dask worker {address}`)")
        client.wait_for_workers(1)


def _check_versions(client: Client, address: str) -> None:
    # a worker without wbctool cannot unpickle a function of it, and dies without a message: call one that all have
    try:
        versions = client.run(resolve_name, "wbctool:__version__")
    except (ImportError, AttributeError) as error:
        raise DeviceError(f"--scheduler {address}: a worker lacks wbctool ({_line(error)}); install it") from None
    for worker, version in versions.items():
        if version != __version__:
            raise DeviceError(f"--scheduler {address}: {worker} has wbctool {version}; install {__version__} there")


def _in_order(
    submit: Callable[[Item], _Future], items: Iterable[Item], ahead: int, result: Callable[[_Future], Result]
) -> Iterator[Result]:
    waiting: deque[_Future] = deque()
    for item in items:
        waiting.append(submit(item))
        while waiting and (len(waiting) > ahead or waiting[0].done()):
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group, and only the parent handles it; a worker whose parent was killed ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is None:
        return

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
