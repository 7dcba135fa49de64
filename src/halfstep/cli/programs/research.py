"""`halfstep research`: bars, and an actor if there is one → trajectories over the training span."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import ResearchInputs
from halfstep.cli.programs.episodes import begin_store, next_number
from halfstep.cli.programs.estimates import research_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import (
    contexts_of,
    load_actor,
    load_encoder,
    model_file,
    needed_model,
    noise_policy,
)
from halfstep.cli.programs.processes import Task, failed_tasks, run_side_by_side
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.experience.policy import Policy
from halfstep.experience.research import ResearchReport, ResearchTask, collect_group, report_round, unfinished
from halfstep.experience.store import EpisodeStore
from halfstep.experience.tally import ELEMENTS, SIDES, Tally
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor
from halfstep.progress import Progress
from halfstep.training.loop import write_metric_lines
from halfstep.training.policy import NeuralPolicy, weights_hash

GROUP_SHARES = 100  # in which a group that is played in a process of its own reports


def collect_round(
    config: Config,
    market: Market,
    folder: Path,
    progress: Progress,
    *,
    policy: Policy,
    number: int = 0,
    previous: Path | None = None,
) -> ResearchReport:
    """Collect one round of trajectories in a folder, whose store begins with that of the folder before it.

    Groups are played side by side in as many processes as the configuration has; it has no influence on the result.
    """
    store = begin_store(folder, market, previous=previous)
    task = round_task(config, market, policy, number)
    todo = unfinished(task, store)
    started = time.perf_counter()
    if min(config.run.processes, len(todo)) > 1:
        _collect_side_by_side(task, store, todo, folder, config, progress)
    else:
        passes = sum(len(task.groups[k]) for k in todo)
        progress.start(f"research round {number}", passes * task.steps, "decisions")
        for k in todo:
            collect_group(k, task, store, progress)
    progress.finish()
    report = report_round(task, store, todo, time.perf_counter() - started)
    write_metric_lines(folder, "research", [{"step": number, **report.tally.as_json()}], seed=config.run.seed)
    return report


def round_task(config: Config, market: Market, policy: Policy, number: int) -> ResearchTask:
    """Return what decides the episodes of a round over the training span.

    Raises:
        CoverageError: the span is shorter than a pass.
    """
    return ResearchTask(
        table=market.table, rules=market.rules, policy=policy, settings=config.research, round_number=number,
        span=market.spans.train, seed=config.run.seed,
    )  # fmt: skip


def _collect_side_by_side(
    task: ResearchTask, store: EpisodeStore, todo: list[int], folder: Path, config: Config, progress: Progress
) -> None:
    progress.start(f"research round {task.round_number}", GROUP_SHARES * len(todo), "%")
    tasks = [
        Task(name=f"group {k}", call=_collect, arguments=(k, task, store), log=folder / f"group-{k}-log.txt")
        for k in todo
    ]
    failures = run_side_by_side(
        tasks, processes=config.run.processes, threads=config.run.threads, code=(), progress=progress
    )
    if failures:
        raise failed_tasks(failures)


def _collect(number: int, task: ResearchTask, store: EpisodeStore, progress: Progress) -> None:
    progress.start("group", len(task.groups[number]) * task.steps, "decisions")
    collect_group(number, task, store, progress)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    folder: Path
    encoder: Encoder
    actor: Actor


def _folders(inputs: ResearchInputs) -> tuple[Path, Path] | None:
    """Return the folders of encoder and actor; None: noise acts."""
    actor = inputs.actor or (
        inputs.encoder if inputs.encoder and model_file(inputs.encoder, "actor").exists() else None
    )
    if actor is None:
        if inputs.encoder is not None:
            raise ConfigError(
                f"encoder: {inputs.encoder}, but no actor. Name its folder with --actor (halfstep study makes one), "
                "or leave both out: then noise acts."
            )
        return None
    return inputs.encoder or actor, actor


def _open(request: Request[ResearchInputs], market: Market) -> _Opened | None:
    round_task(
        request.config, market, noise_policy(request.config), _round(request.inputs)
    )  # raises what is wrong
    folders = _folders(request.inputs)
    if folders is None:
        return None
    encoder = load_encoder(folders[0], request.config, market)
    actor = load_actor(folders[1], request.config, weights_hash(encoder))
    return _Opened(folder=folders[0], encoder=encoder, actor=actor)


def _parents(inputs: ResearchInputs) -> dict[str, Path]:
    folders = _folders(inputs)
    found = (
        {}
        if folders is None
        else {kind: needed_model(at, kind) for kind, at in zip(("encoder", "actor"), folders, strict=True)}
    )
    return found if inputs.previous is None else {**found, "previous": inputs.previous}


def _round(inputs: ResearchInputs) -> int:
    """Return the number of the round."""
    first = next_number(inputs.previous, "r")
    if inputs.round is not None and inputs.round < first:
        raise ConfigError(
            f"round: {inputs.round}, must be at least {first}: {inputs.previous} holds the rounds before it. "
            "Leave it out."
        )
    return first if inputs.round is None else inputs.round


def _plan(job: Job[ResearchInputs]) -> list[Step]:
    return research_steps(job.config, job.market)


def _work(job: Job[ResearchInputs]) -> Outcome:
    opened: _Opened | None = job.opened
    folder = job.folder.path
    policy: Policy = noise_policy(job.config)
    if opened is not None:
        policy = NeuralPolicy(opened.actor, contexts_of(opened.encoder, job.market, folder, opened.folder))
    report = collect_round(
        job.config, job.market, folder, job.progress, policy=policy, number=_round(job.inputs),
        previous=job.inputs.previous,
    )  # fmt: skip
    return Outcome(
        metrics=research_metrics(report),
        shown=(*tally_tables(report.tally, job.market), *report.tally.warnings()),
    )


def research_metrics(report: ResearchReport) -> dict[str, Any]:
    """Return the figures of a round; times of the clock stand under ``clock``."""
    return {
        "research": report.tally.as_json(),
        "warnings": list(report.tally.warnings()),
        "clock": {"research_seconds": report.seconds, "decisions_per_second": report.rate},
    }


def tally_tables(tally: Tally, market: Market) -> tuple[Table, ...]:
    """Return what trajectories hold, as tables for people."""
    n = max(tally.decisions, 1)
    facts = Table(title=f"{tally.episodes:,} episodes, {tally.decisions:,} decisions")
    for heading in ("outcome", "decisions", "share"):
        facts.add_column(heading, justify="left" if heading == "outcome" else "right")
    for name, count in tally.as_json()["outcomes"].items():
        facts.add_row(name, f"{count:,}", f"{count / n:.1%}")
    facts.add_row("in position", f"{tally.held:,}", f"{tally.in_position:.1%}")
    facts.add_row(
        "ruined episodes", f"{tally.terminated:,}", f"{tally.terminated / max(tally.episodes, 1):.1%}"
    )
    sides = Table(title="By side")
    for heading in ("side", "trades", f"result, {market.rules.currency}"):
        sides.add_column(heading, justify="left" if heading == "side" else "right")
    for side, trades, result in zip(SIDES, tally.trades, tally.results, strict=True):
        sides.add_row(side, f"{trades:,}", f"{result:,.2f}")
    bins = Table(title="Share of decisions by tenth of each element's range, %")
    bins.add_column("element")
    for k in range(tally.histograms.shape[1]):
        bins.add_column(f"{k / 10:.1f}", justify="right")
    for name, row in zip(ELEMENTS, tally.histograms, strict=True):
        bins.add_row(name, *(f"{100 * count / n:.1f}" for count in row))
    return facts, sides, bins


PROGRAM = Program(verb="research", open=_open, parents=_parents, plan=_plan, work=_work)
