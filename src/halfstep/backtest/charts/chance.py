"""Charts of how much of the result may be luck: seeds, random trading, overfitting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from halfstep.backtest.charts.figure import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PAPER,
    Chart,
    DataTable,
    count,
    draw,
    nothing,
    one_axes,
    thousands,
)
from halfstep.backtest.figures import number

BINS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Performance profile: the share of seeds that earn at least so much, with its 95 % interval; nets rise."""

    net: Float64[np.ndarray, " step"]
    share: Float64[np.ndarray, " step"]
    low: Float64[np.ndarray, " step"]
    high: Float64[np.ndarray, " step"]


def seeds(
    names: Sequence[str],
    nets: Float64[np.ndarray, " seed"],
    middle: float,
    interval: tuple[float, float] | None,
    currency: str,
    profile: Profile | None = None,
) -> Chart:
    """Net profit of each seed, their interquartile mean with its 95 % interval, and the performance profile.

    Args:
        names: of the seeds.
        nets: net profit on the test span.
        middle: interquartile mean.
        interval: 95 % interval of it; None for a single seed.
        currency: of the account.
        profile: of the nets.
    """
    title = "Net profit by seed" + ("" if profile is None else ", and share of seeds that earn so much")
    if not len(nets):
        return nothing("seeds", title, "No seed was tested.")
    plural = "s" if len(nets) > 1 else ""
    span = (
        f"95% interval {number(interval[0], 2)} to {number(interval[1], 2)}"
        if interval
        else "one seed gives no interval"
    )
    message = (
        f"{len(nets)} seed{plural}: interquartile mean {number(middle, 2)} {currency} ({span}), worst {number(nets.min(), 2)}, "
        f"best {number(nets.max(), 2)}; {int((nets > 0).sum())} of {len(nets)} earned money."
    )

    def plot(figure: Figure) -> None:
        panels = figure.subplots(1, 1 if profile is None else 2, squeeze=False)[0]
        left = panels[0]
        colours = [BLUE if net > 0 else ORANGE for net in nets]
        left.barh(
            list(names), nets, color=colours, hatch=["" if net > 0 else "//" for net in nets], edgecolor=PAPER, linewidth=0,
        )  # fmt: skip
        left.axvline(0, color=INK, linewidth=1)
        left.axvline(middle, color=INK, linewidth=1.6, linestyle="--")
        if interval:
            left.axvspan(*interval, color=FAINT, alpha=0.3, linewidth=0, zorder=0)
        left.invert_yaxis()
        left.set(xlabel=f"net, {currency}", ylabel="seed")
        left.grid(visible=False, axis="y")
        if profile is not None:
            right = panels[1]
            right.fill_between(profile.net, 100 * profile.low, 100 * profile.high, step="pre", color=BLUE, alpha=0.2, linewidth=0)  # fmt: skip
            right.step(profile.net, 100 * profile.share, where="pre", color=BLUE)
            right.axvline(0, color=INK, linewidth=1)
            right.set(xlabel=f"at least, {currency}", ylabel="seeds, %", ylim=(-3, 103))
        for axes in panels:
            axes.locator_params(axis="x", nbins=3)
            thousands(axes.xaxis)

    rows = tuple((name, number(net, 2)) for name, net in zip(names, nets, strict=True))
    table = DataTable(heads=("Seed", f"Net profit, {currency}"), rows=rows)
    return draw("seeds", title, message, plot, table=table, height=max(260, 100 + 28 * len(nets)))


def random(nets: Float64[np.ndarray, " run"], ours: float, p: float | None, currency: str) -> Chart:
    """Net profit of the random runs as a histogram, and ours."""
    title = "Against random trading"
    if not len(nets):
        return nothing(
            "random",
            title,
            "Nothing to compare: the policy opened no position, or random runs were not made.",
        )
    low, middle, high = np.percentile(nets, [5, 50, 95])
    message = (
        f"{count(len(nets))} random runs earn between {number(low, 2)} and {number(high, 2)} {currency} in nine of ten "
        f"cases, {number(middle, 2)} in the middle; ours {number(ours, 2)}, p = {number(p, 3)}."
    )
    edges = np.histogram_bin_edges(nets, BINS)
    counts = np.histogram(nets, edges)[0]

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, f"net profit, {currency}", "random runs")
        axes.stairs(counts, edges, fill=True, color=FAINT, alpha=0.55)
        axes.axvspan(low, high, color=FAINT, alpha=0.18, linewidth=0)
        axes.axvline(ours, color=ORANGE, linewidth=2.6, linestyle="--", label=f"ours, p = {number(p, 3)}")
        thousands(axes.xaxis)
        axes.locator_params(axis="x", nbins=5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))

    table = _histogram_table(edges, counts, f"Net profit, {currency}", "Random runs")
    return draw("random", title, message, plot, table=table)


def pbo(logits: Float64[np.ndarray, " split"], probability: float | None) -> Chart:
    """Rank out of sample, as logit, of the trial that was best in sample; at or below 0 it did no better than the middle."""
    title = "Overfitting: rank out of sample of the best trial"
    if not len(logits) or probability is None:
        return nothing("pbo", title, "The probability of overfitting needs at least two trials.")
    message = (
        f"In {100 * probability:.1f}% of {count(len(logits))} splits the trial that was best in one half is in the lower "
        "half of the trials in the other; that share is the probability of overfitting."
    )
    edges = np.histogram_bin_edges(logits, min(BINS, 12))
    counts = np.histogram(logits, edges)[0]

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "logit of the rank out of sample", "splits")
        axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.8)
        axes.axvline(0, color=ORANGE, linewidth=2.2, linestyle="--", label="the middle of the trials")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))

    table = _histogram_table(edges, counts, "Logit of the rank", "Splits")
    return draw("pbo", title, message, plot, table=table)


def _histogram_table(edges: np.ndarray, counts: np.ndarray, what: str, unit: str) -> DataTable:
    rows = tuple(
        (f"{number(a, 2)} to {number(b, 2)}", count(n)) for a, b, n in zip(edges, edges[1:], counts, strict=False)
    )  # fmt: skip
    return DataTable(heads=(what, unit), rows=rows)
