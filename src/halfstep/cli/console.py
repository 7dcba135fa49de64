"""What a person sees while a program works: bars with rate and time left, or plain lines without a terminal."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.progress import TaskID

PLAIN_WIDTH = 132  # columns where there is no terminal
PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal


def console() -> Console:
    """Return the console for people: standard error, so that standard output stays free for machines."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PLAIN_WIDTH)


def output() -> Console:
    """Return the console of results that are themselves the product of a verb: standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def progress_for(target: Console, log: Callable[[str], None]) -> "BarProgress | LineProgress":
    """Return a bar where ``target`` is a terminal, else lines; ``log`` takes a line when a piece of work ends."""
    return BarProgress(target, log) if target.is_terminal else LineProgress(target, log)


class BarProgress:
    """One rich bar per piece of work."""

    def __init__(self, target: Console, log: Callable[[str], None]) -> None:
        self._console, self._log = target, log
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._meter = _Meter()

    def start(self, name: str, total: int, unit: str) -> None:
        """Show a new bar."""
        self.finish()
        self._meter.start(name, total, unit)
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>18}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task(name, total=total, rate="", figures="")

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar."""
        self._meter.advance(done, figures)
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, advance=done, rate=self._meter.rate(), figures=self._meter.figures()
            )

    def finish(self) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()
            self._log(self._meter.line())
        self._progress = self._task = None


class LineProgress:
    """One plain line every ten seconds, and one at the end of each piece of work."""

    def __init__(self, target: Console, log: Callable[[str], None]) -> None:
        self._console, self._log = target, log
        self._meter = _Meter()
        self._last = 0.0

    def start(self, name: str, total: int, unit: str) -> None:
        """Begin to count."""
        self._meter.start(name, total, unit)
        self._last = time.monotonic()

    def advance(self, done: int, **figures: float) -> None:
        """Count, and print a line if the last one is old."""
        self._meter.advance(done, figures)
        if time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            self._console.print(self._meter.line(), soft_wrap=True)

    def finish(self) -> None:
        """Print how it ended."""
        if self._meter.name:
            self._console.print(self._meter.line(), soft_wrap=True)
            self._log(self._meter.line())
        self._meter = _Meter()


class _Meter:
    """Counts, rate and newest figures of one piece of work."""

    def __init__(self) -> None:
        self.name = ""

    def start(self, name: str, total: int, unit: str) -> None:
        self.name, self._total, self._unit = name, total, unit
        self._done, self._newest, self._began = 0, dict[str, float](), time.monotonic()

    def advance(self, done: int, figures: dict[str, float]) -> None:
        self._done += done
        self._newest |= figures

    def rate(self) -> str:
        elapsed = time.monotonic() - self._began
        if elapsed <= 0 or not self._done:
            return ""
        rate = self._done / elapsed
        digits = 0 if rate >= 10 else 2
        return f"{rate:,.{digits}f} {self._unit}/s"

    def figures(self) -> str:
        return " ".join(f"{name} {value:.4g}" for name, value in self._newest.items())

    def line(self) -> str:
        elapsed = time.monotonic() - self._began
        left = elapsed / self._done * (self._total - self._done) if self._done else float("inf")
        ending = f"{left:.0f} s left" if 0 < left < float("inf") else f"{elapsed:.1f} s"
        parts = [
            f"{self.name}: {self._done:,}/{self._total:,} {self._unit}",
            self.rate(),
            self.figures(),
            ending,
        ]
        return ", ".join(part for part in parts if part)
