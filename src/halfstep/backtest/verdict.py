"""What may be claimed: the one sentence, the summary, and the warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halfstep.backtest.baselines import Baseline, RandomBand
from halfstep.backtest.content import Banner
from halfstep.backtest.definitions import row
from halfstep.backtest.figures import Row, money, percent
from halfstep.backtest.metrics import Metrics
from halfstep.backtest.run import TestRun
from halfstep.backtest.statistics import binomial_tail, wilson_interval

FEW_POSITIONS = 100
SIGNIFICANT = 0.05
END_SHARE = 0.05
LEAST_QUALITY = 0.99


def verdict_sentence(
    p: float, intervals: Sequence[tuple[float, float] | None], *, has_traded: bool = True
) -> str:
    """Return the sentence on random trading; better only if p <= 0.05 and every interval of the net lies above 0.

    Args:
        p: share of random policies that are as good.
        intervals: 95 % intervals of the net profit.
        has_traded: whether the seed that is shown closed any position.

    >>> verdict_sentence(0.012, [(10.0, 90.0)])
    'Better than random trading (p = 0.012).'
    >>> verdict_sentence(0.012, [(-1.0, 90.0)])
    'Cannot be told from random trading (p = 0.012).'
    """
    above = all(interval is not None and interval[0] > 0 for interval in intervals)
    words = "Better than" if p <= SIGNIFICANT and above else "Cannot be told from"
    why = "" if has_traded else ": the seed that is shown did not trade"
    return f"{words} random trading (p = {p:.2g}){why}."


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstFigures:
    """Figures of other parts of the report that its summary repeats.

    Attributes:
        worst_fall: largest maximal equity drawdown of a seed, account currency.
        costs: parts of `breakdown.cost_table` between the result at mid prices and the net result, account currency.
        doubled: net profit of the same orders at twice the costs; None where they were not replayed.
        forecasts: how well the encoder forecasts, in words; None where it was not asked to.
    """

    worst_fall: float
    costs: Mapping[str, float]
    doubled: float | None = None
    forecasts: str | None = None


def summary_rows(
    run: TestRun,
    metrics: Metrics,
    uncertainty: Sequence[Row],
    band: RandomBand | None,
    baselines: Sequence[Baseline],
    first: FirstFigures,
    *,
    openings: int,
) -> tuple[Row, ...]:
    """Return what to know first."""
    known = {each.key: each for each in uncertainty}
    seeds = known["seeds_net"]
    head = seeds if seeds.value is not None else known["net_profit_interval"]
    value = run.net if head.value is None else head.value
    better = [each.name for each in baselines if each.on_test_bars and each.run.net > value]
    words = (
        f"less than {', '.join(better)}" if better else "more than every simple rule" if baselines else "--"
    )
    free = metrics["risk_free"].value or 0.0
    spread = "--" if seeds.value is None else f"interquartile mean {money(seeds.value)}, worst {known['seeds_worst'].text}"  # fmt: skip
    return (
        row("headline", value, interval=head.interval, note=seeds.note),
        _random_row(run, band),
        row("against_baselines", None, text=words),
        row("against_deposit", value - free, text=f"{money(value - free)}: net profit {money(value)}, a deposit {money(free)}"),
        row("seed_spread", None, text=spread),
        *_first_rows(run, metrics, first, one_seed=seeds.value is None),
        row("trial_count", known["trials"].value),
        row("openings", openings),
    )  # fmt: skip


def _first_rows(run: TestRun, metrics: Metrics, first: FirstFigures, *, one_seed: bool) -> tuple[Row, ...]:
    fall = metrics["equity_dd_maximal"]
    paid = ", ".join(f"{name} {money(value)}" for name, value in first.costs.items())
    difference = None if first.doubled is None else first.doubled - run.net
    return (
        row("traded", run.positions.height),
        row("deepest_fall", fall.value, fall.second, note="" if one_seed else f"worst seed {money(first.worst_fall)}"),
        row("costs_paid", sum(first.costs.values()), note=paid),
        row("costs_doubled", first.doubled, note="" if difference is None else f"difference {money(difference)}"),
        row("forecasts", None, text=first.forecasts),
    )  # fmt: skip


def _random_row(run: TestRun, band: RandomBand | None) -> Row:
    if band is None:
        return row("random_p", None)
    p, better = band.p(run.net), float((band.nets >= run.net).mean())
    words = (
        f"{percent(better)} of {len(band.nets):,} random policies earn as much or more"
        if run.positions.height
        else "random policies have as many positions as ours: none"
    )
    return row("random_p", p, text=f"p = {p:.2g}", note=words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What may be wrong with the test besides its result.

    Attributes:
        made_up: the bars come from a generator.
        openings: how often the span was opened.
        quality: history quality, a fraction; None where it is not known.
        floored_spreads, floor_points: share of bars that are charged the floor of the spread, and that floor.
        unsettled: test bars whose features depend on how much history was loaded.
    """

    made_up: bool = False
    openings: int = 1
    quality: float | None = None
    floored_spreads: float = 0.0
    floor_points: int = 0
    unsettled: int = 0


def banners(run: TestRun, given: Circumstances) -> list[Banner]:
    """Return the warnings, gravest first."""
    found = []
    if given.made_up:
        found.append(Banner("made_up", "These bars are made up by a random generator: the page shows that the machinery runs, nothing else."))  # fmt: skip
    if run.status == 1:
        found.append(
            Banner("ruined", "The account was ruined: a stop-out, or equity at its floor, ended the test.")
        )
    if (few := few_positions(run)) is not None:
        found.append(few)
    ended = int((run.trades["reason"] == "END").sum())
    if ended > END_SHARE * run.trades.height:
        found.append(
            Banner(
                "end_exits",
                f"{ended} of {run.trades.height} trades were closed by the end of the test, not by the policy.",
            )
        )
    if given.openings > 1:
        found.append(
            Banner(
                "openings",
                f"This test span was opened {given.openings} times: every look makes a good result likelier by luck.",
            )
        )
    if given.floored_spreads > 0:
        found.append(
            Banner(
                "spread_floor",
                f"{percent(given.floored_spreads)} of the bars state a smaller spread than the floor of {given.floor_points} points, or none: the floor is charged.",
            )
        )
    if given.unsettled:
        found.append(
            Banner(
                "unsettled",
                f"The features of {given.unsettled} test bars depend on how much history was loaded: give more bars before the test.",
            )
        )
    if given.quality is not None and given.quality < LEAST_QUALITY:
        found.append(
            Banner("quality", f"History quality {percent(given.quality)}: bars are missing or wrong.")
        )
    if run.detail_missing:
        found.append(
            Banner(
                "detail_missing",
                f"{run.detail_missing} bars were held through without the finer bars that were asked for; there the stop counted first.",
            )
        )
    return found  # fmt: skip


def few_positions(run: TestRun) -> Banner | None:
    """Return the warning about fewer than 100 positions, with what a coin would give."""
    nets = run.positions["net"].to_numpy()
    n, won = len(nets), int((nets > 0).sum())
    if n >= FEW_POSITIONS:
        return None
    if n == 0:
        return Banner("few_positions", "No position was closed: there is nothing to judge.")
    low, high = wilson_interval(won, n)
    coin = binomial_tail(min(won, n - won), n)
    return Banner(
        "few_positions",
        f"{n} position{'s' if n > 1 else ''}: too few. {won} of {n} won is what a coin gives in {100 * coin:.0f} % of cases; "
        f"the 95 % interval of the win rate is {100 * low:.1f}–{100 * high:.1f} %.",
    )
