"""Tasks side by side in processes of their own: results do not depend on how many, and a failure stays alone.

A worker process ends with its parent, also when that is killed. What a task raises is written to its log; the other
tasks go on.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from halfstep.cli.user_code import imported
from halfstep.errors import DivergenceError, HalfstepError, TaskError
from halfstep.progress import Progress

_SHARES = 100  # steps in which a task reports how far it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One call in a worker process.

    Attributes:
        name: for people.
        call: module-level function, called with ``arguments`` and a `Progress`.
        arguments: plain values.
        log: file that takes the traceback of a failure.
    """

    name: str
    call: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a task did not end well.

    Attributes:
        error: class and message on one line.
        exit_status: of the command line, if nothing but this had happened.
        log: where the traceback stands.
    """

    error: str
    exit_status: int
    log: Path


def run_side_by_side(
    tasks: Sequence[Task], *, processes: int, threads: int, code: Sequence[Path], progress: Progress
) -> dict[str, Failure]:
    """Run all tasks; returns the failures by the name of their task.

    Args:
        processes: at most so many at once.
        threads: of torch, in each process.
        code: Python files that each process runs first, for example to register optimizers.
    """
    workers: dict[Connection, _Worker] = {}
    failures: dict[str, Failure] = {}
    waiting = list(tasks)[::-1]
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                worker = _Worker(context, lifeline, threads, code)
                workers[worker.connection] = worker
                worker.give(waiting.pop())
            for ready in multiprocessing.connection.wait(list(workers)):
                worker = workers[ready]  # type: ignore[index]  # wait returns what it was given
                if not worker.listen(progress, failures):
                    continue
                if worker.is_alive and waiting:
                    worker.give(waiting.pop())
                else:
                    worker.end()
                    del workers[worker.connection]
    finally:
        held.close()  # ends the workers now instead of after their tasks
        for worker in workers.values():
            worker.process.join()
    return failures


def incomplete_status(failures: Mapping[str, Failure]) -> int:
    """Return the exit status of a program that goes on without some of its tasks.

    0 without failures; 3 where training diverged in one of them, because going on with the same settings gives the
    same; else 1.
    """
    if not failures:
        return 0
    diverged = DivergenceError.exit_status
    return diverged if diverged in {failure.exit_status for failure in failures.values()} else 1


def failed_tasks(failures: Mapping[str, Failure]) -> HalfstepError:
    """Return the error of a program that cannot go on without all of its tasks.

    It has the class of the first failure that training caused, else of the first.
    """
    statuses = {name: failure.exit_status for name, failure in failures.items()}
    name = min(
        statuses, key=lambda each: statuses[each] != DivergenceError.exit_status
    )  # the first of equals
    failure = failures[name]
    others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    kind = {DivergenceError.exit_status: DivergenceError, 1: TaskError}.get(
        failure.exit_status, HalfstepError
    )
    return kind(f"{name}{others} failed: {failure.error} The details are in {failure.log}.")


class _Worker:
    """One process, and the task it works on."""

    def __init__(self, context: Any, lifeline: Connection, threads: int, code: Sequence[Path]) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, lifeline, threads, [str(path) for path in code])
        )
        self.process.start()
        theirs.close()
        self.is_alive = True

    def give(self, task: Task) -> None:
        self._task, self._share = task, 0
        with contextlib.suppress(OSError):  # it died between two tasks: `listen` finds out
            self.connection.send((task.call, task.arguments, task.log))

    def listen(self, progress: Progress, failures: dict[str, Failure]) -> bool:
        """Take one message; returns whether the task has ended, well or not."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.is_alive = False
            error = f"its process ended with exit code {self.process.exitcode}"
            _append(self._task.log, f"{self._task.name}: {error}, without a traceback.\n")
            kind, content = (
                "failed",
                Failure(error=error, exit_status=TaskError.exit_status, log=self._task.log),
            )
        if kind == "share":
            share, figures = content
            self._move(progress, share, figures)
            return False
        if kind == "failed":
            failures[self._task.name] = content
        self._move(progress, _SHARES, {})
        return True

    def end(self) -> None:
        self.connection.close()  # the process sees the end of its work
        self.process.join()

    def _move(self, progress: Progress, share: int, figures: dict[str, float]) -> None:
        if share > self._share:
            progress.advance(share - self._share, **figures)
            self._share = share


def _serve(connection: Connection, lifeline: Connection, threads: int, code: list[str]) -> None:
    """Work on one task after the other, until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    while True:
        try:
            call, arguments, log = connection.recv()
        except EOFError:
            return
        try:
            while code:
                imported(code[0], flag="--compare.code")
                code.pop(0)
            call(*arguments, _Share(connection))
            connection.send(("done", None))
        except Exception as error:
            connection.send(("failed", failure_of(error, log)))


def _end_with(lifeline: Connection) -> None:
    """Wait for the lifeline to close, then end this process; its checkpoints are whole at any moment."""
    lifeline.poll(None)
    os._exit(1)


def failure_of(error: Exception, log: Path) -> Failure:
    """Write an error's traceback to a log, and return what is told of it."""
    _append(log, "".join(traceback.format_exception(error)))
    return Failure(
        error=f"{type(error).__name__}: {error}",
        exit_status=error.exit_status if isinstance(error, HalfstepError) else 1,
        log=log,
    )


def _append(log: Path, text: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(text)


class _Share:
    """Tells the parent process how far a task is: pieces of work are halves, quarters, ... of what is left."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begin, self._done, self._total, self._sent = 0.0, 0, 1, 0

    def start(self, name: str, total: int, unit: str) -> None:  # noqa: ARG002  # the protocol's signature
        self._begin = self._share()
        self._done, self._total = 0, max(1, total)

    def advance(self, done: int, **figures: float) -> None:
        self._done += done
        share = int(_SHARES * self._share())
        if share > self._sent:
            self._sent = share
            self._connection.send(("share", (share, figures)))

    def finish(self) -> None:
        pass

    def _share(self) -> float:
        return self._begin + 0.5 * (1 - self._begin) * min(1.0, self._done / self._total)
