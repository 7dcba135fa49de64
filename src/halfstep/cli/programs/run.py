"""The whole chain on one page: bars → trajectories → networks for each optimizer and seed → test → report.

    10-pilot-encoder/    the encoder of the pilot, where there is more than one round of trajectories
    15-pilot-study-r1/   the critic and actor that collect round 1, trained on the rounds before it; those of a later
                         round go on from the round before
    20-research-r0/      trajectories; each round's store begins with the rounds before it, the last one is frozen
    50-arms/             one folder per optimizer and seed
    60-cloning/          a policy that only imitates the trajectories, for comparison
    65-memory/           bytes that each optimizer keeps
    70-timing.json       time of an optimizer step
    report/              report.html, metrics.json and tables/ with the same figures

Every stage leaves a file when it is done and is skipped when that file stands there, so an interrupted run continues
and ends with the same numbers. An arm that fails stops no other: the report is then marked incomplete, and a
continuation does the arm again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfstep import files
from halfstep.backtest.comparison import FailedArm
from halfstep.backtest.content import BASELINES, OPTIMIZERS, Report
from halfstep.backtest.registry import record_trials
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.arms import Arm, arms_of, check_optimizers, run_arms
from halfstep.cli.programs.data_baselines import clone_policy
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import noise_policy
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.processes import Failure, failed_tasks, incomplete_status
from halfstep.cli.programs.report import page_of, summary_tables, write_report
from halfstep.cli.programs.research import collect_round
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import study_encoder
from halfstep.cli.programs.summary import Costs, summarise
from halfstep.cli.programs.timing import memory_figures, step_times
from halfstep.cli.programs.trials import arm_trials, failed_trials
from halfstep.cli.programs.words import command_line
from halfstep.config.tables import Config
from halfstep.experience.store import EpisodeStore
from halfstep.market.write import write_bars
from halfstep.progress import Progress
from halfstep.training.policy import NeuralPolicy


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run found.

    Attributes:
        report: written already.
        metrics: for ``metrics.json``.
        failures: of arms, by name.
    """

    report: Report
    metrics: dict[str, Any]
    failures: Mapping[str, Failure]


def run_all(config: Config, folder: Path, market: Market, progress: Progress) -> RunResult:
    """Do everything; continues what was interrupted in the folder.

    Raises:
        HalfstepError: every arm of the optimizer that the report leads with failed; the other arms are finished.
    """
    if not (folder / "bars.parquet").exists():
        write_bars(market.bars, folder / "bars.parquet")
    episodes = collect(config, market, folder, progress)
    openings = open_test(config, market, folder)  # before an arm trades it
    home = folder / "50-arms"
    arms, failures = run_arms(config, arms_of(config), episodes_folder(episodes), home, progress)
    lost = [arm for arm in arms_of(config) if arm.name in failures]
    record_trials(arm_trials(config, market, arms, program="run", run=folder))
    record_trials(failed_trials(config, market, lost, program="run", run=folder))
    if config.compare.headline not in {record["optimizer"] for record in arms}:
        raise failed_tasks(
            {arm.name: failures[arm.name] for arm in lost if arm.optimizer == config.compare.headline}
        )
    store = EpisodeStore.open(episodes_folder(episodes), expect=market.store_header)
    first = Arm(config.compare.headline, 1)
    cloned = None
    if first not in lost:  # of another seed's encoder it would not be what a continuation trains
        cloned = clone_policy(
            config, market, folder / "60-cloning", progress, encoder_folder=home / first.name, store=store
        )
    times = _timing(config, market, folder / "70-timing.json")
    memory = memory_figures(config, market.features.names, folder / "65-memory")
    costs = Costs(
        steps=times,
        predicted_bytes={name: found.formula for name, found in memory.items()},
        peak_bytes={name: found.peak_resident for name, found in memory.items()},
        memory_method="CPU: largest resident size of a fresh process with three steps",
    )
    failed = [
        FailedArm(
            optimizer=arm.optimizer,
            seed=arm.seed,
            error=failures[arm.name].error,
            log=failures[arm.name].log.relative_to(folder).as_posix(),
        )
        for arm in lost
    ]
    report = summarise(
        config,
        market,
        arms,
        costs,
        openings=openings,
        command=command_line("run", config),
        store=store,
        cloned=cloned,
        folders={arm.name: home / arm.name for arm in arms_of(config)},
        failed=failed,
    )
    write_report(report, folder)
    files.write_text(folder / "metrics.jsonl", "".join(metric_lines(folder)))
    return RunResult(report=report, metrics=final_metrics(report, failed), failures=failures)


