"""The same function over many items, in processes of their own that never outlive the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.connection import Connection
from typing import Any

from halfstep.progress import Progress

POLL_SECONDS = 0.2

_worker: Any = None  # what a worker process was started with


def side_by_side(
    function: Callable[..., None],
    items: Sequence[Any],
    *,
    jobs: int,
    shared: tuple[Any, ...],
    progress: Progress,
    begin: Callable[[], object] | None = None,
) -> None:
    """Call ``function(item, *shared, progress)`` for every item; with one job or one item in this process.

    Args:
        function: of a module, as everything it is given: worker processes import it by name.
        jobs: processes side by side.
        shared: sent to every process once.
        progress: what the calls `advance` is added up.
        begin: called first in every worker process, for example to limit its threads.

    Raises:
        Exception: the first that a call raised; the other processes are ended.
    """
    if min(jobs, len(items)) <= 1:
        for item in items:
            function(item, *shared, progress)
        return
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    lifeline, held = context.Pipe(duplex=False)
    start = (function, shared, done, lifeline, begin)
    with held, ProcessPoolExecutor(min(jobs, len(items)), context, _begin_worker, start) as pool:
        pending = {pool.submit(_call, item) for item in items}
        seen = 0
        try:
            while pending:
                finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                now = int(done.value)
                if now > seen:
                    progress.advance(now - seen)
                    seen = now
                for call in finished:
                    call.result()
        except BaseException:
            held.close()  # ends the workers now instead of after their work
            raise


class _Counter:
    """Adds what a worker does to the number that all of them share."""

    def __init__(self, done: Any) -> None:
        self._done = done

    def start(self, name: str, total: int, unit: str) -> None:
        pass

    def advance(self, done: int, **figures: float) -> None:  # noqa: ARG002  # the protocol's signature
        with self._done.get_lock():
            self._done.value += done

    def finish(self) -> None:
        pass


def _begin_worker(
    function: Callable[..., None],
    shared: tuple[Any, ...],
    done: Any,
    lifeline: Connection,
    begin: Callable[[], object] | None,
) -> None:
    """Prepare a worker process, which ends when the other end of ``lifeline`` closes: also when its parent is killed."""
    global _worker
    _worker = (function, shared, _Counter(done))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    if begin is not None:
        begin()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)


def _call(item: Any) -> None:
    function, shared, counter = _worker
    function(item, *shared, counter)
