"""From the records of all arms to the report: what the floors below know of a test is gathered here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from halfstep.backtest.assembly import Evidence, assemble
from halfstep.backtest.baselines import Span, random_band, simple_baselines
from halfstep.backtest.comparison import ArmFigures, FailedArm, SeedRun, StepTimes, middle_seed
from halfstep.backtest.content import Report
from halfstep.backtest.metrics import Surroundings, compute_metrics
from halfstep.backtest.ratios import Floats
from halfstep.backtest.registry import count_trials
from halfstep.backtest.run import TestRun, make_test_run
from halfstep.backtest.sensitivity import replay_cases, rerun_cases, same_actions
from halfstep.backtest.uncertainty import Resampling
from halfstep.broker.engine import run_actions
from halfstep.cli.programs.data_baselines import data_baselines, outside_data
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import load_encoder
from halfstep.cli.programs.rerun import AsTested, as_it_is, decide_anew
from halfstep.cli.programs.skill import forecast_errors, forecast_windows
from halfstep.cli.programs.words import (
    assumptions,
    circumstances,
    expert,
    history,
    provenance,
    settings,
    spans,
    title,
)
from halfstep.config.tables import Config
from halfstep.experience.store import EpisodeStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What measuring optimizers gave, by optimizer; empty where nothing was measured.

    Attributes:
        steps: median, lower and upper quartile of the milliseconds of a step.
        predicted_bytes: of the state, from the partition or the number of parameters.
        peak_bytes: most memory in use.
        memory_method: how that was measured.
    """

    steps: StepTimes
    predicted_bytes: Mapping[str, int | None]
    peak_bytes: Mapping[str, int]
    memory_method: str = "not measured"


def summarise(
    config: Config,
    market: Market,
    records: Sequence[dict[str, Any]],
    costs: Costs | None,
    *,
    folders: Mapping[str, Path],
    openings: int,
    command: str,
    store: EpisodeStore | None = None,
    cloned: Path | None = None,
    failed: Sequence[FailedArm] = (),
    as_tested: AsTested = as_it_is,
) -> Report:
    """Return the report of a comparison, or of one optimizer's seeds.

    Args:
        config, market: of the run.
        records: of the arms, with a test each.
        costs: of the optimizers; None where the records hold tests alone, and optimizers are not compared.
        folders: with the networks of each record, by `record_name`.
        openings: of the test span so far.
        command: command line of the run.
        store: trajectories that the policies learned from.
        cloned: folder of a policy that imitates them, if one was trained.
        failed: arms that are missing; one of the headline's at least must be there.
        as_tested: how the test used the policies.
    """
    headline = _headline(config, records)
    mine = [record for record in records if record["optimizer"] == headline]
    runs = {record_name(record): replay(market, record) for record in records}
    quality, quality_spans = history(market)
    outside = {} if store is None else {name: outside_data(run, store, config.run.seed) for name, run in runs.items()}  # fmt: skip
    seeds = [
        SeedRun(
            seed=record["seed"],
            run=runs[record_name(record)],
            metrics=compute_metrics(
                runs[record_name(record)],
                Surroundings(
                    quality=quality,
                    criterion=_criterion(record),
                    risk_free=config.test.risk_free,
                    outside_data=outside.get(record_name(record)),
                ),
            ),
        )
        for record in mine
    ]
    middle = middle_seed(seeds)
    name = f"{headline}-s{middle.seed}"
    folder = folders[name]
    span = test_span(market)
    band = random_band(
        market.test_table, market.test_rules, middle.run, span, runs=config.test.random_runs, seed=config.run.seed
    )  # fmt: skip
    encoder = load_encoder(folder, config, market)
    errors = forecast_errors(encoder, market)
    data = data_baselines(config, market, encoder, folder, store=store, cloned=cloned)
    return assemble(
        Evidence(
            title=title(market),
            settings=settings(config, market, expert=expert(folder, name), spans=spans(market)),
            assumptions=assumptions(config, market, middle.run),
            versions=provenance(config, command),
            seeds=seeds,
            representative=headline,
            baselines=(*simple_baselines(market.test_table, market.test_rules, middle.run, span), *data),
            band=band,
            cases=replay_cases(
                market.test_table, market.test_rules, same_actions(middle.run, span.bars), span
            ),
            reruns=rerun_cases(market.test_table, market.test_rules, decide_anew(config, market, folder, as_tested))
            if config.test.rerun_policy
            else (),
            arms=[] if costs is None else [_figures(record, runs[record_name(record)], costs) for record in records],
            steps={} if costs is None else costs.steps,
            margin=config.compare.margin,
            failed=failed,
            trials={
                kind: count_trials(is_made_up=config.data.made_up > 0, observation=kind)
                for kind in ("bar", "day")
            },
            trial_returns=_trial_returns(records, runs),
            forecast=errors,
            extra=() if errors is None else (forecast_windows(encoder, market, errors),),
            quality_spans=quality_spans,
            circumstances=circumstances(config, market, quality=quality, openings=openings),
            resampling=Resampling(draws=config.test.bootstrap_draws, seed=config.run.seed),
        )
    )  # fmt: skip