def collect(config: Config, market: Market, folder: Path, progress: Progress) -> Path:
    """Collect all rounds of trajectories: the first by noise, each further one by an actor trained on those before.

    Critic and actor of a round go on from those of the round before.

    Returns:
        The folder of the last round, whose store holds all.
    """
    newest = folder / "20-research-r0"
    collect_round(config, market, newest, progress, policy=noise_policy(config))
    if config.run.rounds > 1:
        optimizer, seed = config.run.optimizer, config.run.seed
        pilot = folder / "10-pilot-encoder"
        _, contexts = study_encoder(config, market, pilot, progress, optimizer=optimizer, seed=seed)
        studied = None
        for number in range(1, config.run.rounds):
            before, newest = newest, folder / f"20-research-r{number}"
            store = EpisodeStore.open(episodes_folder(before), expect=market.store_header)
            home = folder / f"15-pilot-study-r{number}"
            actor = study_policy(
                config, market, home, progress, encoder_folder=pilot, contexts=contexts, store=store, optimizer=optimizer,
                seed=seed, previous=studied,
            ).actor  # fmt: skip
            studied = home
            collect_round(
                config,
                market,
                newest,
                progress,
                policy=NeuralPolicy(actor, contexts),
                number=number,
                previous=before,
            )
    return newest


def metric_lines(folder: Path) -> list[str]:
    """Return what every stage recorded, one JSON object per line: ``where`` is the stage's folder."""
    return [
        json.dumps({"where": path.parent.relative_to(folder).as_posix(), **json.loads(line)}) + "\n"
        for path in sorted(folder.glob("*/**/metrics.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def _timing(config: Config, market: Market, path: Path) -> dict[str, tuple[float, float, float]]:
    if not path.exists():
        files.write_json(path, step_times(config, market.features.names))
    times = json.loads(path.read_text(encoding="utf-8"))
    return {name: (median, low, high) for name, (median, low, high) in times.items()}


CLOCK = ("step_ms", "step_low_ms", "step_high_ms", "seconds", "peak_bytes")
"""Columns of the optimizers' table that depend on the clock and the machine."""


def final_metrics(report: Report, failed: Sequence[FailedArm]) -> dict[str, Any]:
    """Return the figures of a report that others continue with; those of the clock stand under ``clock``."""
    optimizers = report.table(OPTIMIZERS.key)
    baselines = report.table(BASELINES.key)
    records = [] if optimizers is None else optimizers.frame.to_dicts()
    return {
        "complete": not failed,
        "failed": {arm.name: {"error": arm.error, "log": arm.log} for arm in failed},
        "verdict": report.verdict,
        "rows": {row.key: row.value for row in report.rows() if row.unit != "text"},
        "baselines": [] if baselines is None else baselines.frame.drop("note").to_dicts(),
        "optimizers": {
            record["optimizer"]: {name: value for name, value in record.items() if name not in CLOCK}
            for record in records
        },
        "clock": {record["optimizer"]: {name: record[name] for name in CLOCK} for record in records},
    }


def _open(request: Request[NoInputs], market: Market) -> None:  # noqa: ARG001
    check_optimizers(request.config)


def _work(job: Job[NoInputs]) -> Outcome:
    found = run_all(job.config, job.folder.path, job.market, job.progress)
    page = page_of(job.folder.path).absolute()
    return Outcome(
        metrics=found.metrics, shown=summary_tables(found.report), last=(f"Report: {page}",),
        status=incomplete_status(found.failures),
    )  # fmt: skip


PROGRAM = Program(verb="run", open=_open, work=_work, plan=lambda job: run_steps(job.config, job.market))
