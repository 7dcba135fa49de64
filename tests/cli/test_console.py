"""Progress as a person and a log see it."""

import io

import pytest
from rich.console import Console

from halfstep.cli import console as module
from halfstep.cli.console import BarProgress, LineProgress, progress_for
from halfstep.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_show_rate_figures_and_time_left(clock: Clock) -> None:
    out, log = io.StringIO(), list[str]()
    progress = LineProgress(Console(file=out, width=200), log.append)
    assert isinstance(progress, Progress)
    progress.start("research round 0", 4000, "decisions")
    clock.now = 5.0
    progress.advance(500)
    assert out.getvalue() == ""  # a line every ten seconds, not every step
    clock.now = 10.0
    progress.advance(500, loss=0.25)
    assert (
        out.getvalue() == "research round 0: 1,000/4,000 decisions, 100 decisions/s, loss 0.25, 30 s left\n"
    )
    clock.now = 40.0
    progress.advance(3000)
    progress.finish()
    assert log == ["research round 0: 4,000/4,000 decisions, 100 decisions/s, loss 0.25, 40.0 s"]
    assert out.getvalue().endswith(log[0] + "\n")


def test_bars_are_drawn_on_a_terminal() -> None:
    out, log = io.StringIO(), list[str]()
    target = Console(file=out, width=140, force_terminal=True)
    progress = progress_for(target, log.append)
    assert isinstance(progress, BarProgress)
    progress.start("study adamw seed 1", 600, "updates")
    progress.advance(300, critic=1.5)
    progress.finish()
    drawn = out.getvalue()
    assert "study adamw seed 1" in drawn
    assert "300/600" in drawn
    assert "updates/s" in drawn
    assert "critic 1.5" in drawn
    assert log[0].startswith("study adamw seed 1: 300/600 updates")
    assert isinstance(progress_for(Console(file=io.StringIO()), log.append), LineProgress)
