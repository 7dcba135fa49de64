"""The chart of a walk-forward: the joined path of every seed, and under it what each month gave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure

from halfstep.backtest.charts.figure import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PAPER,
    Chart,
    DataTable,
    date_axis,
    dates,
    day,
    draw,
    signed,
    thin,
    thousands,
)
from halfstep.backtest.figures import UNDEFINED, number


@dataclass(frozen=True, kw_only=True, slots=True)
class Month:
    """One month: its name, ``2023-01``, and its growth in percent with the 95 % interval over seeds, if there is one."""

    name: str
    growth: float
    interval: tuple[float, float] | None


def walk_forward(
    paths: Sequence[tuple[Int64[np.ndarray, " _bar"], Float64[np.ndarray, " _bar"]]],
    shown: tuple[Int64[np.ndarray, " bar"], Float64[np.ndarray, " bar"]],
    months: Sequence[Month],
    *,
    deposit: float,
    currency: str,
) -> Chart:
    """Return the joined equity of every seed, and the growth of each month with its interval over seeds.

    Args:
        paths: server seconds and joined equity of each seed; none where there is one seed only.
        shown: the same of the seed that the page shows.
        months: in the order of time.
        deposit: before the first month.
        currency: of the account.
    """
    time, equity = shown
    best, worst = (pick(months, key=lambda month: month.growth) for pick in (max, min))
    up = sum(month.growth > 0 for month in months)
    beside = f" The seeds end between {number(min(p[-1] for _, p in paths), 2)} and {number(max(p[-1] for _, p in paths), 2)}." if len(paths) > 1 else ""  # fmt: skip
    message = (
        f"Joined over {len(months)} months, from {day(time[0])} to {day(time[-1])}, equity goes from {number(deposit, 2)} to "
        f"{number(equity[-1], 2)} {currency}.{beside} {up} of the months are up; best {best.name} with {signed(best.growth, 2)}%, "
        f"worst {worst.name} with {signed(worst.growth, 2)}%."
    )  # fmt: skip
    borders = np.array([month.name for month in months], "datetime64[M]").astype("datetime64[s]")
    ends = np.append(borders[1:], dates(time[-1:])[0])

    def plot(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for k, (when, path) in enumerate(paths):
            kept = thin(path)
            upper.plot(
                dates(when)[kept], path[kept], color=FAINT, linewidth=0.9, label="" if k else "each seed"
            )
        kept = thin(equity)
        upper.plot(dates(time)[kept], equity[kept], color=BLUE, linewidth=1.8, label="the seed shown")
        upper.axhline(deposit, color=INK, linewidth=0.8)
        for border in borders:
            upper.axvline(border, color=FAINT, linewidth=0.5, linestyle=":")
        upper.set_ylabel(currency)
        thousands(upper.yaxis)
        upper.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)
        for month, start, end in zip(months, borders, ends, strict=True):
            colour, hatch = (BLUE, "") if month.growth > 0 else (ORANGE, "//")
            width = (end - start) * 4 // 5
            lower.bar(start + (end - start) // 2, month.growth, width, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)  # fmt: skip
            if month.interval is not None:
                lower.vlines(start + (end - start) // 2, *month.interval, color=INK, linewidth=1.2)
        lower.axhline(0, color=INK, linewidth=0.8)
        lower.set_ylabel("month, %")
        date_axis(lower)

    rows = tuple(
        (month.name, signed(month.growth, 2), UNDEFINED if month.interval is None else f"{signed(month.interval[0], 2)} to {signed(month.interval[1], 2)}")
        for month in months
    )  # fmt: skip
    table = DataTable(heads=("Month", "Growth, %", "95 % over seeds, %"), rows=rows)
    return draw("walk_forward", "Joined out-of-sample path, and each month", message, plot, table=table, height=420, is_wide=True)  # fmt: skip
