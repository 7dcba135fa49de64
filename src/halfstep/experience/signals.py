"""Recorded deals as demonstrations: a history is replayed on bars by the account's own engine (the idea of Real-ORL).

A deal becomes known when it happens, so it is entered at the first bar open at or after its opening and left at the
first bar open at or after its closing; one that begins and ends between two opens cannot be replayed. It has no target
and no stop: the file's stop is the last, trailed one, its target may have been moved, and its close price lies in the
future. Deals that are open together add up on each side, then the account's rules net them.

How much of the recorded result survives this timing is part of the output, see `Fidelity`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.broker.deals import deals_frame
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import CLOSE, OPEN, SPREAD, MarketTable
from halfstep.errors import SignalError
from halfstep.experience.episode import Group
from halfstep.experience.histories import History
from halfstep.experience.policy import ACTION_SIZE
from halfstep.experience.record import Recorder
from halfstep.experience.tally import Tally
from halfstep.market.calendar import ServerZone, iso
from halfstep.market.instruments import preset_of
from halfstep.market.timeframes import DAY, HOUR

Actions = npt.NDArray[np.float64]
Bars = npt.NDArray[np.int64]

TOLERANCE_POINTS = 30.0  # by which a recorded price may lie outside its bar: another broker's quotes
LEAST_SHARE = 0.9
SHIFTS = tuple(hours * HOUR for hours in range(-14, 15))
HOLE_SECONDS = 5 * DAY  # between bars; the longest holiday weekends close for four days
LEAK = "exit_price"
LOOK_AHEAD_CORRELATION = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalSettings:
    """How deals become actions."""

    zone: str | None = None
    """Clock of the history. Default: that of the bars."""
    lot_scale: float = 1.0
    """Multiplies the recorded volumes."""
    use_file_tp: bool = False
    """Take the files' targets, although they may have been moved while the deal was open."""
    impute_levels: Literal["none", "exit_price"] = "none"
    """exit_price turns the later close price into the target of a win and the stop of a loss, as published. It tells
    the future; for reproduction only."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.lot_scale) and self.lot_scale > 0):
            raise ValueError(f"lot_scale: {self.lot_scale}, must be above 0.")

    @property
    def is_leaking(self) -> bool:
        """Whether actions know the future."""
        return self.impute_levels != "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """How well a history lies inside the bars.

    Attributes:
        zone: clock it was read with.
        deals: of the symbol, opened while there were bars.
        share: of them with an open price within 30 points of its bar.
        shares: the same if all times were later by so many seconds.
    """

    zone: ServerZone
    deals: int
    share: float
    shares: dict[int, float]

    @property
    def best_shift(self) -> int:
        """Seconds to add to the times for the greatest share."""
        return max(self.shares, key=lambda shift: (self.shares[shift], -abs(shift)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """Replayed against recorded deals; money in account currency, prices in points, volumes in lots.

    Attributes:
        deals: compared.
        correlation: of the recorded move and the move between the bar opens, both from the deal's side; None where
            one of them does not vary.
        recorded_points, timed_points, replayed_points: means: of the file's prices; of the bar opens, without costs; of
            the engine, with spread, slippage and levels.
        median_difference: median of |move between the bar opens - recorded move|, points.
        recorded_lots, replayed_lots: mean volume.
        recorded_net, replayed_net: sum with commission and swap.
        same_sign: share of deals whose two nets have one sign.
    """

    deals: int
    correlation: float | None
    recorded_points: float
    timed_points: float
    replayed_points: float
    median_difference: float
    recorded_lots: float
    replayed_lots: float
    recorded_net: float
    replayed_net: float
    same_sign: float


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Replay:
    """A history on bars.

    Attributes:
        match: how the history lies inside the bars.
        deals: one row per filled deal: the columns of `History.deals`; ``open_time`` and ``close_time`` (UTC seconds);
            ``status`` (``used``, ``cut`` to the lot cap, ``skipped``) and ``reason``; ``entry_bar`` and ``exit_bar``, at
            whose open it is entered and left (-1 = never); ``lots``; ``recorded_points``, ``timed_points``,
            ``replayed_points`` and ``replayed_net``, null where skipped.
        groups: one episode for each contiguous coverage.
        tally: what the episodes did.
        fidelity: None where no deal was used.
    """

    match: Match
    deals: pl.DataFrame
    groups: tuple[Group, ...]
    tally: Tally
    fidelity: Fidelity | None

    @property
    def counts(self) -> dict[str, int]:
        """Deals that were used or cut, and the skipped ones by reason."""
        words = self.deals.select(
            pl.when(pl.col("status") == "skipped")
            .then(pl.col("reason"))
            .otherwise(pl.col("status"))
            .alias("word")
        )["word"]
        return {str(word): int(n) for word, n in sorted(words.value_counts().iter_rows())}


def replay_history(
    history: History, table: MarketTable, rules: AccountRules, settings: SignalSettings
) -> Replay:
    """Replay a history on bars.

    Args:
        rules: of the account; a level of 0 means none, whatever they say.

    Raises:
        SignalError: no deal of the bars' symbol while there are bars, or under 90 % of the open prices lie in their bar.
    """
    rules = replace(rules, zero_level="none")
    zone = ServerZone(settings.zone) if settings.zone else table.bars.zone
    opened, closed = history.utc(zone)
    deals = history.deals.with_columns(
        open_time=pl.Series(opened, dtype=pl.Int64), close_time=pl.Series(closed, dtype=pl.Int64)
    )
    is_own = np.array([same_symbol(symbol, table.bars.symbol) for symbol in deals["symbol"]], bool)
    match = match_prices(history, deals.filter(is_own), table, zone)
    deals = _placed(deals, is_own, table, rules, settings)
    used = deals.filter(pl.col("status") != "skipped")
    groups, tallies = [], []
    for (coverage,), part in used.group_by("coverage", maintain_order=True):
        group, tally = _played(history, part, table, rules, settings)
        groups.append(group)
        tallies.append(tally)
        if group.terminated[0]:
            is_late = (pl.col("coverage") == coverage) & (
                pl.col("entry_bar") > group.first_bar[0] + group.length[0]
            )
            deals = deals.with_columns(
                status=pl.when(is_late).then(pl.lit("skipped")).otherwise("status"),
                reason=pl.when(is_late).then(pl.lit("after the account's ruin")).otherwise("reason"),
                entry_bar=pl.when(is_late).then(-1).otherwise("entry_bar"),
                exit_bar=pl.when(is_late).then(-1).otherwise("exit_bar"),
            )
    deals = _with_results(deals.drop("coverage"), table, rules, settings)
    return Replay(
        match=match, deals=deals, groups=tuple(groups), tally=Tally.total(tallies),
        fidelity=fidelity_of(deals.filter(pl.col("status") != "skipped")),
    )  # fmt: skip


def same_symbol(name: str, symbol: str) -> bool:
    """Return whether a broker's name means a symbol, whatever case, prefix sign or suffix it has.

    >>> [same_symbol(name, "EURUSD") for name in ("eurusd.", "EURUSDm", "#EURUSD", "EURGBP", "")]
    [True, True, True, False, False]
    """
    letters = name.upper().lstrip("#!._-")
    wanted, found = preset_of(symbol), preset_of(letters)
    if wanted is not None:
        return found is not None and found.symbol == wanted.symbol
    return letters.startswith(symbol.upper())


def match_prices(history: History, deals: pl.DataFrame, table: MarketTable, zone: ServerZone) -> Match:
    """Return how well the open prices of deals lie inside their bars; raises SignalError where they do not.

    Args:
        deals: of the bars' symbol, with ``open_time``.
    """
    bars = table.bars
    place = f"{bars.symbol}, {bars.covers()} History read with the clock {zone.name}"
    inside = deals.filter(pl.col("open_time").is_between(int(bars.time[0]), int(bars.close_time[-1]) - 1))
    if not len(inside):
        symbols = sorted(set(history.deals["symbol"]))
        shown = f"{len(deals)} deals of {bars.symbol}, none opened while there are bars"
        if len(deals):
            times = deals["open_time"].sort()
            shown += f" (they run from {iso(int(times[0]))} to {iso(int(times[-1]))} UTC)"
        raise SignalError(
            f"{shown}; symbols in the file: {', '.join(symbols[:10]) or 'none'}", file=history.path,
            hint=f"Bars: {place}. Give bars of the deals' symbol and time with --bars.",
        )  # fmt: skip
    time, price = inside["open_time"].to_numpy(), inside["open_price"].to_numpy()
    shares = {shift: _share_inside(time + shift, price, table) for shift in SHIFTS}
    match = Match(zone=zone, deals=len(inside), share=shares[0], shares=shares)
    if match.share < LEAST_SHARE:
        best = match.best_shift
        raise SignalError(
            f"{match.share:.1%} of {len(inside)} open prices lie in their bar within {TOLERANCE_POINTS:.0f} points, "
            f"must be {LEAST_SHARE:.0%}; shifted by {best / HOUR:+.0f} h it would be {shares[best]:.1%}",
            file=history.path, value=match.share,
            hint=f"{place}. Name the history's clock with zone= (--zone), or give bars of its own symbol.",
        )  # fmt: skip
    return match


def _share_inside(time: Bars, price: npt.NDArray[np.float64], table: MarketTable) -> float:
    bars, slack = table.bars, TOLERANCE_POINTS * table.instrument.point
    at = np.maximum(np.searchsorted(bars.time, time, side="right") - 1, 0)
    is_in = (time >= bars.time[at]) & (time < bars.close_time[at])
    return float((is_in & (price >= bars.low[at] - slack) & (price <= bars.high[at] + slack)).mean())


def _placed(
    deals: pl.DataFrame,
    is_own: npt.NDArray[np.bool_],
    table: MarketTable,
    rules: AccountRules,
    settings: SignalSettings,
) -> pl.DataFrame:
    """Add to each deal the bars at whose open it is entered and left, its volume, and whether it can be replayed."""
    bars, n = table.bars, len(table.bars)
    entry = np.searchsorted(bars.time, deals["open_time"].to_numpy(), side="left")
    leave = np.searchsorted(bars.time, deals["close_time"].to_numpy(), side="left")
    hole = max(HOLE_SECONDS, 2 * bars.timeframe.seconds)
    coverage = np.concatenate([[0], np.cumsum(np.diff(bars.time) > hole)])
    before, after = entry < 1, leave >= n
    first, last = np.clip(entry, 1, n - 1), np.clip(leave, 0, n - 1)
    recorded = (
        np.minimum(deals["open_volume"].to_numpy(), deals["close_volume"].to_numpy()) * settings.lot_scale
    )
    lots = np.minimum(recorded, rules.lot_cap)
    reasons = (
        (~is_own, "another symbol"),
        (before, "opened before the bars"),
        (after, "closed after the bars"),
        (entry == leave, "shorter than a bar"),
        (coverage[first - 1] != coverage[last], "open across a hole in the bars"),
        (recorded < table.instrument.lot_min - 1e-9, "below the least lot"),
    )
    reason = np.select([which for which, _ in reasons], [words for _, words in reasons], default="")
    status = np.where(reason != "", "skipped", np.where(recorded > rules.lot_cap + 1e-9, "cut", "used"))
    is_used = reason == ""
    return deals.with_columns(
        status=pl.Series(status.astype(str), dtype=pl.String),
        reason=pl.Series(reason.astype(str), dtype=pl.String),
        entry_bar=pl.Series(np.where(is_used, entry, -1), dtype=pl.Int64),
        exit_bar=pl.Series(np.where(is_used, leave, -1), dtype=pl.Int64),
        lots=pl.Series(lots, dtype=pl.Float64),
        coverage=pl.Series(coverage[last], dtype=pl.Int64),
    )


def actions_of(deals: pl.DataFrame, table: MarketTable, settings: SignalSettings) -> tuple[int, Actions]:
    """Return the first decision's bar and the actions that hold deals from their entry to their exit bar.

    The last action, at the latest exit, is flat. Levels are fractions of the level scale, from the quote at the
    decision's close; where several deals of a side are open the farthest counts, and no level is the farthest of all.
    """
    first = min(deals["entry_bar"].to_list()) - 1
    actions = np.zeros((max(deals["exit_bar"].to_list()) - first, ACTION_SIZE))
    for deal in deals.iter_rows(named=True):
        rows = slice(deal["entry_bar"] - first - 1, deal["exit_bar"] - first - 1)
        decided = np.arange(deal["entry_bar"] - 1, deal["exit_bar"] - 1)
        volume = 0 if deal["side"] > 0 else 3
        is_held = actions[rows, volume] > 0
        for column, price, direction in zip(
            (volume + 1, volume + 2), _levels(deal, settings), (1, -1), strict=True
        ):
            own, others = _fractions(price, deal["side"], direction, decided, table), actions[rows, column]
            farthest = np.where((own > 0) & (others > 0), np.maximum(own, others), 0.0)
            actions[rows, column] = np.where(is_held, farthest, own)
        actions[rows, volume] += deal["lots"]
    return first, actions


def _levels(deal: dict[str, Any], settings: SignalSettings) -> tuple[float, float]:
    """Return target and stop as prices, 0 where there is none."""
    if settings.is_leaking:
        is_win = deal["side"] * (deal["close_price"] - deal["open_price"]) > 0
        return (deal["close_price"], 0.0) if is_win else (0.0, deal["close_price"])
    return (deal["tp"] if settings.use_file_tp else 0.0), 0.0


def _fractions(
    price: float, side: int, direction: int, decided: Bars, table: MarketTable
) -> npt.NDArray[np.float64]:
    """Return a level as a fraction of the level scale at each decision; 0: none, passed, or beyond the scale.

    Args:
        direction: +1 for a target, -1 for a stop.
    """
    if price == 0:
        return np.zeros(len(decided))
    quote = table.values[decided, CLOSE] + (table.values[decided, SPREAD] if side > 0 else 0.0)
    fraction = (
        side * direction * (price / table.instrument.point - quote) / table.instrument.level_scale_points
    )
    return np.where((fraction > 0) & (fraction <= 1), fraction, 0.0)


def _played(
    history: History, deals: pl.DataFrame, table: MarketTable, rules: AccountRules, settings: SignalSettings
) -> tuple[Group, Tally]:
    """Return the deals of one coverage as an episode."""
    first, actions = actions_of(deals, table, settings)
    record = Recorder(table, rules, first=first, steps=len(actions), seeds=np.zeros(1, np.int64))
    for action in actions:
        if not record.is_running:
            break
        record.step(action[None])
    name = f"history {history.sha256[:16]}" + (f" {LEAK}" if settings.is_leaking else "")
    return record.finish(source=("signal",), policy=(name,))


def _with_results(
    deals: pl.DataFrame, table: MarketTable, rules: AccountRules, settings: SignalSettings
) -> pl.DataFrame:
    """Add the recorded and the replayed result of every deal that was replayed, each on an account of its own."""
    point, opens = table.instrument.point, table.values[:, OPEN]
    results: dict[str, list[float | None]] = {"timed_points": [], "replayed_points": [], "replayed_net": []}
    for row in range(len(deals)):
        deal = deals[row]
        entry, leave, side = deal["entry_bar"].item(), deal["exit_bar"].item(), deal["side"].item()
        if entry < 0:
            points, net, timed = None, None, None
        else:
            first, actions = actions_of(deal, table, settings)
            run = run_actions(table, rules, actions, first)
            trades = deals_frame(run.log, table).filter(pl.col("entry") == "out")
            moved = (trades["side"] * (trades["price"] - trades["entry_price"]) * trades["steps"]).sum()
            steps = max(1, round(deal["lots"].item() / table.instrument.lot_step))
            points, net = float(moved) / point / steps, float(run.balance[-1]) - rules.deposit
            timed = float(side * (opens[leave] - opens[entry]))
        for name, value in zip(results, (timed, points, net), strict=True):
            results[name].append(value)
    recorded = pl.col("side") * (pl.col("close_price") - pl.col("open_price")) / point
    return deals.with_columns(
        recorded_points=recorded,
        **{name: pl.Series(values, dtype=pl.Float64) for name, values in results.items()},
    )


def fidelity_of(deals: pl.DataFrame) -> Fidelity | None:
    """Return how replayed deals compare with recorded ones; None without any."""
    if not len(deals):
        return None
    recorded, timed = deals["recorded_points"].to_numpy(), deals["timed_points"].to_numpy()
    varies = len(deals) > 1 and recorded.std() > 0 and timed.std() > 0
    net, replayed = deals["net"].to_numpy(), deals["replayed_net"].to_numpy()
    return Fidelity(
        deals=len(deals),
        correlation=float(np.corrcoef(recorded, timed)[0, 1]) if varies else None,
        recorded_points=float(recorded.mean()),
        timed_points=float(timed.mean()),
        replayed_points=float(deals["replayed_points"].to_numpy().mean()),
        median_difference=float(np.median(np.abs(timed - recorded))),
        recorded_lots=float(
            np.minimum(deals["open_volume"].to_numpy(), deals["close_volume"].to_numpy()).mean()
        ),
        replayed_lots=float(deals["lots"].to_numpy().mean()),
        recorded_net=float(net.sum()),
        replayed_net=float(replayed.sum()),
        same_sign=float((np.sign(net) == np.sign(replayed)).mean()),
    )


def in_words(fidelity: Fidelity, bars: str) -> tuple[str, ...]:
    """Return what the figures mean, in sentences.

    Args:
        bars: name of the timeframe.
    """
    kept = f"{fidelity.timed_points:.1f} points a deal instead of {fidelity.recorded_points:.1f}"
    words = [
        f"{fidelity.deals} deals entered and left at the opens of {bars} bars: {kept} before costs, "
        f"{fidelity.replayed_points:.1f} after. Finer bars keep more."
    ]
    if fidelity.correlation is not None and fidelity.correlation > LOOK_AHEAD_CORRELATION:
        words.append(
            f"The replayed moves correlate with the recorded ones at {fidelity.correlation:.2f}: with bars as coarse as "
            "these that would be a sign of look-ahead."
        )
    return tuple(words)


def leaking(policies: Sequence[str]) -> tuple[str, ...]:
    """Return what acted on episodes whose actions know the future, from `Group.policy` of all episodes."""
    return tuple(dict.fromkeys(name for name in policies if name.endswith(f" {LEAK}")))
