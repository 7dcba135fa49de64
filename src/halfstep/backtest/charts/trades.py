"""Charts of trades and positions: when they were opened and closed, how far they ran, how long they were held."""

from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halfstep.backtest.charts.account import MONTHS
from halfstep.backtest.charts.figure import (
    BLUE,
    GREEN,
    HATCHES,
    INK,
    MARKS,
    ORANGE,
    PAPER,
    Chart,
    DataTable,
    count,
    draw,
    listed,
    nothing,
    one_axes,
    sample,
    table_note,
    thousands,
)
from halfstep.backtest.figures import number

By = Literal["hour", "weekday", "month"]
GROUPS: tuple[By, ...] = ("hour", "weekday", "month")
Excursion = Literal["mfe", "mae"]
EXCURSIONS: tuple[Excursion, ...] = ("mfe", "mae")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LABELS: dict[By, tuple[str, ...]] = {
    "hour": tuple(str(hour) for hour in range(24)), "weekday": WEEKDAYS, "month": MONTHS,
}  # fmt: skip
_AXIS: dict[By, str] = {"hour": "server hour", "weekday": "", "month": ""}
SESSIONS = (("Asian", range(8)), ("European", range(8, 16)), ("American", range(16, 24)))
"""Hours of server time by the session they mostly belong to, as the tester colours them."""


def entries(by: By, counts: Int64[np.ndarray, " group"]) -> Chart:
    """Number of positions opened per server hour, weekday or month."""
    key, title = f"entries_{by}", f"Entries by {by}"
    labels = _LABELS[by]
    if not counts.sum():
        return nothing(key, title, "No position was opened.")
    most = int(counts.argmax())
    message = (
        f"{count(counts.sum())} positions were opened; most, {count(counts[most])}, "
        f"{_in(by, most)}; {int((counts == 0).sum())} of {len(counts)} {by}s saw none."
    )
    groups = SESSIONS if by == "hour" else (("", range(len(labels))),)

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, _AXIS[by], "positions opened")
        for (name, places), colour, hatch in zip(groups, (BLUE, ORANGE, GREEN), HATCHES, strict=False):
            axes.bar(list(places), counts[list(places)], color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0, label=name)  # fmt: skip
        _ticks(axes, by)
        if by == "hour":
            axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0)

    rows = tuple((label, count(n)) for label, n in zip(labels, counts, strict=True))
    table = DataTable(heads=(by.capitalize(), "Positions opened"), rows=rows)
    return draw(key, title, message, plot, table=table)


def profit_and_loss(
    by: By, profit: Float64[np.ndarray, " group"], loss: Float64[np.ndarray, " group"], currency: str
) -> Chart:
    """Sums of won and of lost trades by the server hour, weekday or month of their close."""
    key, title = f"pl_{by}", f"Profit and loss by {by} of close"
    if not (profit.any() or loss.any()):
        return nothing(key, title, "No trade was closed with a profit or a loss.")
    net = profit + loss
    best, worst = int(net.argmax()), int(net.argmin())
    message = (
        f"Best {_in(by, best)} with {number(net[best], 2)} {currency} net, worst {_in(by, worst)} with "
        f"{number(net[worst], 2)} {currency}."
    )
    labels = _LABELS[by]

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, _AXIS[by], currency)
        places = np.arange(len(labels))
        axes.bar(places, profit, color=BLUE, edgecolor=PAPER, linewidth=0, label="won")
        axes.bar(places, loss, color=ORANGE, hatch="//", edgecolor=PAPER, linewidth=0, label="lost")
        axes.axhline(0, color=INK, linewidth=1)
        thousands(axes.yaxis)
        _ticks(axes, by)
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    rows = tuple(
        (label, number(p, 2), number(q, 2), number(p + q, 2)) for label, p, q in zip(labels, profit, loss, strict=True)
    )  # fmt: skip
    table = DataTable(
        heads=(by.capitalize(), f"Won, {currency}", f"Lost, {currency}", f"Net, {currency}"), rows=rows
    )
    return draw(key, title, message, plot, table=table)


