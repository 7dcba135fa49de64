"""`halfstep walk-forward`: one month after the other is traded by models that know the months before it.

    folds/2023-01/       a whole chain with fresh models: pilot, trajectories, 50-arms/ with one arm per seed
    tables/months.parquet  one row per month;  tables/curve.parquet  the chained out-of-sample path of each seed
    report/              report.html, metrics.json and tables/ of the joined months, once every fold is done

A month is tested once. Its growth is that of an account that begins the month with the deposit; months are chained by
multiplying their growth. Every fold is closed at the end of its month.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64
from rich.console import RenderableType
from rich.table import Table

from halfstep import files
from halfstep.backtest.content import WALK_FORWARD, Report
from halfstep.backtest.figures import percent, table
from halfstep.backtest.registry import record_trials
from halfstep.backtest.statistics import interquartile_mean, seed_interval
from halfstep.backtest.twins import write_parquet
from halfstep.backtest.uncertainty import Resampling
from halfstep.backtest.walk_forward import (
    MonthFigures,
    WalkForward,
    figures_record,
    month_figures,
    walk_sentences,
)
from halfstep.broker.engine import TERMINATED
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.arms import Arm, market_of, read_arm, run_arm
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.processes import (
    Failure,
    Task,
    failed_tasks,
    failure_of,
    incomplete_status,
    run_side_by_side,
)
from halfstep.cli.programs.report import write_report
from halfstep.cli.programs.run import collect
from halfstep.cli.programs.trials import arm_trials, failed_trials
from halfstep.cli.programs.walk_report import TradedMonth, month_market, summarise_months
from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.errors import CoverageError
from halfstep.market.splits import Split, walk_forward
from halfstep.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One month: its split, the configuration of its chain, and what its seeds did in it.

    Attributes:
        name: the test's first month, such as ``2023-01``.
        records: of the arms, by seed; empty where the fold failed.
        openings: of its test span so far.
    """

    name: str
    split: Split
    config: Config
    records: tuple[dict[str, Any], ...] = ()
    openings: int = 1


@dataclass(frozen=True, kw_only=True)
class WalkForwardResult:
    """Everything a walk-forward found.

    Attributes:
        folds: oldest first.
        skipped: months without bars.
        failures: by the name of the fold.
    """

    config: Config
    folds: tuple[Fold, ...]
    skipped: tuple[str, ...]
    failures: Mapping[str, Failure]

    @property
    def is_complete(self) -> bool:
        """Whether every fold ended well."""
        return not self.failures

    @property
    def done(self) -> tuple[Fold, ...]:
        """The folds that ended well."""
        return tuple(fold for fold in self.folds if fold.records)


def plan_folds(config: Config, market: Market) -> tuple[tuple[Fold, ...], tuple[str, ...]]:
    """Return the folds of a configuration, and the months that have no bars.

    Raises:
        CoverageError: the bars have too little history, or none for the months that were asked for.
    """
    settings = config.walk_forward
    found = walk_forward(
        market.bars, train_months=settings.train_months, validation_months=settings.validation_months,
        test_months=settings.test_months, step_months=settings.step_months, anchored=settings.anchored,
    )  # fmt: skip
    first, last = settings.months or ("0000-00", "9999-99")
    chosen = [split for split in found.splits if first <= split.test[0][:7] <= last]
    if not chosen:
        raise CoverageError(
            f"no test month from {first} to {last}; with this history the first is {found.splits[0].test[0][:7]} and "
            f"the last {found.splits[-1].test[0][:7]}",
            file=market.bars.source.path,
            hint="Choose others with --walk-forward.months, or shorter spans.",
        )
    folds = tuple(
        Fold(name=split.test[0][:7], split=split, config=_config_of(config, split)) for split in chosen
    )
    return folds, tuple(month for month in found.skipped if first <= month <= last)


