"""From the records of all arms to the report: every number is computed here or below, none is typed in."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halfstep.backtest.baselines import random_band, simple_baselines
from halfstep.backtest.metrics import Row, compute_rows, money, number, percent
from halfstep.backtest.report import BaselineLine, Curve, Forecast, OptimizerFigures, ReportData
from halfstep.backtest.statistics import (
    SEEDS_FOR_A_VERDICT,
    compare_paired,
    interquartile_mean,
    seed_interval,
    stationary_bootstrap,
)
from halfstep.broker.engine import Run, run_actions
from halfstep.broker.outcomes import Outcome
from halfstep.cli.programs.arms import path_of_test
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import encoder_data, load_encoder
from halfstep.cli.run_folder import versions
from halfstep.config.load import plain
from halfstep.config.tables import Config
from halfstep.market.calendar import iso
from halfstep.training.windows import WindowTable, forecasts

FEW_POSITIONS = 100


def summarise(
    config: Config,
    market: Market,
    arms: list[dict[str, Any]],
    step_ms: dict[str, float],
    folder: Path,
    *,
    openings: int,
) -> tuple[ReportData, dict[str, Any]]:
    """Return the report and the final metrics of a comparison."""
    mine = [arm for arm in arms if arm["optimizer"] == config.compare.headline]
    chosen = _middle_seed(mine)
    run = _replay(market, chosen)
    path = path_of_test(market, run)
    net = float(run.equity[-1] - market.rules.deposit)
    first = market.spans.test[0] - 1
    bars = market.spans.test[1] - market.spans.test[0]
    band = random_band(
        market.test_table, market.test_rules, path.positions, first, bars, net,
        runs=config.test.random_runs, seed=config.run.seed,
    )  # fmt: skip
    boot = _bootstrap(config, run, path.positions.height) * market.rules.deposit
    nets = np.array([arm["test"]["net_profit"] for arm in mine])
    figures = tuple(_optimizer(config, name, arms, step_ms) for name in config.compare.optimizers)
    rows = _rows(config, market, arms)
    seed_range = seed_interval(nets, draws=config.test.bootstrap_draws, seed=config.run.seed)
    low, high = np.percentile(boot, [2.5, 97.5])
    better = band.p <= 0.05 and low > 0
    verdict = f"{'Better than' if better else 'Cannot be told from'} random trading (p = {band.p:.3f})."
    data = ReportData(
        title=f"{market.bars.symbol} {market.bars.timeframe.name}: test {market.split.test[0]} to {market.split.test[1]}",
        verdict=verdict,
        banners=_banners(config, market, path.positions.height, run, openings),
        settings=_settings(config, market),
        headline=f"{config.compare.headline}, {len(mine)} seeds",
        seed_table=tuple(_seed_line(arm) for arm in mine),
        representative=f"{config.compare.headline}, seed {chosen['seed']}, the seed in the middle by net profit",
        rows=tuple((f"{name}, seed {arm['seed']}", found) for name, (arm, found) in rows.items()),
        curve=Curve(time=tuple(market.bars.server_time[run.bar].tolist()), balance=tuple(run.balance), equity=tuple(run.equity)),
        other_curves=tuple(tuple(_replay(market, arm).equity) for arm in mine if arm is not chosen),
        baselines=_baselines(market, run, first, bars, band.nets),
        random_nets=tuple(band.nets),
        net=net,
        uncertainty=(
            ("Net profit over seeds", f"{money(interquartile_mean(nets))} (95 % {money(seed_range[0])} … {money(seed_range[1])}), worst {money(float(nets.min()))}, best {money(float(nets.max()))}; interquartile mean"),
            ("Net profit of the middle seed", f"{money(net)} (95 % {money(float(low))} … {money(float(high))}); stationary bootstrap of bars"),
            ("Against random trading", f"{verdict} {percent(float((band.nets >= net).mean()))} of {len(band.nets):,} random policies earned as much or more"),
            ("Test span", f"opened {openings} time{'s' if openings != 1 else ''} so far"),
        ),
        optimizers=figures,
        skill_table=_skills(market, chosen),
        forecast=_forecast(config, market, folder, chosen),
        outcomes=tuple((o.name, int((run.outcome == o).sum())) for o in Outcome),
        assumptions=_assumptions(config, market, run),
        versions=tuple(versions().items()),
    )  # fmt: skip
    values = {name: _values(found) for name, (_, found) in rows.items()}
    return data, _metrics(config, data, arms, values, band.p, (float(low), float(high)), step_ms)


def _middle_seed(arms: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the arm in the middle by net profit, the lower one of two."""
    return sorted(arms, key=lambda arm: (arm["test"]["net_profit"], arm["seed"]))[(len(arms) - 1) // 2]


def _rows(
    config: Config, market: Market, arms: list[dict[str, Any]]
) -> dict[str, tuple[dict[str, Any], tuple[Row, ...]]]:
    """Return each optimizer's middle arm with its rows, the headline first."""
    headline = config.compare.headline
    names = [headline, *(name for name in config.compare.optimizers if name != headline)]
    chosen = {name: _middle_seed([arm for arm in arms if arm["optimizer"] == name]) for name in names}
    return {
        name: (arm, tuple(compute_rows(path_of_test(market, _replay(market, arm)))))
        for name, arm in chosen.items()
    }


def _values(rows: tuple[Row, ...]) -> dict[str, float | None]:
    """Return rows for machines: what is not a finite number is None."""
    return {
        row.key: row.value if row.value is not None and math.isfinite(row.value) else None for row in rows
    }


def _actions(market: Market, arm: dict[str, Any]) -> np.ndarray:
    """Return an arm's recorded actions, filled with zeros where the account was ruined before the end."""
    bars = market.spans.test[1] - market.spans.test[0]
    actions = np.zeros((bars, 6))
    asked = np.array(arm["test"]["actions"]).reshape(-1, 6)
    actions[: len(asked)] = asked
    return actions


def _replay(market: Market, arm: dict[str, Any]) -> Run:
    return run_actions(market.test_table, market.test_rules, _actions(market, arm), market.spans.test[0] - 1)


def _bootstrap(config: Config, run: Run, positions: int) -> np.ndarray:
    """Return draws of the relative profit over the span."""
    block = max(24.0, 2.0 * len(run.bar) / max(1, positions))
    block = min(block, max(1.0, len(run.bar) / 4))
    sums = stationary_bootstrap(
        run.reward.copy(), mean_block=float(block), draws=config.test.bootstrap_draws, seed=config.run.seed
    )
    return np.asarray(np.expm1(sums))


def _optimizer(
    config: Config, name: str, arms: list[dict[str, Any]], step_ms: dict[str, float]
) -> OptimizerFigures:
    mine = [arm for arm in arms if arm["optimizer"] == name]
    losses = np.array([arm["encoder"]["validation_loss"] for arm in mine])
    reference = np.array([arm["encoder"]["validation_loss"] for arm in arms if arm["optimizer"] == "adamw"])
    nets = np.array([arm["test"]["net_profit"] for arm in mine])
    draws, seed = config.test.bootstrap_draws, config.run.seed
    verdict = ""
    if name != "adamw":
        found = compare_paired(name, losses, "adamw", reference, margin=config.compare.margin)
        verdict = (
            f"{name}: {len(mine)} seeds allow no verdict, {SEEDS_FOR_A_VERDICT} are needed."
            if found is None
            else found.sentence
        )
    low, high = seed_interval(losses, draws=draws, seed=seed)
    worst, best = seed_interval(nets, draws=draws, seed=seed)
    return OptimizerFigures(
        name=name,
        losses=tuple(losses),
        loss_text=f"{interquartile_mean(losses):.4f} ({low:.4f} … {high:.4f})",
        verdict=verdict,
        state_bytes=int(mine[0]["state_bytes"]),
        parameters=int(mine[0]["parameters"]),
        step_ms=step_ms.get(name),
        nets=tuple(nets),
        net_text=f"{money(interquartile_mean(nets))} ({money(worst)} … {money(best)})",
        skill=float(np.mean([arm["encoder"]["skill"] for arm in mine])),
        train_curves=tuple(tuple(point["train"] for point in arm["encoder"]["curve"]) for arm in mine),
        validation_curves=tuple(
            tuple(point["validation"] for point in arm["encoder"]["curve"]) for arm in mine
        ),
    )


def _baselines(
    market: Market, run: Run, first: int, bars: int, random_nets: np.ndarray
) -> tuple[BaselineLine, ...]:
    lines = [
        BaselineLine(
            name=b.name, net=money(b.net), drawdown=money(b.drawdown), deals=f"{b.deals:.0f}", note=b.note
        )
        for b in simple_baselines(market.test_table, market.test_rules, run, first, bars)
    ]
    low, middle, high = np.percentile(random_nets, [5, 50, 95])
    note = f"5 to 95 %: {money(float(low))} … {money(float(high))}; {len(random_nets):,} runs, as many positions, a coin for the side"
    return (
        *lines,
        BaselineLine(name="random", net=money(float(middle)), drawdown="--", deals="--", note=note),
    )


def _seed_line(arm: dict[str, Any]) -> tuple[str, str, str, str, str]:
    rows = arm["test"]["rows"]
    return (
        str(arm["seed"]), money(arm["test"]["net_profit"]), money(rows["equity_dd_maximal"]),
        f"{rows['total_trades']:.0f}", number(rows["profit_factor"]),
    )  # fmt: skip


def _skills(market: Market, arm: dict[str, Any]) -> tuple[tuple[str, str, str, str], ...]:
    encoder = arm["encoder"]
    return tuple(
        (name, f"{mse:.3f}", f"{naive:.3f}", f"{skill:+.3f}")
        for name, mse, naive, skill in zip(
            market.features.names, encoder["mse"], encoder["naive_mse"], encoder["skill"], strict=True
        )
    )


def _forecast(config: Config, market: Market, folder: Path, arm: dict[str, Any]) -> Forecast:
    """Return a forecast in the middle of the test span, of the feature with the greatest skill on validation."""
    data = encoder_data(market)
    encoder = load_encoder(folder / f"{arm['optimizer']}-s{arm['seed']}", config, market)
    column = int(np.argmax(arm["encoder"]["skill"]))
    horizon = encoder.config.horizon
    origin = max(
        market.spans.test[0],
        min((market.spans.test[0] + market.spans.test[1]) // 2, market.spans.test[1] - horizon - 1),
    )
    [(x, y, output)] = forecasts(encoder, WindowTable(encoder, data, origin + 1), torch.tensor([origin]))
    forecast = encoder.to_units(output)
    return Forecast(
        feature=data.names[column],
        past=tuple(x[0, -72:, column].tolist()),
        future=tuple(y[0, :, column].tolist()),
        forecast=tuple(forecast[0, :, column].tolist()),
        when=iso(int(market.bars.server_time[origin])),
    )


def _banners(config: Config, market: Market, positions: int, run: Run, openings: int) -> tuple[str, ...]:
    found = []
    if config.data.made_up:
        found.append(
            "These bars are made up by a random generator: the page shows that the machinery runs, nothing else."
        )
    if positions < FEW_POSITIONS:
        found.append(f"{positions} positions: too few to judge a policy by.")
    if run.status == 1:
        found.append("The account was ruined: a stop-out or equity at its floor ended the test.")
    if openings > 1:
        found.append(
            f"This test span was opened {openings} times: every look makes a good result likelier by luck."
        )
    if market.test_table.floored_spreads > 0.05:
        found.append(
            f"{percent(market.test_table.floored_spreads)} of the bars state a smaller spread than the floor of "
            f"{market.instrument.spread_floor_points} points, or none: the floor is charged."
        )
    return tuple(found)


def _settings(config: Config, market: Market) -> tuple[tuple[str, str], ...]:
    bars = market.bars
    spans = [
        (
            f"{name} span",
            f"{getattr(market.split, name)[0]} to {getattr(market.split, name)[1]}, {b - a:,} bars",
        )
        for name, (a, b) in (
            ("train", market.spans.train),
            ("validation", market.spans.validation),
            ("test", market.spans.test),
        )
    ]
    source = "made up" if bars.source.path is None else bars.source.path.name
    return (
        ("Symbol, period", f"{bars.symbol} {bars.timeframe.name}"),
        ("Bars", f"{source}, {len(bars):,} bars, {bars.side}, {bars.source.format}; SHA-256 of the bars {bars.hash[:16]}"),
        *spans,
        ("Deposit", f"{money(market.rules.deposit)} {market.rules.currency}, leverage 1:{market.rules.leverage:g}"),
        ("Recipe", config.recipe),
        ("Configuration", "; ".join(f"{k}: {v}" for k, v in plain(config).items() if k in ("study_encoder", "study", "research", "optim", "compare"))),
    )  # fmt: skip


def _assumptions(config: Config, market: Market, run: Run) -> tuple[str, ...]:
    i, rules, bars = market.instrument, market.rules, market.bars
    commission = i.commission if rules.commission is None else rules.commission
    floor = i.spread_floor_points if rules.spread_floor_points is None else rules.spread_floor_points
    zone = f"The clock of the bars is {bars.zone.name}{', assumed from the format' if bars.zone.is_assumed else ''}."
    return (
        "A decision at the close of a bar is executed at the open of the next one, with that bar's spread.",
        f"Prices are {bars.side} prices; short positions open at the bid and close at the ask.",
        zone,
        f"Spread at least {floor} points; commission {commission:g} {rules.currency} per lot and side; slippage {rules.slippage_points} points; swap {i.swap_long:g} / {i.swap_short:g} points a night (long / short).",
        f"Where one bar touches stop and target: {rules.intrabar}; it decided {run.ambiguous} positions. Gaps: {rules.gap_fill}.",
        f"Stop-out at {percent(rules.stop_out)} margin level; most volume {rules.lot_cap:g} lots.",
        f"The costs are round indicative figures of the profile {config.instrument.profile!r}, of no particular broker.",
        "The networks, the optimizer's settings and the number of updates were fixed before the test span was opened; validation chose the weights.",
        *(f"Reader: {note}." for note in (*bars.report.notes, *bars.report.repairs, *market.features.notes)),
    )  # fmt: skip


def _metrics(
    config: Config,
    data: ReportData,
    arms: list[dict[str, Any]],
    rows: dict[str, dict[str, float | None]],
    p: float,
    interval: tuple[float, float],
    step_ms: dict[str, float],
) -> dict[str, Any]:
    """Return the numbers of the page for machines; times of the clock stand under ``clock``."""
    return {
        "schema": "halfstep.report/1",
        "verdict": data.verdict,
        "net_profit": data.net,
        "net_profit_interval": list(interval),
        "p_random": p,
        "rows": rows[config.compare.headline],
        "optimizers": {
            o.name: {
                "validation_loss": list(o.losses), "state_bytes": o.state_bytes, "parameters": o.parameters,
                "net_profit": list(o.nets), "skill": o.skill, "verdict": o.verdict, "rows": rows[o.name],
            }
            for o in data.optimizers
        },
        "seeds": config.compare.seeds,
        "clock": {"step_ms": step_ms, "arm_seconds": {f"{a['optimizer']}-s{a['seed']}": a["clock"] for a in arms}},
    }  # fmt: skip
