"""Measuring many cells, in processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from wbctool.device import cores
from wbctool.errors import DeviceError, ImageError
from wbctool.pipeline.parallel import worker_pool
from wbctool.records import Record

_SERIAL_START = 16  # cells measured before processes are started, which takes a second or two
_CHUNK = 8  # cells sent to a process together


class Measuring:
    """Measures cells of records, batch after batch; processes (0: one per core) are started once they are worth it."""

    def __init__(self, jobs: int = 0) -> None:
        self._jobs = jobs or cores()
        self._pool: ProcessPoolExecutor | None = None
        self._done = 0

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self, records: Sequence[Record]) -> list[np.ndarray | str]:
        """Measure the cell of each record, as `morphology.vector_of` does; an error message where that fails."""
        count = max(0, _SERIAL_START - self._done) if self._jobs > 1 else len(records)
        self._done += len(records)
        results = [_measure(record) for record in records[:count]]
        if count < len(records):
            self._pool = self._pool or worker_pool(self._jobs)
            try:
                results += self._pool.map(_measure, records[count:], chunksize=_CHUNK)
            except BrokenProcessPool:
                raise DeviceError("a process was killed, probably for lack of memory; try fewer --jobs") from None
        return results


def _measure(record: Record) -> np.ndarray | str:
    from wbctool.measuring.morphology import vector_of  # scikit-image takes half a second

    try:
        return vector_of(record)
    except ImageError as error:
        return str(error)
    except MemoryError:
        return f"{record['id']}: out of memory; give more memory or fewer --jobs"
    except Exception as error:  # one bad record never stops a folder
        return f"{record['id']}: unexpected {type(error).__name__}: {error}"