def excursion(
    kind: Excursion,
    excursion: Float64[np.ndarray, " position"],
    net: Float64[np.ndarray, " position"],
    correlation: float | None,
    currency: str,
) -> Chart:
    """Net of each position against its best (MFE) or worst (MAE) floating result, with the least-squares line."""
    name = {"mfe": "best floating profit (MFE)", "mae": "worst floating loss (MAE)"}[kind]
    title = f"Net against {name}"
    if not len(net):
        return nothing(kind, title, "No position was closed.")
    r = "is not defined" if correlation is None else f"is {correlation:.2f}"
    message = (
        f"{count(len(net))} position{'s' if len(net) > 1 else ''}; the correlation of the net with the {name} {r}; the "
        f"{'greatest' if kind == 'mfe' else 'least'} is {number(float(excursion.max() if kind == 'mfe' else excursion.min()), 2)} {currency}."
    )
    kept = _marks(net)

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, f"{kind.upper()}, {currency}", f"net, {currency}")
        _won_and_lost(axes, excursion[kept], net[kept])
        if correlation is not None:
            slope, start = np.polyfit(excursion, net, 1)
            ends = np.array([excursion.min(), excursion.max()])
            axes.plot(
                ends, start + slope * ends, "--", color=INK, linewidth=1.4, label=f"r = {correlation:.2f}"
            )
        axes.axhline(0, color=INK, linewidth=0.8)
        thousands(axes.xaxis)
        thousands(axes.yaxis)
        axes.legend(
            ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0, handletextpad=0.3
        )

    rows = tuple((str(i + 1), number(excursion[i], 2), number(net[i], 2)) for i in sample(len(net)))
    table = DataTable(
        heads=("Position", f"{kind.upper()}, {currency}", f"Net, {currency}"),
        rows=rows,
        note=table_note(len(net), "tables/positions.csv"),
    )
    return draw(kind, title, message, plot, table=table)


def holding(
    seconds: Float64[np.ndarray, " position"], net: Float64[np.ndarray, " position"], currency: str
) -> Chart:
    """Net of each position against the time it was held; logarithmic where the longest is over 100 times the shortest."""
    title = "Net against holding time"
    if not len(net):
        return nothing("holding", title, "No position was closed.")
    hours = seconds / 3600
    parts = [
        f"{label} were held for {np.median(hours[mask]):.1f} hours in the middle"
        for label, mask in (("winners", net > 0), ("losers", net <= 0))
        if mask.any()
    ]
    message = f"Of {count(len(net))} position{'s' if len(net) > 1 else ''}, {listed(parts)}."
    positive = hours[hours > 0]
    is_log = len(positive) == len(hours) and bool(positive.max() > 100 * positive.min())
    kept = _marks(net)

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "hours held", f"net, {currency}")
        _won_and_lost(axes, hours[kept], net[kept])
        if is_log:
            axes.set_xscale("log")
        axes.axhline(0, color=INK, linewidth=0.8)
        thousands(axes.yaxis)
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.3)

    rows = tuple((str(i + 1), f"{hours[i]:.2f}", number(net[i], 2)) for i in sample(len(net)))
    table = DataTable(
        heads=("Position", "Hours held", f"Net, {currency}"),
        rows=rows,
        note=table_note(len(net), "tables/positions.csv"),
    )
    return draw("holding", title, message, plot, table=table)


def _marks(net: Float64[np.ndarray, " position"]) -> np.ndarray:
    """Return the positions to draw: all, or the extremes and an even choice of the rest."""
    if len(net) <= MARKS:
        return np.arange(len(net))
    order = np.argsort(net, kind="stable")
    return np.unique(np.concatenate([order[:50], order[-50:], sample(len(net), rows=MARKS - 100)]))


def _won_and_lost(axes: Axes, x: np.ndarray, net: np.ndarray) -> None:
    for label, mask, marker, colour in (("won", net > 0, "o", BLUE), ("lost", net <= 0, "X", ORANGE)):
        if mask.any():
            axes.plot(
                x[mask], net[mask], marker, color=colour, alpha=0.8, markersize=7, markeredgecolor=PAPER, markeredgewidth=0.6, label=label
            )  # fmt: skip


def _ticks(axes: Axes, by: By) -> None:
    labels = _LABELS[by]
    step = {"hour": 4, "weekday": 1, "month": 1}[by]
    axes.set_xticks(range(0, len(labels), step))
    axes.set_xticklabels([label[0] if by == "month" else label for label in labels[::step]])
    axes.grid(visible=False, axis="x")


def _in(by: By, place: int) -> str:
    if by == "hour":
        return f"between {place}:00 and {place + 1}:00"
    return f"{'on' if by == 'weekday' else 'in'} {_LABELS[by][place]}"
