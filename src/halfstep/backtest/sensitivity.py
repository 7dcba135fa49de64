"""How much of a result hangs on assumptions: the recorded actions replayed under others.

The actions stay as they were decided, so a line tells what the same orders would have given. A policy that reads its
account would have decided otherwise after a different fill; where that is asked for, it decides anew (`rerun_cases`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from halfstep.backtest import content, ratios
from halfstep.backtest.baselines import Span
from halfstep.backtest.content import Banner
from halfstep.backtest.figures import Table, money, table
from halfstep.backtest.joined import join_runs
from halfstep.backtest.run import TestRun, make_test_run
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import INTRABAR, AccountRules
from halfstep.broker.table import MarketTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One replay: key, name, and what happened."""

    key: str
    name: str
    run: TestRun


def replay_cases(
    market: MarketTable,
    rules: AccountRules,
    actions: Float64[np.ndarray, "bar 6"],
    span: Span,
    *,
    seed: int = 0,
) -> tuple[Case, ...]:
    """Replay actions under other costs, rules inside a bar, gap rules, delays and MetaTrader's habits.

    Args:
        market, rules: of the test.
        actions: as the policy gave them.
        span: of the test.
        seed: of random slippage, as in the test.

    Returns:
        The test itself first, with key ``base``.
    """
    cases = []
    for key, (name, changed) in {"base": ("as tested", rules), **_assumptions(market, rules)}.items():
        priced = market if changed.pricing == rules.pricing else market.repriced(changed)
        run = run_actions(priced, changed, actions, span.first, seed=seed)
        cases.append(Case(key=key, name=name, run=make_test_run(run, actions, priced, changed)))
    return tuple(cases)


Decide = Callable[[MarketTable, AccountRules], TestRun]
"""Trades the test span under other rules, on a table that is priced for them; the policy sees its account change."""


def rerun_cases(market: MarketTable, rules: AccountRules, decide: Decide) -> tuple[Case, ...]:
    """Let the policy trade the test span anew under each of the assumptions that its actions are replayed under.

    Args:
        market, rules: of the test.
        decide: trades the span.
    """
    cases = []
    for key, (name, changed) in _assumptions(market, rules).items():
        priced = market if changed.pricing == rules.pricing else market.repriced(changed)
        cases.append(Case(key=f"rerun_{key}", name=f"{name}, decided anew", run=decide(priced, changed)))
    return tuple(cases)


def _assumptions(market: MarketTable, rules: AccountRules) -> dict[str, tuple[str, AccountRules]]:
    """Return what the test is compared with: name and rules by key."""
    others: dict[str, tuple[str, AccountRules]] = {}
    for scale in (0.0, 1.0, 2.0):
        others[f"costs_{scale:g}"] = (
            f"costs × {scale:g}",
            replace(rules, cost_scale=scale * rules.cost_scale),
        )
    for intrabar in INTRABAR:
        if intrabar != "m1" or market.detail is not None:
            others[intrabar] = (f"inside a bar: {intrabar}", replace(rules, intrabar=intrabar))
    others["gap_level"] = ("gaps fill at the level", replace(rules, gap_fill="level"))
    others["delay"] = ("one bar later", replace(rules, delay_bars=rules.delay_bars + 1))
    others["metatrader"] = (
        "MetaTrader, 1 minute OHLC",
        replace(rules, intrabar="mt5_ohlc", gap_fill="level"),
    )
    return others


def join_cases(spans: Sequence[tuple[Case, ...]], *, floor: float) -> tuple[Case, ...]:
    """Return the replays of consecutive spans as replays of one account; see `join_runs`."""
    return tuple(
        Case(key=same[0].key, name=same[0].name, run=join_runs([case.run for case in same], floor=floor))
        for same in zip(*spans, strict=True)
    )


def sensitivity_table(cases: tuple[Case, ...], reruns: tuple[Case, ...] = ()) -> Table:
    """Return one line per replay and per new decision, with its difference to the test, which is the first replay.

    The order of stop and target inside a bar touches nothing but the trades of such bars: their share, and the
    difference between the replays that count the stop and the target first, bound what hangs on it.
    """
    base = cases[0].run.net
    return table(content.SENSITIVITY, [_line(case, base) for case in (*cases, *reruns)])


def _line(case: Case, base: float) -> dict[str, Any]:
    run = case.run
    path = ratios.equity_path(run.deposit, run.equity_worst, run.equity)
    return {
        "key": case.key, "name": case.name, "net": run.net, "difference": run.net - base,
        "profit_factor": ratios.profit_factor(run.trades["net"].to_numpy()), "trades": run.trades.height,
        "drawdown": ratios.drawdowns(path).maximal, "ambiguous": run.ambiguous,
        "ambiguous_share": run.ambiguous / run.trades.height if run.trades.height else None,
    }  # fmt: skip


def ambiguous_table(cases: tuple[Case, ...]) -> Table:
    """Return the positions that the rule inside a bar decided, with their net under it and under both orders.

    A position is found again in another replay by the bar it was opened in and its side.
    """
    base = cases[0].run
    mine = base.positions.filter("ambiguous").select("open_bar", "side", "net")
    records = [{"rule": "as tested", "positions": mine.height, "net": float(mine["net"].sum())}]
    for key in ("stop_first", "target_first"):
        other = next(case.run for case in cases if case.key == key)
        same = mine.select("open_bar", "side").join(
            other.positions.select("open_bar", "side", "net"), on=["open_bar", "side"], how="inner"
        )
        records.append({"rule": key, "positions": same.height, "net": float(same["net"].sum())})
    return table(content.AMBIGUOUS, records)


def fragile_banners(cases: tuple[Case, ...]) -> list[Banner]:
    """Return warnings about a profit that lives only without costs, or only if targets count before stops (T23)."""
    net = {case.key: case.run.net for case in cases}
    found = []
    if net["costs_0"] > 0 >= net["costs_1"]:
        found.append(Banner("only_without_costs", f"Profit only without costs: {money(net['costs_0'])} without, {money(net['costs_1'])} with them."))  # fmt: skip
    if net["target_first"] > 0 >= net["stop_first"]:
        found.append(
            Banner(
                "only_target_first",
                f"Profit only if a target counts before a stop inside the same bar: {money(net['target_first'])} then, "
                f"{money(net['stop_first'])} the other way round.",
            )
        )
    return found


def same_actions(run: TestRun, bars: int) -> Float64[np.ndarray, "bar 6"]:
    """Return a run's actions, with zeros where it had ended before the span did."""
    return np.concatenate([run.asked, np.zeros((bars - len(run), 6))])
