"""What every program of the command line does: open its inputs, make or continue its folder, work, and say what came out.

A program is a `Program`: functions from a `Job` to steps and figures. Wrong input is found before the folder is made,
so it leaves nothing behind.
"""

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console, RenderableType

from halfstep import files
from halfstep.cli import events
from halfstep.cli.console import PLAIN_WIDTH, console, progress_for
from halfstep.cli.flags import Request
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.market import Market, load_market, market_facts
from halfstep.cli.run_folder import Facts, RunFolder
from halfstep.cli.torchrun import joined
from halfstep.config.load import to_toml
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.progress import SILENT, Progress
from halfstep.training.ranks import ALONE, Ranks

Inputs = TypeVar("Inputs", bound=NoInputs)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One piece of work of a plan.

    Attributes:
        what: in words, with its size.
        seconds: estimate for the machine of the speed table, or None.
        stop: what ends it before its full size, or an empty string.
    """

    what: str
    seconds: float | None = None
    stop: str = ""


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Inputs]):
    """What a program works with.

    Attributes:
        request: the command line: flags, inputs, configuration.
        market: bars, features, spans and rules of the configuration.
        opened: what the program's ``open`` made of its inputs.
        folder: the run's folder, locked; None while a plan is made, and on all ranks but the first.
        path: where the results go, on every rank.
        ranks: the processes that do this job together.
    """

    request: Request[Inputs]
    market: Market
    opened: Any
    progress: Progress = SILENT
    screen: Console = field(default_factory=console)
    run_folder: RunFolder | None = None
    path: Path = Path()
    ranks: Ranks = ALONE

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return self.request.config

    @property
    def inputs(self) -> Inputs:
        """The program's own inputs."""
        return self.request.inputs

    @property
    def folder(self) -> RunFolder:
        """The run's folder.

        Raises:
            RuntimeError: while a plan is made, and on all ranks but the first, there is none.
        """
        if self.run_folder is None:
            raise RuntimeError("a plan, and any rank but the first, has no folder")
        return self.run_folder


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a program has to say at its end.

    Attributes:
        metrics: all figures, for ``metrics.json``; times of the clock stand under ``clock``.
        shown: tables and sentences for people, also logged.
        last: the last lines on the screen, for example where the report is.
        status: exit status; above 0 where the result is incomplete, and the manifest then says ``failed``.
    """

    metrics: Mapping[str, Any]
    shown: tuple[RenderableType, ...] = ()
    last: tuple[str, ...] = ()
    status: int = 0


@dataclass(frozen=True, kw_only=True)
class Program(Generic[Inputs]):
    """One program.

    Attributes:
        verb: its name on the command line.
        work: does it.
        plan: its steps, for ``--dry-run``.
        open: opens and checks the inputs, before anything is written.
        parents: the files and folders of earlier programs that it reads; their hashes go to the manifest.
        with_test: whether it may read the bars of the test span.
        shared: settings by name, of which each rank of a distributed job takes its part.
    """

    verb: str
    work: Callable[[Job[Inputs]], Outcome]
    plan: Callable[[Job[Inputs]], list[Step]]
    open: Callable[[Request[Inputs], Market], Any] = lambda _request, _market: None
    parents: Callable[[Inputs], Mapping[str, Path]] = lambda _inputs: {}
    with_test: bool = True
    shared: Callable[[Config], Mapping[str, int]] = lambda _config: {}


def run_program(program: Program[Inputs], request: Request[Inputs]) -> int:
    """Run a program as the command line asks for it; returns the exit status."""
    with joined() as ranks:
        job = ranks.agreed(lambda: _opened(program, request, ranks))
        if request.flags.dry_run:
            sys.stdout.write(to_toml(request.config) + plan_text(program.plan(job)))
            return 0
        torch.set_num_threads(request.config.run.threads)
        if not ranks.is_first:
            return program.work(replace(job, path=ranks.from_first(Path))).status
        return _run_first(program, job)


def _opened(program: Program[Inputs], request: Request[Inputs], ranks: Ranks) -> Job[Inputs]:
    """Return the job with its inputs, read and checked."""
    for name, number in program.shared(request.config).items():
        if number % ranks.world:
            flag, above = name.replace("_", "-"), -(-number // ranks.world) * ranks.world
            raise ConfigError(
                f"{name}: {number}, must be divisible by the {ranks.world} processes. Set --{flag} {above}, or start "
                "another number of processes."
            )
    if request.config.run.tensorboard:
        events.check_installed()
    market = load_market(request.config, with_test=program.with_test)
    return Job(request=request, market=market, opened=program.open(request, market), ranks=ranks)


def _run_first(program: Program[Inputs], job: Job[Inputs]) -> int:
    """Work in the run's folder, and say what came out; returns the exit status."""
    request, market, screen = job.request, job.market, job.screen
    parents = {name: _parent(path) for name, path in program.parents(request.inputs).items()}
    with request.folder(program.verb, Facts(data=market_facts(market), parents=parents)) as folder:
        screen.print(f"{market.bars.covers()} Results: {folder.path}", soft_wrap=True)
        path = job.ranks.from_first(Path, folder.path)
        shown = progress_for(screen, folder.log)
        with events.recorded(folder.path, shown, wanted=request.config.run.tensorboard) as progress:
            outcome = program.work(replace(job, run_folder=folder, path=path, progress=progress))
        folder.write_metrics(outcome.metrics)
        folder.is_complete = outcome.status == 0
        _show(outcome, screen)
        folder.log(_as_text(outcome))
        if request.flags.json:
            sys.stdout.write(json.dumps(outcome.metrics, indent=2, allow_nan=False) + "\n")
        for line in outcome.last:
            screen.print(line, soft_wrap=True)
    return outcome.status


def plan_text(steps: list[Step]) -> str:
    """Return a plan as comments of a TOML file: what is done, about how long it takes, what stops it earlier."""
    lines = ["", "# plan, with times for two cores of 2020:"]
    for number, step in enumerate(steps, 1):
        time = "" if step.seconds is None else f", about {_duration(step.seconds)}"
        stop = f"; stops {step.stop}" if step.stop else ""
        lines.append(f"# {number}. {step.what}{time}{stop}")
    total = sum(step.seconds or 0.0 for step in steps)
    lines.append(f"# in all about {_duration(total)}")
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _parent(path: Path) -> dict[str, str]:
    return {"path": str(path.absolute()), "sha256": files.sha256_of_tree(path)}


def _show(outcome: Outcome, screen: Console) -> None:
    for each in outcome.shown:
        screen.print(each, soft_wrap=isinstance(each, str))


def _as_text(outcome: Outcome) -> str:
    text = io.StringIO()
    _show(outcome, Console(file=text, width=PLAIN_WIDTH))
    return text.getvalue()