def run_walk_forward(config: Config, market: Market, folder: Path, progress: Progress) -> WalkForwardResult:
    """Run every unfinished fold, several side by side, each a whole chain in a process of its own."""
    folds, skipped = plan_folds(config, market)
    home = folder / "folds"
    todo = [fold for fold in folds if not (home / fold.name / "fold.json").exists()]
    tasks = [
        Task(
            name=fold.name, call=_run_fold, log=home / fold.name / "log.txt",
            arguments=(fold.config.model_dump(mode="json"), home / fold.name),
        )
        for fold in todo
    ]  # fmt: skip
    progress.start(f"{len(folds)} folds", 100 * len(folds), "%")
    progress.advance(100 * (len(folds) - len(todo)))
    failures = run_side_by_side(
        tasks, processes=config.run.processes, threads=config.run.threads, code=config.compare.code,
        progress=progress,
    )  # fmt: skip
    progress.finish()
    done = tuple(fold if fold.name in failures else _read_fold(fold, home) for fold in folds)
    return WalkForwardResult(config=config, folds=done, skipped=skipped, failures=failures)


def months_frame(found: WalkForwardResult, market: Market) -> pl.DataFrame:
    """Return one row per month: growth over seeds with its interval, the worst and best seed, trades, the market's move.

    All money is that of a month that begins with the deposit.
    """
    rows = []
    for fold in found.folds:
        first, stop = (market.bars.index_at(day) for day in fold.split.test)
        row: dict[str, Any] = {
            "month": fold.name, "from": fold.split.test[0], "to": fold.split.test[1], "bars": stop - first,
            "price_change": float(market.bars.close[stop - 1] / market.bars.close[first - 1] - 1),
            "seeds": len(fold.records),
        }  # fmt: skip
        if fold.records:
            growth = np.array([record["test"]["log_growth"] for record in fold.records])
            low, high = _over_seeds(growth, found.config)
            tests = [record["test"] for record in fold.records]
            row |= {
                "growth": math.expm1(interquartile_mean(growth)), "low": low, "high": high,
                "worst": math.expm1(growth.min()), "best": math.expm1(growth.max()),
                "log_growth": float(growth.mean()),
                "trades": float(np.mean([test["rows"]["total_trades"] for test in tests])),
                "stopped": sum(test["status"] == TERMINATED for test in tests),
                "drawdown": max(test["rows"]["equity_dd_maximal"] for test in tests),
            }  # fmt: skip
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def curve_frame(found: WalkForwardResult, market: Market) -> pl.DataFrame:
    """Return the chained out-of-sample path: a row per bar, log growth of each seed since the first fold.

    After the month of its ruin a seed's path is level.
    """
    frames = []
    gone: set[int] = set()
    for fold in found.done:
        paths = {
            f"seed {record['seed']}": _path(record, fold, market) * (record["seed"] not in gone)
            for record in fold.records
        }
        gone |= {record["seed"] for record in fold.records if _is_ruined(record, market)}
        first, stop = (market.bars.index_at(day) for day in fold.split.test)
        frames.append(
            pl.DataFrame(
                {
                    "bar": np.arange(first, stop),
                    "server_time": market.bars.server_time[first:stop],
                    "month": [fold.name] * (stop - first),
                    **paths,
                }
            )
        )
    joined = pl.concat(frames)
    seeds = [name for name in joined.columns if name.startswith("seed ")]
    return joined.with_columns([pl.col(name).cum_sum() for name in seeds])


def walk_of(found: WalkForwardResult, months: pl.DataFrame, market: Market) -> WalkForward:
    """Return what the report needs to know of the months of a complete walk-forward."""
    tests = [[record["test"] for record in fold.records] for fold in found.done]
    return WalkForward(
        months=tuple(fold.name for fold in found.done),
        log_growth=np.array([[test["log_growth"] for test in month] for month in tests]).T,
        is_ruined=np.array(
            [[_is_ruined(record, market) for record in fold.records] for fold in found.done]
        ).T,
        is_stopped=np.array([[test["status"] == TERMINATED for test in month] for month in tests]).T,
        table=table(WALK_FORWARD, months),
        skipped=found.skipped,
    )