def test_span(market: Market) -> Span:
    """Return the test span: decided at the close of the bar before it, stepped to its last bar."""
    first, stop = market.spans.test
    return Span(first=first - 1, bars=stop - first)


def replay(market: Market, record: dict[str, Any]) -> TestRun:
    """Return an arm's test from its recorded actions."""
    span = test_span(market)
    asked = np.array(record["test"]["actions"], np.float64).reshape(-1, 6)
    asked = np.concatenate([asked, np.zeros((span.bars - len(asked), 6))])
    run = run_actions(market.test_table, market.test_rules, asked, span.first)
    return make_test_run(run, asked, market.test_table, market.test_rules)


def _headline(config: Config, records: Sequence[dict[str, Any]]) -> str:
    """Return the optimizer that the report leads with: the one fixed before the test, else the only one there is."""
    names = [record["optimizer"] for record in records]
    return config.compare.headline if config.compare.headline in names else names[0]


def record_name(record: dict[str, Any]) -> str:
    """Return the name of a record: its optimizer and seed."""
    return f"{record['optimizer']}-s{record['seed']}"


def _criterion(record: dict[str, Any]) -> str | None:
    study = record.get("study")
    return None if study is None else f"log growth on the validation span {study['log_growth']:+.5f}"


def _figures(record: dict[str, Any], run: TestRun, costs: Costs) -> ArmFigures:
    name, curve = record["optimizer"], record["encoder"]["curve"]
    best = min(curve, key=lambda point: point["validation"])
    return ArmFigures(
        optimizer=name,
        seed=record["seed"],
        parameters=record["parameters"],
        predicted_bytes=costs.predicted_bytes.get(name),
        state_bytes=record["state_bytes"],
        peak_bytes=costs.peak_bytes.get(name),
        memory_method=costs.memory_method,
        seconds=float(sum(record["clock"].values())),
        updates_to_best=best["update"],
        loss=record["encoder"]["validation_loss"],
        net=run.net,
        growth=record["test"]["log_growth"],
        curve=tuple((int(point["epoch"]), point["train"], point["validation"]) for point in curve),
    )


def _trial_returns(records: Sequence[dict[str, Any]], runs: Mapping[str, TestRun]) -> Floats | None:
    """Return the per-bar returns of each optimizer, mean over its seeds, ``(bar, optimizer)``; None with one only, or if none traded."""
    names = list(dict.fromkeys(record["optimizer"] for record in records))
    bars = min(len(run) for run in runs.values())
    if len(names) < 2 or bars == 0:
        return None
    columns = []
    for name in names:
        paths = [runs[record_name(record)] for record in records if record["optimizer"] == name]
        returns = [np.diff(run.equity[:bars], prepend=run.deposit) / run.deposit for run in paths]
        columns.append(np.mean(returns, axis=0))
    together = np.stack(columns, axis=1)
    return together if together.any() else None
