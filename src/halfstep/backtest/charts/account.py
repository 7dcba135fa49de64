"""Charts of the account over time: equity and drawdown, deposit load, months, the quality of the bars."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from halfstep.backtest.charts.figure import (
    BLUE,
    DASHES,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    SERIES,
    TABLE_ROWS,
    Chart,
    DataTable,
    date_axis,
    dates,
    day,
    draw,
    listed,
    nothing,
    one_axes,
    sample,
    signed,
    table_note,
    thin,
    thousands,
)
from halfstep.backtest.figures import UNDEFINED, number
from halfstep.market.calendar import iso

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LEAST_QUALITY = 99.0  # percent; less is marked


def equity(
    time: Int64[np.ndarray, " bar"],
    balance: Float64[np.ndarray, " bar"],
    equity: Float64[np.ndarray, " bar"],
    *,
    deposit: float,
    currency: str,
    hold: Float64[np.ndarray, " bar"] | None = None,
    band: tuple[Float64[np.ndarray, " bar"], Float64[np.ndarray, " bar"]] | None = None,
) -> Chart:
    """Balance and equity after each bar; under it the fall of equity from its peak, in percent of the peak.

    Args:
        time: server seconds of each bar.
        balance, equity: after each bar, account currency.
        deposit: before the first bar.
        currency: of the account.
        hold: equity of buy and hold.
        band: 5 % and 95 % quantile of the random policies' equity after each bar.
    """
    title = "Balance, equity and drawdown"
    if not len(time):
        return nothing("equity", title, "No bar was stepped, so there is no curve.")
    peak = np.maximum(deposit, np.maximum.accumulate(equity))
    drawdown = np.where(peak > 0, (peak - equity) / np.where(peak > 0, peak, 1.0), 0.0) * 100
    worst = int(drawdown.argmax())
    top = int(np.flatnonzero(equity[: worst + 1] == equity[: worst + 1].max())[-1])
    fall = (
        f"the deepest fall is {drawdown[worst]:.2f}% of the peak, {_between(time[top], time[worst])}"
        if drawdown[worst] > 0
        else "it never falls below an earlier peak"
    )
    message = (
        f"Equity goes from {number(deposit, 2)} to {number(equity[-1], 2)} {currency} between {day(time[0])} and "
        f"{day(time[-1])}, lowest {number(min(deposit, equity.min()), 2)}, highest {number(max(deposit, equity.max()), 2)}; {fall}."
    )
    when = dates(time)

    def plot(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        if band is not None:
            kept = thin(band[1] - band[0])
            upper.fill_between(
                when[kept], band[0][kept], band[1][kept], color=FAINT, alpha=0.25, linewidth=0, label="random, 5–95 %"
            )  # fmt: skip
        if hold is not None:
            kept = thin(hold)
            upper.plot(when[kept], hold[kept], ":", color=GREEN, linewidth=1.6, label="buy and hold")
        kept = thin(balance)
        upper.step(
            when[kept], balance[kept], "--", where="post", color=ORANGE, linewidth=1.6, label="balance"
        )
        kept = thin(equity)
        upper.plot(when[kept], equity[kept], color=BLUE, label="equity")
        upper.axhline(deposit, color=FAINT, linewidth=0.8)
        upper.set_ylabel(currency)
        thousands(upper.yaxis)
        upper.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)
        kept = thin(drawdown)
        lower.fill_between(when[kept], -drawdown[kept], 0, color=ORANGE, alpha=0.35, linewidth=0)
        lower.plot(when[kept], -drawdown[kept], color=ORANGE, linewidth=1.2)
        lower.set_ylabel("drawdown, %")
        lower.set_ylim(top=0)
        date_axis(lower)

    rows = tuple(
        (iso(int(time[i])), number(balance[i], 2), number(equity[i], 2), f"{drawdown[i]:.2f}") for i in sample(len(time))
    )  # fmt: skip
    table = DataTable(
        heads=("Server time", f"Balance, {currency}", f"Equity, {currency}", "Drawdown, %"),
        rows=rows,
        note=table_note(len(time), "tables/equity.parquet"),
    )
    return draw("equity", title, message, plot, table=table, height=420, is_wide=True)


def growths(curves: Sequence[tuple[str, Int64[np.ndarray, " _bar"], Float64[np.ndarray, " _bar"]]]) -> Chart:
    """Equity of several runs in percent of what each began with: name, server seconds, percent."""
    title = "Growth of each run"
    ends = [f"{name} ends at {signed(percent[-1], 2)}%" for name, time, percent in curves if len(time)]
    if not ends:
        return nothing("growths", title, "No run has a curve.")

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "", "growth, %")
        for k, (name, time, percent) in enumerate(curves):
            kept = thin(percent)
            axes.plot(
                dates(time)[kept],
                percent[kept],
                DASHES[k % len(DASHES)],
                color=SERIES[k % len(SERIES)],
                label=name,
            )
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)
        date_axis(axes)

    rows = tuple(
        (name, iso(int(time[i])), signed(percent[i], 2))
        for name, time, percent in curves
        for i in sample(len(time), rows=TABLE_ROWS // len(curves))
    )
    table = DataTable(heads=("Run", "Server time", "Growth, %"), rows=rows, note="A choice of the bars.")
    return draw(
        "growths", title, f"Of the deposit, {listed(ends)}.", plot, table=table, height=360, is_wide=True
    )


def deposit_load(time: Int64[np.ndarray, " bar"], load: Float64[np.ndarray, " bar"]) -> Chart:
    """Margin over equity after each bar, in percent."""
    title = "Deposit load"
    if not load.any():
        return nothing(
            "deposit_load", title, "No position was held at the end of a bar, so no margin was used."
        )
    most = int(load.argmax())
    message = (
        f"Margin reaches {load[most]:.2f}% of equity on {day(time[most])}; while a position is held it is "
        f"{np.median(load[load > 0]):.2f}% in the middle, and {100 * float((load > 0).mean()):.1f}% of the bars hold one."
    )
    kept = thin(load)

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "", "margin / equity, %")
        axes.fill_between(dates(time)[kept], load[kept], color=BLUE, alpha=0.3, linewidth=0)
        axes.plot(dates(time)[kept], load[kept], color=BLUE, linewidth=1.2)
        axes.set_ylim(bottom=0)
        date_axis(axes)

    rows = tuple((iso(int(time[i])), f"{load[i]:.2f}") for i in sample(len(time)))
    table = DataTable(
        heads=("Server time", "Margin / equity, %"),
        rows=rows,
        note=table_note(len(time), "tables/equity.parquet"),
    )
    return draw("deposit_load", title, message, plot, table=table)


def monthly(months: Sequence[tuple[int, int]], growth: Sequence[float | None]) -> Chart:
    """Growth per server month in percent, years down, months across, the number in each cell.

    Args:
        months: year and month, 1 to 12.
        growth: percent of the month's first equity; None where it is not defined.
    """
    title = "Growth per month"
    known = [(value, month) for value, month in zip(growth, months, strict=True) if value is not None]
    if not known:
        return nothing("monthly", title, "No month has a defined growth.")
    best, worst = max(known), min(known)
    wins = sum(value > 0 for value, _ in known)
    message = (
        f"The only month, {_month(best[1])}, gave {signed(best[0], 2)}%."
        if len(known) == 1
        else f"{wins} of {len(known)} months with a gain; best {_month(best[1])} with {signed(best[0], 2)}%, "
        f"worst {_month(worst[1])} with {signed(worst[0], 2)}%."
    )
    halves = sorted({(year, month > 6) for year, month in months})  # a line each, so that numbers can be read
    scale = max(abs(value) for value, _ in known) or 1.0

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        for (year, month), value in zip(months, growth, strict=True):
            line, column = halves.index((year, month > 6)), (month - 1) % 6
            shade = 0.0 if value is None else 0.06 + 0.28 * abs(value) / scale
            colour = BLUE if (value or 0) > 0 else ORANGE
            axes.add_patch(Rectangle((column, line), 1, 1, facecolor=colour, alpha=shade, linewidth=0))
            text = UNDEFINED if value is None else f"{signed(value, 1)}%"
            for height, words in ((0.32, MONTHS[month - 1]), (0.68, text)):
                axes.text(column + 0.5, line + height, words, ha="center", va="center", fontsize=14)
        axes.set(xlim=(0, 6), ylim=(len(halves), 0), xticks=[], yticks=np.arange(len(halves)) + 0.5)
        axes.set_yticklabels([str(year) for year, _ in halves])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    rows = tuple(
        (f"{year}-{month:02d}", UNDEFINED if value is None else signed(value, 2)) for (year, month), value in zip(months, growth, strict=True)
    )  # fmt: skip
    table = DataTable(heads=("Server month", "Growth, %"), rows=rows)
    return draw("monthly", title, message, plot, table=table, height=55 * len(halves) + 10)


def quality(parts: Float64[np.ndarray, " part"], overall: float) -> Chart:
    """History quality along the test span: green where the bars are whole, orange where some are missing or wrong.

    Args:
        parts: quality of each part in percent, in time order; at most 199.
        overall: of the whole span, percent.
    """
    title = "History quality"
    if not len(parts):
        return nothing("quality", title, "The quality of the bars was not measured.")
    low = int((parts < LEAST_QUALITY).sum())
    message = (
        f"{overall:.2f}% of the bars of the test span are present and valid; {low} of {len(parts)} parts are below 99%"
        + (f", the worst has {parts.min():.1f}%." if low else ".")
    )

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "part of the test span", "")
        borders = np.flatnonzero(np.diff(parts >= LEAST_QUALITY)) + 1
        starts, ends = [0, *borders], [*borders, len(parts)]
        for is_good, colour, hatch, label in (
            (True, GREEN, "", "99 % and more"),
            (False, ORANGE, "xx", "less"),
        ):
            spans = [
                (a, b - a)
                for a, b in zip(starts, ends, strict=True)
                if (parts[a] >= LEAST_QUALITY) == is_good
            ]
            axes.broken_barh(
                spans, (0, 1), color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0, label=label
            )
        axes.set(xlim=(0, len(parts)), ylim=(0, 1), yticks=[])
        axes.grid(visible=False)
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    picked = sample(len(parts))
    rows = tuple((str(i + 1), f"{parts[i]:.2f}") for i in picked)
    table = DataTable(
        heads=("Part", "Quality, %"), rows=rows, note=table_note(len(parts), "tables/quality.parquet")
    )
    return draw("quality", title, message, plot, table=table, height=150)


def _between(start: np.integer, end: np.integer) -> str:
    return f"on {day(end)}" if day(start) == day(end) else f"from {day(start)} to {day(end)}"


def _month(month: tuple[int, int]) -> str:
    return f"{MONTHS[month[1] - 1]}\u00a0{month[0]}"
