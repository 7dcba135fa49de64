"""The chart of a comparison: the encoder's loss of each optimizer, over seeds."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halfstep.backtest.statistics import student_t_quantile

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":")


def curves_chart(arms: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return loss over updates, mean over seeds with a 95 % band, as SVG; equal records give equal bytes.

    Args:
        arms: records of the arms by optimizer.
    """

    def plot(axes: Axes) -> None:
        for number, (name, records) in enumerate(arms.items()):
            if records:
                _draw(axes, name, records, COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)])
                axes.legend(frameon=False)
        axes.set_xlabel("updates (thin lines: training loss, every 20 updates)")
        axes.set_ylabel("loss of the encoder")
        axes.set_title(
            "Validation loss, mean over seeds with 95 % band, as far as every seed went", fontsize=10
        )

    return _svg(plot)


def _svg(plot: Callable[[Axes], None]) -> str:
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "halfstep", "font.size": 10}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        plot(axes)
        axes.grid(alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def mean_with_band(
    curves: "np.ndarray[Any, np.dtype[np.float64]]",
) -> tuple["np.ndarray[Any, np.dtype[np.float64]]", "np.ndarray[Any, np.dtype[np.float64]]"]:
    """Return the mean over seeds (rows) and half the width of its 95 % t-interval, which is 0 for one seed."""
    n = len(curves)
    if n == 1:
        return curves[0], np.zeros_like(curves[0])
    error = curves.std(axis=0, ddof=1) / np.sqrt(n)
    return curves.mean(axis=0), student_t_quantile(0.975, n - 1) * error


def _draw(axes: Axes, name: str, records: list[dict[str, Any]], colour: str, dash: str) -> None:
    updates, validation = _common([record["encoder"]["curve"] for record in records], "validation")
    mean, half = mean_with_band(validation)
    axes.plot(updates, mean, dash, color=colour, marker="o", markersize=3, label=name)
    axes.fill_between(updates, mean - half, mean + half, color=colour, alpha=0.15)
    updates, train = _common([record["encoder"]["losses"] for record in records], "train")
    axes.plot(updates, train.mean(axis=0), color=colour, alpha=0.4, linewidth=0.7)


def _common(curves: list[list[dict[str, float]]], key: str) -> tuple[list[float], Any]:
    """Return the updates that every curve reached, and its values there, one row per curve."""
    length = min(len(curve) for curve in curves)
    return [point["update"] for point in curves[0][:length]], np.array(
        [[point[key] for point in curve[:length]] for curve in curves]
    )
