"""Charts of what the policy asked for, what became of it, and what trading cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from halfstep.backtest.charts.figure import (
    BLUE,
    INK,
    ORANGE,
    PAPER,
    Chart,
    DataTable,
    count,
    draw,
    listed,
    nothing,
    one_axes,
    thousands,
)  # fmt: skip
from halfstep.backtest.figures import number

CONSTANT = 99  # percent of the decisions in one bin


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How often one element of the action had which value.

    Attributes:
        name: of the element.
        edges: of the bins.
        asked: decisions per bin, as the policy gave them.
        executed: as the broker took them; refused ones are 0.
    """

    name: str
    edges: Float64[np.ndarray, " edge"]
    asked: Int64[np.ndarray, " bin"]
    executed: Int64[np.ndarray, " bin"]


def actions(elements: Sequence[Histogram]) -> Chart:
    """Histograms of the elements of the action: as the policy gave them, and as the broker took them."""
    title = "Actions, as asked and as executed"
    total = int(elements[0].asked.sum()) if elements else 0
    if not total:
        return nothing("actions", title, "No decision was made.")
    fullest = [100 * int(element.asked.max()) / total for element in elements]
    constant = [each.name.lower() for each, share in zip(elements, fullest, strict=True) if share > CONSTANT]
    message = f"{count(total)} decisions. " + (
        f"One bin holds more than {CONSTANT}% of them in: {listed(constant)}."
        if constant
        else f"The fullest bin holds {min(fullest):.0f}% to {max(fullest):.0f}% of them, by element."
    )

    def plot(figure: Figure) -> None:
        rows = -(-len(elements) // 2)
        for axes, element in zip(figure.subplots(rows, 2, squeeze=False).T.ravel(), elements, strict=False):
            width = np.diff(element.edges)
            for shift, counts, colour, hatch in ((0.28, element.asked, BLUE, ""), (0.72, element.executed, ORANGE, "//")):  # fmt: skip
                axes.bar(
                    element.edges[:-1] + shift * width, 100 * counts / total, 0.42 * width, color=colour, hatch=hatch,
                    edgecolor=PAPER, linewidth=0,
                )  # fmt: skip
            axes.set_title(element.name, fontsize=15)
            axes.locator_params(nbins=3)
        marks = [
            Patch(facecolor=BLUE, label="as asked"),
            Patch(facecolor=ORANGE, hatch="//", edgecolor=PAPER, linewidth=0, label="executed"),
        ]
        figure.legend(handles=marks, ncols=2, loc="outside upper center")
        figure.supylabel("% of decisions", fontsize=16)

    rows = tuple(
        (each.name, f"{each.edges[k]:.3g} to {each.edges[k + 1]:.3g}", count(each.asked[k]), count(each.executed[k]))
        for each in elements
        for k in range(len(each.asked))
        if each.asked[k] or each.executed[k]
    )  # fmt: skip
    table = DataTable(heads=("Element", "Values", "As asked", "Executed"), rows=rows)
    return draw("actions", title, message, plot, table=table, height=460)


def outcomes(counts: Sequence[tuple[str, int]]) -> Chart:
    """How many decisions ended in each outcome of the broker; those without any are left out of the picture."""
    title = "What became of the decisions"
    total = sum(n for _, n in counts)
    if not total:
        return nothing("outcomes", title, "No decision was made.")
    named = [(name.lower().replace("_", " "), n) for name, n in counts]
    shown = [(name, n) for name, n in named if n]
    parts = [f"{100 * n / total:.1f}% {name}" for name, n in sorted(shown, key=lambda each: -each[1])]
    message = f"Of {count(total)} decisions: {listed(parts)}."

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "decisions", "")
        _bars(axes, [name for name, _ in shown], [float(n) for _, n in shown], digits=0)

    rows = tuple((name, count(n), f"{100 * n / total:.2f}") for name, n in named)
    table = DataTable(heads=("Outcome", "Decisions", "Share, %"), rows=rows)
    return draw("outcomes", title, message, plot, table=table, height=90 + 44 * len(shown))


def costs(parts: Sequence[tuple[str, float]], currency: str) -> Chart:
    """The result at mid prices, each cost, and the net they add up to, as signed money."""
    title = "From the mid price to the net result"
    if not any(value for _, value in parts):
        return nothing("costs", title, "No trade, so no result and no cost.")
    message = f"{listed([f'{name} {number(value, 2)}' for name, value in parts])} {currency}."
    message = message[0].upper() + message[1:]

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, currency, "")
        _bars(axes, [name for name, _ in parts], [value for _, value in parts], digits=2)

    rows = tuple((name, number(value, 2)) for name, value in parts)
    table = DataTable(heads=("Part", f"Money, {currency}"), rows=rows)
    return draw("costs", title, message, plot, table=table, height=90 + 44 * len(parts))


def _bars(axes: Axes, names: list[str], values: list[float], *, digits: int) -> None:
    """Draw bars to the right for gains and to the left, hatched, for losses, each with its number."""
    bars = axes.barh(
        names, values, color=[BLUE if value >= 0 else ORANGE for value in values], edgecolor=PAPER, linewidth=0,
        hatch=["" if value >= 0 else "//" for value in values],
    )  # fmt: skip
    axes.bar_label(bars, [number(value, digits) for value in values], padding=4, fontsize=15)
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.28)
    if min(values) >= 0:
        axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=4)
    thousands(axes.xaxis)
    axes.grid(visible=False, axis="y")