def metrics_of(
    found: WalkForwardResult, months: pl.DataFrame, figures: MonthFigures | None, report: Report | None
) -> dict[str, Any]:
    """Return every number of a walk-forward; of an incomplete one, no figure over months."""
    return {
        "schema": "halfstep.walk_forward/1",
        "complete": found.is_complete,
        "failed": {name: {"error": f.error, "log": str(f.log)} for name, f in found.failures.items()},
        "optimizer": found.config.walk_forward.optimizer,
        "months": months.to_dicts(),
        "skipped": list(found.skipped),
        "overall": None if figures is None else figures_record(figures),
        "verdict": None if report is None else report.verdict,
        "rows": None
        if report is None
        else {row.key: row.value for row in report.rows() if row.unit != "text"},
        "clock": {
            "arm_seconds": {
                f"{fold.name}-s{record['seed']}": record["clock"]
                for fold in found.folds
                for record in fold.records
            }
        },
    }


def shown(
    found: WalkForwardResult, months: pl.DataFrame, figures: MonthFigures | None, report: Report | None
) -> tuple[RenderableType, ...]:
    """Return the table of months and the sentences for people."""
    settings = found.config.walk_forward
    table = Table(
        title=f"{settings.optimizer}, {settings.seeds} seeds, each month by models that do not know it"
    )
    for heading in ("month", "growth", "95 % over seeds", "worst seed", "best seed", "trades", "price"):
        table.add_column(heading, justify="left" if heading == "month" else "right")
    for row in months.iter_rows(named=True):
        if not row["seeds"]:
            table.add_row(row["month"], "failed", "--", "--", "--", "--", percent(row["price_change"]))
            continue
        table.add_row(
            row["month"], percent(row["growth"]), f"{percent(row['low'])} … {percent(row['high'])}",
            percent(row["worst"]), percent(row["best"]), f"{row['trades']:.0f}", percent(row["price_change"]),
        )  # fmt: skip
    lines: list[RenderableType] = [table]
    lines += [f"{month}: no bars." for month in found.skipped]
    lines += [
        f"FAILED {name}: {failure.error} Log: {failure.log}" for name, failure in found.failures.items()
    ]
    lines += ["The result is incomplete."] if figures is None else walk_sentences(figures)
    if report is not None:
        lines += [*(banner.text for banner in report.banners), report.verdict]
    return tuple(lines)


def _config_of(config: Config, split: Split) -> Config:
    days = {name: getattr(split, name) for name in ("train", "validation", "test")}
    return merged(config, {"split": days}, source="walk-forward")


def _run_fold(tree: dict[str, Any], folder: Path, progress: Progress) -> None:
    """Do the chain of one month: trajectories over its training months, then every seed's networks and test.

    Raises:
        HalfstepError: an arm failed; the others are finished all the same.
    """
    config, market = market_of(json.dumps(tree), True)
    settings = config.walk_forward
    store = episodes_folder(collect(config, market, folder, progress))
    openings = open_test(config, market, folder)  # before an arm trades it
    arms = [Arm(settings.optimizer, seed) for seed in range(1, settings.seeds + 1)]
    failures: dict[str, Failure] = {}
    for arm in arms:
        home = folder / "50-arms" / arm.name
        if not (home / "arm.json").exists():
            try:
                run_arm(config, market, arm, store, home, progress)
            except Exception as error:
                failures[arm.name] = failure_of(error, home / "log.txt")
    lost = [arm for arm in arms if arm.name in failures]
    records = [read_arm(folder / "50-arms" / arm.name) for arm in arms if arm not in lost]
    plan = {name: getattr(settings, name) for name in ("train_months", "validation_months", "anchored")}
    record_trials(arm_trials(config, market, records, program="walk-forward", run=folder, plan=plan))
    record_trials(failed_trials(config, market, lost, program="walk-forward", run=folder, plan=plan))
    if failures:
        raise failed_tasks(failures)
    files.write_json(folder / "fold.json", {"arms": [arm.name for arm in arms], "openings": openings})


