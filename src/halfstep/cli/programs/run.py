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
and ends with the same numbers.
"""

import json
from pathlib import Path
from typing import Any

from halfstep import files
from halfstep.backtest.content import BASELINES, OPTIMIZERS, Report
from halfstep.backtest.registry import record_trials
from halfstep.cli.frame import Job, Outcome, Program
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.arms import arms_of, run_arms
from halfstep.cli.programs.data_baselines import clone_policy
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import noise_policy
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.processes import failed_tasks
from halfstep.cli.programs.report import page_of, summary_tables, write_report
from halfstep.cli.programs.research import collect_round
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import study_encoder
from halfstep.cli.programs.summary import Costs, summarise
from halfstep.cli.programs.timing import memory_figures, step_times
from halfstep.cli.programs.trials import arm_trials
from halfstep.config.tables import Config
from halfstep.experience.store import EpisodeStore
from halfstep.market.write import write_bars
from halfstep.progress import Progress
from halfstep.training.policy import NeuralPolicy


def run_all(
    config: Config, folder: Path, market: Market, progress: Progress
) -> tuple[Report, dict[str, Any]]:
    """Do everything; returns the report and the final metrics."""
    if not (folder / "bars.parquet").exists():
        write_bars(market.bars, folder / "bars.parquet")
    episodes = collect(config, market, folder, progress)
    openings = open_test(config, market, folder)  # before an arm trades it
    arms, failures = run_arms(
        config, arms_of(config), episodes_folder(episodes), folder / "50-arms", progress
    )
    if failures:
        raise failed_tasks(failures)
    record_trials(arm_trials(config, market, arms, program="run", run=folder))
    store = EpisodeStore.open(episodes_folder(episodes), expect=market.store_header)
    headline = f"{config.compare.headline}-s1"
    cloned = clone_policy(
        config, market, folder / "60-cloning", progress, encoder_folder=folder / "50-arms" / headline, store=store
    )  # fmt: skip
    times = _timing(config, market, folder / "70-timing.json")
    memory = memory_figures(config, market.features.names, folder / "65-memory")
    costs = Costs(
        steps=times,
        predicted_bytes={name: found.formula for name, found in memory.items()},
        peak_bytes={name: found.peak_resident for name, found in memory.items()},
        memory_method="CPU: largest resident size of a fresh process with three steps",
    )
    report = summarise(
        config,
        market,
        arms,
        costs,
        openings=openings,
        store=store,
        cloned=cloned,
        folders={arm.name: folder / "50-arms" / arm.name for arm in arms_of(config)},
    )
    write_report(report, folder)
    files.write_text(folder / "metrics.jsonl", "".join(metric_lines(folder)))
    return report, final_metrics(report)


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


def final_metrics(report: Report) -> dict[str, Any]:
    """Return the figures of a report that others continue with; those of the clock stand under ``clock``."""
    optimizers = report.table(OPTIMIZERS.key)
    baselines = report.table(BASELINES.key)
    records = [] if optimizers is None else optimizers.frame.to_dicts()
    return {
        "verdict": report.verdict,
        "rows": {row.key: row.value for row in report.rows() if row.unit != "text"},
        "baselines": [] if baselines is None else baselines.frame.drop("note").to_dicts(),
        "optimizers": {
            record["optimizer"]: {name: value for name, value in record.items() if name not in CLOCK}
            for record in records
        },
        "clock": {record["optimizer"]: {name: record[name] for name in CLOCK} for record in records},
    }


def _work(job: Job[NoInputs]) -> Outcome:
    report, metrics = run_all(job.config, job.folder.path, job.market, job.progress)
    page = page_of(job.folder.path).absolute()
    return Outcome(metrics=metrics, shown=summary_tables(report), last=(f"Report: {page}",))


PROGRAM = Program(verb="run", work=_work, plan=lambda job: run_steps(job.config, job.market))
