"""The whole chain on one page: bars → trajectories → networks for each optimizer and seed → test → report.

    10-pilot-encoder/    the encoder of the pilot, where there is more than one round of trajectories
    15-pilot-study-r1/   the critic and actor that collect round 1, trained on the rounds before it
    20-research-r0/      trajectories; each round's store begins with the rounds before it, the last one is frozen
    50-arms/             one folder per optimizer and seed
    70-timing.json       time of an optimizer step
    report/              report.html

Every stage leaves a file when it is done and is skipped when that file stands there, so an interrupted run continues
and ends with the same numbers.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from halfstep import files
from halfstep.backtest.registry import record_trials
from halfstep.backtest.report import ReportData, write_report
from halfstep.cli.frame import Job, Outcome, Program
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.arms import arms_of, run_arms
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.processes import failed_tasks
from halfstep.cli.programs.research import collect_round
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import study_encoder
from halfstep.cli.programs.summary import summarise
from halfstep.cli.programs.timing import step_times
from halfstep.cli.programs.trials import arm_trials
from halfstep.config.tables import Config
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.store import EpisodeStore
from halfstep.market.write import write_bars
from halfstep.progress import Progress
from halfstep.training.policy import NeuralPolicy


def run_all(
    config: Config, folder: Path, market: Market, progress: Progress
) -> tuple[ReportData, dict[str, Any]]:
    """Do everything; returns the report's data and the final metrics."""
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
    times = _timing(config, market, folder / "70-timing.json")
    data, metrics = summarise(config, market, arms, times, folder / "50-arms", openings=openings)
    write_report(data, folder / "report" / "report.html")
    files.write_text(folder / "metrics.jsonl", "".join(metric_lines(folder)))
    return data, metrics


def collect(config: Config, market: Market, folder: Path, progress: Progress) -> Path:
    """Collect all rounds of trajectories: the first by noise, each further one by an actor trained on those before.

    Returns:
        The folder of the last round, whose store holds all.
    """
    newest = folder / "20-research-r0"
    collect_round(config, market, newest, progress, policy=NoisePolicy(market.rules.lot_cap))
    if config.run.rounds > 1:
        optimizer, seed = config.run.optimizer, config.run.seed
        pilot = folder / "10-pilot-encoder"
        _, contexts = study_encoder(config, market, pilot, progress, optimizer=optimizer, seed=seed)
        for number in range(1, config.run.rounds):
            before, newest = newest, folder / f"20-research-r{number}"
            store = EpisodeStore.open(episodes_folder(before), expect=market.store_header)
            actor = study_policy(
                config, market, folder / f"15-pilot-study-r{number}", progress, encoder_folder=pilot, contexts=contexts, store=store,
                optimizer=optimizer, seed=seed,
            ).actor  # fmt: skip
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


def _timing(config: Config, market: Market, path: Path) -> dict[str, float]:
    if not path.exists():
        files.write_json(path, step_times(config, market.features.names))
    times = json.loads(path.read_text(encoding="utf-8"))
    return {name: median for name, (median, _, _) in times.items()}


def summary_tables(data: ReportData) -> tuple[RenderableType, ...]:
    """Return the optimizers and the baselines as tables, and the verdicts."""
    table = Table(title=f"{data.title} · {data.headline}")
    for heading in (
        "optimizer",
        "validation loss (95 %)",
        "state bytes",
        "step ms",
        "net profit on the test (95 %)",
    ):
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for o in data.optimizers:
        step = "--" if o.step_ms is None else f"{o.step_ms:.2f}"
        table.add_row(o.name, o.loss_text, f"{o.state_bytes:,}", step, o.net_text)
    baselines = Table(title="Baselines on the same bars")
    for heading in ("rule", "net profit", "note"):
        baselines.add_column(heading, justify="right" if heading == "net profit" else "left")
    for line in data.baselines:
        baselines.add_row(line.name, line.net, line.note)
    verdicts = [o.verdict for o in data.optimizers if o.verdict]
    return (table, baselines, *verdicts, data.verdict)


def _work(job: Job[NoInputs]) -> Outcome:
    data, metrics = run_all(job.config, job.folder.path, job.market, job.progress)
    report = (job.folder.path / "report" / "report.html").absolute()
    return Outcome(metrics=metrics, shown=summary_tables(data), last=(f"Report: {report}",))


PROGRAM = Program(verb="run", work=_work, plan=lambda job: run_steps(job.config, job.market))
