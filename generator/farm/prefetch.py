"""One step ahead: the next thing is made in a thread while the one before is used, and no more than that one waits.

Who stops asking does not wait for the thread. A generator that nobody closes is closed by the garbage collector, in whatever
thread it happens to run: waiting there can wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def prefetch(make: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield what `make` returns of each item, in order; raises what it raises."""
    pending: Future[U] | None = None
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        for item in items:
            before, pending = pending, pool.submit(make, item)
            if before is not None:
                yield _result(before)
        if pending is not None:
            yield _result(pending)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[U]) -> U:
    wait([future])
    return future.result()
