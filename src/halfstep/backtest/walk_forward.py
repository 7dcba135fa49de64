"""What the months of a walk-forward say together: each is traded once, by networks that know only earlier ones.

A month's log growth is ln(equity at its end / deposit). Months are chained: an account goes on with what it had, until
it is ruined. Two intervals answer two questions: over seeds (would other initial weights have done as well?) and over
months (would other months have?).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from halfstep.backtest.baselines import Baseline
from halfstep.backtest.comparison import ForecastErrors, forecast_tables
from halfstep.backtest.content import FOLDS, WALK_FORWARD, Banner
from halfstep.backtest.definitions import row
from halfstep.backtest.figures import Row, Table, percent, table
from halfstep.backtest.run import TestRun
from halfstep.backtest.statistics import interquartile_mean, seed_interval, student_t_quantile
from halfstep.backtest.uncertainty import Resampling

LEAST_MONTHS = 2  # for an interval over months
FEW_MONTHS = 12
MOST_MONTHS = 1200  # a century; what needs more is called that


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WalkForward:
    """What each seed did in each month.

    Attributes:
        months: names of the months, oldest first.
        log_growth: ln(equity at the end / deposit) of each month alone, ``(seed, month)``; a ruined one counts as at
            the account's floor.
        is_ruined: whether the month ended at that floor or below.
        is_stopped: whether a stop-out ended the month early, ruin included.
        table: of the kind `WALK_FORWARD`.
        folds: of the kind `FOLDS`, see `fold_table`.
        skipped: months without bars between the first and the last.
    """

    months: tuple[str, ...]
    log_growth: Float64[np.ndarray, "seed month"]
    is_ruined: Bool[np.ndarray, "seed month"]
    is_stopped: Bool[np.ndarray, "seed month"]
    table: Table
    folds: Table | None = None
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.table.kind is not WALK_FORWARD:
            raise ValueError(f"table: {self.table.kind.key}, must be {WALK_FORWARD.key}.")

    @property
    def chained(self) -> Float64[np.ndarray, " seed"]:
        """Log growth of each seed over all months; after the month of its ruin an account is not traded."""
        ruined_before = np.cumsum(self.is_ruined, axis=1) - self.is_ruined > 0
        return np.asarray(np.where(ruined_before, 0.0, self.log_growth).sum(axis=1), np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthFigures:
    """What is known of all months together; growth is a fraction, log growth a logarithm.

    Attributes:
        growth, growth_over_seeds: chained, interquartile mean over seeds with its 95 % interval.
        worst_seed, best_seed: chained growth.
        mean_month, mean_month_over_months: mean log growth of a month, seeds averaged, with its 95 % t-interval;
            None below two months.
        month_over_seeds, month_interval: interquartile mean of the log growth of all months and seeds, with the 95 %
            interval of seeds resampled within each month.
        deviation: of the months' log growth, ``ddof=1``; None below two months.
        months_needed: months of this mean and deviation whose interval would exclude 0; None where none would.
        months_up, months, seeds: counts; a month is up if its log growth, seeds averaged, is above 0.
    """

    growth: float
    growth_over_seeds: tuple[float, float]
    worst_seed: float
    best_seed: float
    mean_month: float
    mean_month_over_months: tuple[float, float] | None
    month_over_seeds: float
    month_interval: tuple[float, float]
    deviation: float | None
    months_needed: int | None
    months_up: int
    months: int
    seeds: int

    @property
    def is_shown(self) -> str:
        """What the interval over months shows, in words."""
        if self.mean_month_over_months is None:
            return "one month shows no growth"
        low, high = self.mean_month_over_months
        return (
            "no growth is shown" if low <= 0 <= high else "growth is shown" if low > 0 else "a loss is shown"
        )


def month_figures(walk: WalkForward, resampling: Resampling) -> MonthFigures:
    """Return the chained growth with its interval over seeds, and the mean month with its interval over months."""
    total, month = walk.chained, walk.log_growth.mean(axis=0)
    low, high = seed_interval(total, draws=resampling.draws, seed=resampling.seed)
    deviation = float(month.std(ddof=1)) if len(month) >= LEAST_MONTHS else None
    mean = float(month.mean())
    return MonthFigures(
        growth=math.expm1(interquartile_mean(total)),
        growth_over_seeds=(math.expm1(low), math.expm1(high)),
        worst_seed=math.expm1(total.min()),
        best_seed=math.expm1(total.max()),
        mean_month=mean,
        mean_month_over_months=interval_over_months(month),
        month_over_seeds=interquartile_mean(walk.log_growth),
        month_interval=seed_interval(walk.log_growth.T, draws=resampling.draws, seed=resampling.seed),
        deviation=deviation,
        months_needed=None if deviation is None else months_needed(mean, deviation),
        months_up=int((month > 0).sum()),
        months=len(month),
        seeds=len(total),
    )


def interval_over_months(growth: Float64[np.ndarray, " month"]) -> tuple[float, float] | None:
    """Return the 95 % t-interval of the mean log growth of a month; None below two months."""
    if len(growth) < LEAST_MONTHS:
        return None
    mean, half = float(growth.mean()), half_width(float(growth.std(ddof=1)), len(growth))
    return mean - half, mean + half


def half_width(deviation: float, months: int) -> float:
    """Return half the width of the 95 % t-interval of a mean: t(0.975, n - 1) · deviation / √n."""
    return student_t_quantile(0.975, months - 1) * deviation / math.sqrt(months)


def months_needed(mean: float, deviation: float) -> int | None:
    """Return the least number of months whose interval excludes 0, if they had this mean and deviation.

    None beyond a century of months.

    >>> months_needed(0.01, 0.02)
    18
    """
    low, high = LEAST_MONTHS - 1, MOST_MONTHS  # too few; the most
    if half_width(deviation, high) >= abs(mean):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(deviation, middle) < abs(mean) else (middle, high)
    return high


def walk_rows(figures: MonthFigures, *, trades: int) -> tuple[Row, ...]:
    """Return the rows that a summary of a walk-forward begins with.

    Args:
        figures: of all months.
        trades: of the seed that the page shows.
    """
    months = f"{figures.months} month{'s' if figures.months > 1 else ''}"
    return (
        row("walk_growth", figures.growth, interval=figures.growth_over_seeds if figures.seeds > 1 else None, note=f"{figures.seeds} seeds, worst {percent(figures.worst_seed)}"),
        row("walk_month", figures.mean_month, interval=figures.mean_month_over_months, note=figures.is_shown),
        row("walk_month_seeds", figures.month_over_seeds, interval=figures.month_interval if figures.seeds > 1 else None),
        row("walk_months", figures.months, text=f"{months}, {figures.months_up} up, {trades} trades"),
        row("walk_power", None if figures.deviation is None else half_width(figures.deviation, figures.months), note=_needed(figures)),
    )  # fmt: skip


def walk_headline(figures: MonthFigures, *, trades: int) -> str:
    """Return how many months and trades there were, and what they show.

    Args:
        figures: of all months.
        trades: of the seed that the page shows.
    """
    months = f"{figures.months} month{'s' if figures.months > 1 else ''}"
    return f"{months} out of sample, {trades} trade{'' if trades == 1 else 's'}: {figures.is_shown}."


def walk_sentences(figures: MonthFigures) -> list[str]:
    """Return the sentences on all months together: what they gave, what they can show, what they cannot."""
    low, high = figures.growth_over_seeds
    text = (
        f"Chained growth of {figures.months} months: {percent(figures.growth)} (95 % over seeds {percent(low)} … "
        f"{percent(high)}); worst seed {percent(figures.worst_seed)}, best {percent(figures.best_seed)}; "
        f"{figures.months_up} months up."
    )
    if figures.mean_month_over_months is None or figures.deviation is None:
        return [f"{text} One month gives no interval over months."]
    low, high = figures.mean_month_over_months
    text += (
        f" Mean log growth of a month {figures.mean_month:+.5f} (95 % over months {low:+.5f} … {high:+.5f}): "
        f"{figures.is_shown}."
    )
    least = half_width(figures.deviation, figures.months)
    power = (
        "All months gave the same, so they do not say how much others would differ."
        if figures.deviation == 0
        else f"Months deviate by {figures.deviation:.5f}: with {figures.months} of them, a mean of less than {least:.5f} "
        f"cannot be told from none. {_needed(figures).capitalize()}."
    )
    return [text, f"{power} Other years, symbols, spreads and brokers are not covered by these months."]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Fold:
    """One month as the page shows it beside others.

    Attributes:
        name: of the month.
        run: of the seed that is shown.
        rules: simple rules over the month; see `simple_baselines`.
        errors: of the forecasts of that seed's encoder; None where none lies wholly inside the month.
    """

    name: str
    run: TestRun
    rules: Sequence[Baseline]
    errors: ForecastErrors | None


def fold_table(folds: Sequence[Fold], resampling: Resampling) -> Table:
    """Return what each month gave beside simple rules, and how well its encoder forecast it."""
    return table(FOLDS, [_fold_record(fold, resampling) for fold in folds])


def _fold_record(fold: Fold, resampling: Resampling) -> dict[str, Any]:
    nets = {each.name.replace(" ", "_"): each.run.net for each in fold.rules}
    record = {"month": fold.name, "net": fold.run.net}
    record |= {name: nets.get(name) for name in ("always_long", "always_short", "buy_and_hold")}
    if fold.errors is None:
        return record | {"skill": None, "above": None, "features": None}
    skill = forecast_tables(fold.errors, resampling)[0].frame
    return record | {
        "skill": skill["skill"].mean(),
        "above": int((skill["low"] > 0).sum()),
        "features": skill.height,
    }


FOLD_REMARKS = (
    "The skill is 1 - mean squared error / that of the best naive forecast, by the encoder of that month; a feature counts as better "
    "where the 95 % interval of its skill lies above 0. Under Optimizers and forecasts stands the skill over all months.",
    "Untrained, imitating and best recorded policies are made by halfstep run only: a walk-forward trains none to compare with.",
)


def walk_banners(walk: WalkForward, seeds: Sequence[int]) -> list[Banner]:
    """Return the warnings about the months: missing ones, few of them, and accounts that were stopped out.

    Args:
        walk: the months.
        seeds: names of the seeds, in the order of the rows.
    """
    found = []
    if walk.skipped:
        found.append(
            Banner("skipped_months", f"Missing, because there are no bars: {', '.join(walk.skipped)}.")
        )
    if len(walk.months) < FEW_MONTHS:
        months = f"{len(walk.months)} month{'s' if len(walk.months) > 1 else ''}"
        found.append(
            Banner("few_months", f"{months}: less than a year; whatever the seasons do is not in it.")
        )
    stopped = [f"seed {seed} in {month}" for seed, line in zip(seeds, walk.is_stopped, strict=True) for month, is_out in zip(walk.months, line, strict=True) if is_out]  # fmt: skip
    if stopped:
        found.append(Banner("stopped_months", f"Ended early by a stop-out or ruin: {', '.join(stopped)}."))
    return found


def figures_record(figures: MonthFigures) -> dict[str, Any]:
    """Return the figures for JSON."""
    return {name: getattr(figures, name) for name in MonthFigures.__dataclass_fields__}


def _needed(figures: MonthFigures) -> str:
    """Return how many months the mean that was seen would need."""
    if figures.deviation is None:
        return "one month has no deviation"
    if figures.deviation == 0:
        return "all months gave the same"
    if figures.months_needed is None:
        return "at this mean and deviation, not even a century of months would show a growth or a loss"
    return f"at this mean and deviation, an interval over {figures.months_needed} months would exclude 0"