def _read_fold(fold: Fold, home: Path) -> Fold:
    """Return a finished fold with what its seeds did."""
    done = json.loads((home / fold.name / "fold.json").read_text(encoding="utf-8"))
    records = tuple(read_arm(home / fold.name / "50-arms" / name) for name in done["arms"])
    return replace(fold, records=records, openings=done["openings"])


def _is_ruined(record: dict[str, Any], market: Market) -> bool:
    """Return whether a seed's month ended at the account's floor or below."""
    rules = market.test_rules
    return bool(rules.deposit + record["test"]["net_profit"] <= rules.floor)


def _path(record: dict[str, Any], fold: Fold, market: Market) -> Float64[np.ndarray, " bar"]:
    """Return an arm's log growth on each bar of its month; 0 after ruin."""
    first, stop = (market.bars.index_at(day) for day in fold.split.test)
    path = record["test"]["path"]
    growth = np.zeros(stop - first)
    begin = path["first"] - first
    growth[begin : begin + len(path["log_growth"])] = path["log_growth"]
    return growth


def _over_seeds(growth: Float64[np.ndarray, " seed"], config: Config) -> tuple[float, float]:
    """Return the 95 % interval over seeds of the interquartile mean, as growth."""
    low, high = seed_interval(growth, draws=config.test.bootstrap_draws, seed=config.run.seed)
    return math.expm1(low), math.expm1(high)


def _open(request: Request[NoInputs], market: Market) -> tuple[Fold, ...]:
    return plan_folds(request.config, market)[0]


def _plan(job: Job[NoInputs]) -> list[Step]:
    folds: tuple[Fold, ...] = job.opened
    changes = {
        "compare": {
            "optimizers": ("adamw",), "headline": "adamw", "seeds": job.config.walk_forward.seeds, "few_seeds": True,
        }
    }  # fmt: skip
    each = sum(
        step.seconds or 0.0 for step in run_steps(merged(job.config, changes, source="plan"), job.market)
    )
    processes = min(job.config.run.processes, len(folds))
    names = f"{folds[0].name} to {folds[-1].name}"
    return [
        Step(
            what=f"{len(folds)} folds ({names}), {processes} side by side, {job.config.walk_forward.seeds} seeds each",
            seconds=each * len(folds) / processes,
        )
    ]


def _work(job: Job[NoInputs]) -> Outcome:
    home = job.folder.path
    found = run_walk_forward(job.config, job.market, home, job.progress)
    months = months_frame(found, job.market)
    write_parquet(months, home / "tables" / "months.parquet")
    if found.done:
        write_parquet(curve_frame(found, job.market), home / "tables" / "curve.parquet")
    if not found.is_complete:
        return Outcome(
            metrics=metrics_of(found, months, None, None), shown=shown(found, months, None, None),
            last=(f"No report yet. Try the failed months again with: halfstep walk-forward --resume {files.as_words(home)}",),
            status=incomplete_status(found.failures),
        )  # fmt: skip
    walk = walk_of(found, months, job.market)
    report = summarise_months(job.config, job.market, walk, _traded(found, job.market, home / "folds"))
    figures = month_figures(walk, Resampling(draws=job.config.test.bootstrap_draws, seed=job.config.run.seed))
    page = write_report(report, home)
    return Outcome(
        metrics=metrics_of(found, months, figures, report), shown=shown(found, months, figures, report),
        last=(f"Report: {page.absolute()}",),
    )  # fmt: skip


def _traded(found: WalkForwardResult, market: Market, home: Path) -> list[TradedMonth]:
    """Return the finished months for the report; ``home`` is the folder of all folds."""
    return [
        TradedMonth(
            config=fold.config, market=month_market(market, fold.split), records=fold.records, openings=fold.openings,
            folders=[home / fold.name / "50-arms" / f"{record['optimizer']}-s{record['seed']}" for record in fold.records],
        )
        for fold in found.done
    ]  # fmt: skip


PROGRAM = Program(verb="walk-forward", open=_open, plan=_plan, work=_work)
