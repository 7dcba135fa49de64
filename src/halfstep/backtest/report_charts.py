"""Of the page before `halfstep.backtest.html`; goes with `report.py`. Charts as inline SVG: no fonts embedded, fixed ids, a title and a sentence with the numbers."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from halfstep.backtest.report import ReportData

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by the colour-blind
GREY = "#6b7280"
DASHES = ("-", "--", "-.", ":")
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "halfstep", "font.family": "sans-serif", "font.size": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "text.color": GREY, "axes.grid": True, "grid.alpha": 0.25,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: its key, its title, a sentence with its message, and the SVG element."""

    key: str
    title: str
    message: str
    svg: str


def all_charts(data: "ReportData") -> dict[str, Chart]:
    """Return every chart by key."""
    return {
        chart.key: chart
        for chart in (_equity(data), _random(data), _loss(data), _memory(data), _forecast(data))
    }


def _draw(key: str, title: str, message: str, plot: Callable[[Axes], None], *, height: float = 3.2) -> Chart:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        plot(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    labels = f'<title id="{key}-t">{title}</title><desc id="{key}-d">{message}</desc>'
    svg = re.sub(
        r"<svg([^>]*)>", rf'<svg role="img" aria-labelledby="{key}-t {key}-d"\1>{labels}', svg, count=1
    )
    return Chart(key, title, message, svg)


def _equity(data: "ReportData") -> Chart:
    curve = data.curve
    low, high = min(curve.equity), max(curve.equity)
    message = (
        f"Equity of {data.representative} runs from {curve.equity[0]:,.0f} to {curve.equity[-1]:,.0f}, "
        f"between {low:,.0f} and {high:,.0f}; thin lines are the other seeds."
    )
    days = (np.array(curve.time) - curve.time[0]) / 86_400

    def plot(axes: Axes) -> None:
        for other in data.other_curves:
            axes.plot(days[: len(other)], other, color=GREY, alpha=0.45, linewidth=0.8)
        axes.plot(days, curve.balance, color=COLOURS[1], linestyle="--", linewidth=1.2, label="balance")
        axes.plot(days, curve.equity, color=COLOURS[0], linewidth=1.5, label="equity")
        axes.set_xlabel("days since the first test bar")
        axes.set_ylabel("account currency")
        axes.legend(frameon=False)

    return _draw("equity", "Balance and equity on unseen bars", message, plot)


def _random(data: "ReportData") -> Chart:
    nets = np.array(data.random_nets)
    message = (
        f"Random policies with as many positions earn between {np.percentile(nets, 5):,.0f} and "
        f"{np.percentile(nets, 95):,.0f} in nine of ten runs, {np.median(nets):,.0f} in the middle; ours {data.net:,.0f}."
    )

    def plot(axes: Axes) -> None:
        axes.hist(nets, bins=40, color=GREY, alpha=0.6, label="random policies")
        axes.axvline(data.net, color=COLOURS[1], linewidth=2, label="ours")
        axes.set_xlabel("net profit, account currency")
        axes.set_ylabel("runs")
        axes.legend(frameon=False)

    return _draw("random", "Against random trading", message, plot)


def _loss(data: "ReportData") -> Chart:
    parts = [f"{o.name} ends at {np.mean(o.losses):.4f}" for o in data.optimizers]
    message = f"Validation loss of the encoder, mean over seeds with their range: {', '.join(parts)}."

    def plot(axes: Axes) -> None:
        for optimizer, colour, dash in zip(data.optimizers, COLOURS, DASHES, strict=False):
            length = min(len(curve) for curve in optimizer.validation_curves)
            curves = np.array([curve[:length] for curve in optimizer.validation_curves])
            train = np.array([curve[:length] for curve in optimizer.train_curves])
            epochs = np.arange(1, length + 1)
            axes.plot(
                epochs,
                curves.mean(axis=0),
                dash,
                color=colour,
                marker="o",
                label=f"{optimizer.name}, validation",
            )
            axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15)
            axes.plot(epochs, train.mean(axis=0), color=colour, alpha=0.5, linewidth=0.8)
        axes.set_xlabel("epoch (thin lines: training loss)")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)

    return _draw("loss", "Learning to forecast", message, plot)


def _memory(data: "ReportData") -> Chart:
    parts = [f"{o.name} {o.state_bytes:,} bytes" for o in data.optimizers]
    message = f"Optimizer state, measured: {', '.join(parts)}."

    def plot(axes: Axes) -> None:
        names = [o.name for o in data.optimizers]
        sizes = [o.state_bytes / 1e6 for o in data.optimizers]
        bars = axes.barh(
            names, sizes, color=COLOURS[: len(names)], hatch=["", "//", "..", "xx"][: len(names)]
        )
        axes.bar_label(bars, fmt="%.3f MB", padding=4, color=GREY)
        axes.set_xlabel("megabytes of optimizer state")
        axes.margins(x=0.2)
        axes.invert_yaxis()

    return _draw("memory", "Memory of the optimizer", message, plot, height=2.0)


def _forecast(data: "ReportData") -> Chart:
    forecast = data.forecast
    error = float(np.mean((np.array(forecast.future) - np.array(forecast.forecast)) ** 2))
    message = f"Feature {forecast.feature} before and after {forecast.when}: 24 bars ahead, mean squared error {error:.3g}."

    def plot(axes: Axes) -> None:
        n, ahead = len(forecast.past), np.arange(1, len(forecast.future) + 1)
        axes.plot(np.arange(1 - n, 1), forecast.past, color=GREY, label="known")
        axes.plot(ahead, forecast.future, color=COLOURS[1], linestyle="--", label="what came")
        axes.plot(ahead, forecast.forecast, color=COLOURS[0], label="forecast")
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel("bars from the newest known bar")
        axes.set_ylabel(forecast.feature)
        axes.legend(frameon=False)

    return _draw("forecast", "A forecast on unseen bars", message, plot)
