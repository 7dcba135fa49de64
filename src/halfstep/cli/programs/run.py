"""The whole chain on one page: bars → trajectories → networks for each optimizer and seed → test → report.

    10-pilot/        encoder and, from the second round on, actor that collects trajectories
    20-episodes/     the store of trajectories, frozen before the arms begin
    50-arms/         one folder per optimizer and seed
    70-timing.json   time of an optimizer step
    report/          report.html

Every stage leaves a file when it is done and is skipped when that file stands there, so an interrupted run continues
and ends with the same numbers.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from halfstep import files
from halfstep.backtest.registry import record_trials
from halfstep.backtest.report import ReportData, write_report
from halfstep.cli.console import PLAIN_WIDTH
from halfstep.cli.programs.arms import Arm, arms_of, contexts_of, fit_encoder, fit_policy, run_arms
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.processes import failed_tasks
from halfstep.cli.programs.summary import summarise
from halfstep.cli.programs.timing import step_times
from halfstep.cli.programs.trials import arm_trials
from halfstep.cli.run_folder import RunFolder
from halfstep.config.tables import Config
from halfstep.errors import ResumeError
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.research import ResearchReport, research
from halfstep.experience.store import EpisodeStore
from halfstep.market.write import write_bars
from halfstep.progress import Progress
from halfstep.training.policy import NeuralPolicy


def run_all(
    config: Config, folder: RunFolder, market: Market, progress: Progress
) -> tuple[ReportData, dict[str, Any]]:
    """Do everything; returns the report's data and the final metrics."""
    torch.set_num_threads(config.run.threads)
    _record_data(folder, market)
    rounds = collect(config, market, folder.path, progress)
    arms, failures = run_arms(
        config, arms_of(config), folder.path / "20-episodes", folder.path / "50-arms", progress
    )
    if failures:
        raise failed_tasks(failures)
    record_trials(arm_trials(config, market, arms, program="run", run=folder.path))
    openings = _open_test(folder, market)
    times = _timing(config, market, folder.path / "70-timing.json")
    data, metrics = summarise(config, market, arms, times, folder.path / "50-arms", openings=openings)
    write_report(data, folder.path / "report" / "report.html")
    files.write_text(folder.path / "metrics.jsonl", "".join(metric_lines(folder.path, rounds)))
    folder.write_metrics(metrics)
    return data, metrics


def collect(config: Config, market: Market, folder: Path, progress: Progress) -> list[ResearchReport]:
    """Collect all rounds of trajectories: the first by noise, each further one by an actor trained on those before."""
    store = EpisodeStore.create(folder / "20-episodes", market.store_header, market.bars)
    reports = [_round(config, market, store, NoisePolicy(market.rules.lot_cap), 0, progress)]
    if config.run.rounds > 1:
        pilot = Arm(config.compare.headline, config.run.seed)
        encoder = fit_encoder(config, market, pilot, folder / "10-pilot", progress)
        contexts = contexts_of(encoder, market)
        for number in range(1, config.run.rounds):
            home = folder / "10-pilot" / f"round-{number}"
            actor = fit_policy(
                config, market, pilot, contexts, _rounds_before(store, number), home, progress
            ).actor
            reports.append(_round(config, market, store, NeuralPolicy(actor, contexts), number, progress))
    return reports


def metric_lines(folder: Path, rounds: list[ResearchReport]) -> list[str]:
    """Return what every stage recorded, one JSON object per line: ``where`` is the stage's folder."""
    lines: list[dict[str, Any]] = [
        {
            "where": "20-episodes", "round": number, "decisions": report.decisions, "outcomes": report.outcomes,
            "in_position": report.in_position, "histograms": report.histograms.tolist(),
        }
        for number, report in enumerate(rounds)
    ]  # fmt: skip
    for path in sorted(folder.glob("*/**/*-metrics.jsonl")):
        where = path.parent.relative_to(folder).as_posix()
        lines += [
            {"where": where, **json.loads(line)} for line in path.read_text(encoding="utf-8").splitlines()
        ]
    return [json.dumps(line) + "\n" for line in lines]


def _rounds_before(store: EpisodeStore, number: int) -> EpisodeStore:
    """Return the store as it was before a round, so that a continued run trains on the same episodes."""
    return store.up_to(number)


def _round(
    config: Config,
    market: Market,
    store: EpisodeStore,
    policy: NoisePolicy | NeuralPolicy,
    number: int,
    progress: Progress,
) -> ResearchReport:
    return research(
        table=market.table, rules=market.rules, policy=policy, settings=config.research, store=store,
        round_number=number, span=market.spans.train, seed=config.run.seed, progress=progress,
    )  # fmt: skip


def _record_data(folder: RunFolder, market: Market) -> None:
    """Write the bars and what identifies them; a continued run with other bars is refused."""
    path = folder.path / "bars.json"
    facts = {
        "hash": market.bars.hash, "bars": len(market.bars), "feature_set": market.features.set_id,
        "zone": market.bars.zone.name, "side": market.bars.side, "sha256": market.bars.source.sha256,
    }  # fmt: skip
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["hash"] != facts["hash"]:
            raise ResumeError(
                f"{folder.path}: made with bars {before['hash'][:8]}, now they are {market.bars.hash[:8]}. "
                "Give the same file, or start a new run with --out."
            )
    else:
        write_bars(market.bars, folder.path / "bars.parquet")
        files.write_json(path, facts)
    folder.record(data=facts)


def _open_test(folder: RunFolder, market: Market) -> int:
    """Record that this run opens its test span in ``runs/openings.jsonl``; returns how often it was opened."""
    log = Path("runs") / "openings.jsonl"
    span = {"bars": market.bars.hash, "span": list(market.split.test)}
    entry = {**span, "run": str(folder.path.absolute())}
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    entries = [json.loads(line) for line in lines]
    if entry not in entries:
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:  # one short line: whole, also beside other processes
            stream.write(json.dumps(entry) + "\n")
        entries.append(entry)
    same = [line for line in entries if line | span == line]
    return same.index(entry) + 1


def _timing(config: Config, market: Market, path: Path) -> dict[str, float]:
    if not path.exists():
        files.write_json(path, step_times(config, market.features.names))
    times: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return times


def print_summary(data: ReportData, console: Console) -> None:
    """Show the optimizers and the baselines as a table."""
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
    console.print(table)
    baselines = Table(title="Baselines on the same bars")
    for heading in ("rule", "net profit", "note"):
        baselines.add_column(heading, justify="right" if heading == "net profit" else "left")
    for line in data.baselines:
        baselines.add_row(line.name, line.net, line.note)
    console.print(baselines)
    for o in data.optimizers:
        if o.verdict:
            console.print(o.verdict, soft_wrap=True)
    console.print(data.verdict)


def printed(data: ReportData) -> str:
    """Return what `print_summary` shows, as text for the log."""
    text = io.StringIO()
    print_summary(data, Console(file=text, width=PLAIN_WIDTH))
    return text.getvalue()
