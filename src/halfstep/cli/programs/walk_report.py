"""From the months of a walk-forward to the report: the ordinary page, of tests that are joined month by month."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halfstep.backtest.assembly import Evidence, assemble
from halfstep.backtest.baselines import join_baselines, joined_random_band, price_change, simple_baselines
from halfstep.backtest.comparison import SeedRun, join_errors, middle_seed
from halfstep.backtest.content import Report
from halfstep.backtest.joined import join_runs
from halfstep.backtest.metrics import Surroundings, compute_metrics
from halfstep.backtest.registry import count_trials
from halfstep.backtest.run import TestRun
from halfstep.backtest.sensitivity import Case, join_cases, replay_cases, rerun_cases, same_actions
from halfstep.backtest.uncertainty import Resampling
from halfstep.backtest.walk_forward import Fold, WalkForward, fold_table
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import load_encoder
from halfstep.cli.programs.rerun import decide_anew
from halfstep.cli.programs.skill import forecast_errors
from halfstep.cli.programs.summary import replay, test_span
from halfstep.cli.programs.words import (
    assumptions,
    circumstances,
    command_line,
    history,
    provenance,
    settings,
)
from halfstep.config.tables import Config
from halfstep.market.splits import Split, split_spans

MONTHS_CHAINED = (
    "Each month begins with the deposit and is closed at its end. Months are chained: all money of a month is multiplied by the "
    "growth before it, volumes are as they were traded from the deposit. A ruined account is not traded on.",
    "The networks of a month are trained anew on the months before it; a seed's networks of two months have nothing in common but the seed.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TradedMonth:
    """One month of a walk-forward.

    Attributes:
        config, market: of the month alone; its test span is the month.
        records: of its seeds.
        folders: with the networks of each seed, in the same order.
        openings: of its test span so far.
    """

    config: Config
    market: Market
    records: Sequence[dict[str, Any]]
    folders: Sequence[Path]
    openings: int


def month_market(market: Market, split: Split) -> Market:
    """Return the same market with the spans of one month."""
    return replace(market, split=split, spans=split_spans(market.bars, split))


def summarise_months(
    config: Config, market: Market, walk: WalkForward, months: Sequence[TradedMonth]
) -> Report:
    """Return the report of the joined months.

    Args:
        config, market: of the walk-forward.
        walk: what the months gave.
        months: oldest first, each with the same seeds.
    """
    whole = _whole(market, months)
    floor = market.test_rules.floor
    quality, quality_spans = history(whole)
    names = [record["seed"] for record in months[0].records]
    runs = {
        seed: [replay(month.market, month.records[k]) for month in months] for k, seed in enumerate(names)
    }
    given = Surroundings(quality=quality, risk_free=config.test.risk_free)
    seeds = [_seed_run(seed, join_runs(parts, floor=floor), given) for seed, parts in runs.items()]
    middle = middle_seed(seeds)
    parts = list(zip(months, runs[middle.seed], strict=True))
    place, resampling = (
        names.index(middle.seed),
        Resampling(draws=config.test.bootstrap_draws, seed=config.run.seed),
    )
    folds = [
        Fold(
            name=name, run=run,
            rules=simple_baselines(market.test_table, market.test_rules, run, test_span(month.market)),
            errors=forecast_errors(load_encoder(month.folders[place], month.config, month.market), month.market),
        )
        for name, (month, run) in zip(walk.months, parts, strict=True)
    ]  # fmt: skip
    errors = [fold.errors for fold in folds if fold.errors is not None]
    optimizer = config.walk_forward.optimizer
    return assemble(
        Evidence(
            title=f"{market.bars.symbol} {market.bars.timeframe.name}: walk-forward from {whole.split.test[0]} to before {whole.split.test[1]}",
            settings=settings(
                config, whole, expert=f"{optimizer}, seed {middle.seed}, other networks every month", spans=_spans(config, whole)
            ),
            assumptions=(*assumptions(config, whole, middle.run), *MONTHS_CHAINED),
            versions=provenance(config, command_line("walk-forward", config)),
            seeds=seeds,
            representative=optimizer,
            baselines=join_baselines(
                [fold.rules for fold in folds], floor=floor, note=f"each month anew; {price_change(market.test_table, test_span(whole))}",
            ),
            band=joined_random_band(
                market.test_table, market.test_rules, [(run, test_span(month.market)) for month, run in parts],
                runs=config.test.random_runs, seed=config.run.seed,
            ),
            cases=join_cases(
                [
                    replay_cases(
                        market.test_table, market.test_rules, same_actions(run, test_span(month.market).bars),
                        test_span(month.market),
                    )
                    for month, run in parts
                ],
                floor=floor,
            ),
            reruns=_reruns(config, market, months, place),
            trials={
                kind: count_trials(is_made_up=config.data.made_up > 0, observation=kind)
                for kind in ("bar", "day")
            },
            forecast=join_errors(errors) if errors else None,
            walk=replace(walk, folds=fold_table(folds, resampling)),
            quality_spans=quality_spans,
            circumstances=circumstances(
                config, whole, quality=quality, openings=max(month.openings for month in months)
            ),
            resampling=resampling,
        )
    )  # fmt: skip


def _whole(market: Market, months: Sequence[TradedMonth]) -> Market:
    """Return the market whose test span goes from the first month to the last."""
    first, last = months[0].market, months[-1].market
    return replace(
        market,
        split=replace(first.split, test=(first.split.test[0], last.split.test[1])),
        spans=replace(first.spans, test=(first.spans.test[0], last.spans.test[1])),
    )


def _reruns(config: Config, market: Market, months: Sequence[TradedMonth], place: int) -> tuple[Case, ...]:
    """Return the passes of a seed's policies that decide anew, where they are asked for; ``place`` of the seed."""
    if not config.test.rerun_policy:
        return ()
    return join_cases(
        [
            rerun_cases(
                market.test_table, market.test_rules, decide_anew(month.config, month.market, month.folders[place])
            )
            for month in months
        ],
        floor=market.test_rules.floor,
    )  # fmt: skip


def _seed_run(seed: int, run: TestRun, given: Surroundings) -> SeedRun:
    return SeedRun(seed=seed, run=run, metrics=compute_metrics(run, given))


def _spans(config: Config, whole: Market) -> str:
    """Return how the months were cut."""
    plan, (first, stop) = config.walk_forward, whole.spans.test
    learned = (
        f"all months before, at least {plan.train_months}" if plan.anchored else _months(plan.train_months)
    )
    return (
        f"each test of {_months(plan.test_months)} by networks that learned from {learned}; the weights are chosen on the "
        f"{_months(plan.validation_months)} between; tests from {whole.split.test[0]} to before {whole.split.test[1]}, {stop - first:,} bars"
    )  # fmt: skip


def _months(count: int) -> str:
    return "1 month" if count == 1 else f"{count} months"
