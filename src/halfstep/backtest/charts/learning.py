"""Charts of the training: losses, what the optimizers cost, and what the encoder forecasts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from halfstep.backtest.charts.figure import (
    BLUE,
    DASHES,
    FAINT,
    HATCHES,
    INK,
    ORANGE,
    PAPER,
    SERIES,
    Chart,
    DataTable,
    count,
    draw,
    listed,
    nothing,
    one_axes,
    sample,
    signed,
)
from halfstep.backtest.figures import UNDEFINED


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurves:
    """Losses of one optimizer, one row per seed; rows are as long as the shortest.

    Attributes:
        name: of the optimizer.
        train, validation: loss after each epoch.
        chosen: epoch, counted from 1, whose weights were kept, per seed.
    """

    name: str
    train: Float64[np.ndarray, "seed epoch"]
    validation: Float64[np.ndarray, "seed epoch"]
    chosen: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One forecast: the known path, what the encoder expected and what came."""

    when: str
    past: tuple[float, ...]
    forecast: tuple[float, ...]
    future: tuple[float, ...]


def loss(curves: Sequence[LossCurves]) -> Chart:
    """Validation loss by epoch, mean over seeds and their range; training loss thin; the kept epoch marked."""
    title = "Learning to forecast"
    if not curves or min(c.validation.size for c in curves) == 0:
        return nothing("loss", title, "No encoder was trained in this run.")
    parts = [f"{c.name} reaches {c.validation.mean(axis=0).min():.4f}" for c in curves]
    message = f"Validation loss of the encoder, mean over {len(curves[0].chosen)} seeds: {listed(parts)}."
    is_positive = all((c.train > 0).all() and (c.validation > 0).all() for c in curves)

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "epoch", "loss, log scale" if is_positive else "loss")
        for curve, colour, dash, marker in zip(
            curves, _cycle(SERIES), _cycle(DASHES), _cycle("osD^"), strict=False
        ):
            epochs = np.arange(1, curve.validation.shape[1] + 1)
            mean = curve.validation.mean(axis=0)
            axes.fill_between(
                epochs, curve.validation.min(axis=0), curve.validation.max(axis=0), color=colour, alpha=0.18, linewidth=0
            )  # fmt: skip
            axes.plot(epochs, mean, dash, color=colour, label=curve.name)
            axes.plot(epochs, curve.train.mean(axis=0), dash, color=colour, linewidth=1.0, alpha=0.7)
            kept = min(round(float(np.median(curve.chosen))), len(epochs)) if curve.chosen else len(epochs)
            axes.plot([kept], [mean[kept - 1]], marker, color=colour, markersize=9, markeredgecolor=PAPER)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if is_positive:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 3.0, 5.0), numticks=6))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0)

    rows = tuple(
        (curve.name, str(k + 1), f"{curve.train[:, k].mean():.5f}", f"{curve.validation[:, k].mean():.5f}")
        for curve in curves
        for k in sample(curve.validation.shape[1], rows=12)
    )
    table = DataTable(
        heads=("Optimizer", "Epoch", "Training loss", "Validation loss"),
        rows=rows,
        note="Means over seeds; the band of the picture is their range, thin lines are training, the mark is the epoch kept.",
    )
    return draw("loss", title, message, plot, table=table)


def memory(
    names: Sequence[str],
    predicted: Sequence[int | None],
    measured: Sequence[int | None],
    *,
    baseline: str = "adamw",
) -> Chart:
    """Bytes of optimizer state: predicted from the partition, and measured after the first step."""
    title = "Memory of the optimizer's state"
    known = [(name, size) for name, size in zip(names, measured, strict=True) if size is not None]
    if not known:
        return nothing("memory", title, "No optimizer state was measured in this run.")
    sizes = dict(known)
    of = sizes.get(baseline)
    parts = [f"{name} {count(s)} bytes" + (f" ({100 * s / of:.1f}% of {baseline})" if of and name != baseline else "") for name, s in known]  # fmt: skip
    message = f"Measured after the first step: {listed(parts)}."

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "megabytes of state", "")
        places = np.arange(len(names))
        both = any(size is not None for size in predicted)
        for shift, values, colour, hatch, label in (
            (-0.2, predicted, FAINT, "", "predicted"), (0.2 if both else 0, measured, BLUE, "//", "measured"),
        ):  # fmt: skip
            if all(size is None for size in values):
                continue
            bars = axes.barh(
                places + shift, [(size or 0) / 1e6 for size in values], 0.38, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0, label=label
            )  # fmt: skip
            axes.bar_label(
                bars,
                [UNDEFINED if size is None else f"{size / 1e6:.3g}" for size in values],
                padding=4,
                fontsize=14,
            )
        axes.set_yticks(places, list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.18)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(visible=False, axis="y")
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    rows = tuple(
        (name, *(UNDEFINED if size is None else count(size) for size in (p, m))) for name, p, m in zip(names, predicted, measured, strict=True)
    )  # fmt: skip
    table = DataTable(heads=("Optimizer", "Predicted, bytes", "Measured, bytes"), rows=rows)
    return draw("memory", title, message, plot, table=table, height=110 + 62 * len(names))


def step_time(
    names: Sequence[str], middle: Sequence[float | None], quartiles: Sequence[tuple[float, float] | None]
) -> Chart:
    """Milliseconds of an optimizer step alone: median, with a line from the lower to the upper quartile."""
    title = "Time of an optimizer step"
    known = [(name, ms) for name, ms in zip(names, middle, strict=True) if ms is not None]
    if not known:
        return nothing("step_time", title, "Step times were not measured in this run.")
    message = f"Median, alone on the machine: {listed([f'{name} {ms:.3g} ms' for name, ms in known])}."

    def plot(figure: Figure) -> None:
        axes = one_axes(figure, "milliseconds per step", "")
        places = np.arange(len(names))
        values = [ms or 0.0 for ms in middle]
        axes.barh(
            places, values, 0.6, color=[SERIES[i % len(SERIES)] for i in places],
            hatch=[HATCHES[i % len(HATCHES)] for i in places], edgecolor=PAPER, linewidth=0,
        )  # fmt: skip
        for place, ms, pair in zip(places, middle, quartiles, strict=True):
            if pair is not None:
                axes.hlines(place, *pair, color=INK, linewidth=3)
            end = max([ms or 0.0, *(pair or ())])
            label = UNDEFINED if ms is None else f"{ms:.3g} ms"
            axes.annotate(label, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=14)
        axes.set_yticks(places, list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.18)
        axes.grid(visible=False, axis="y")

    rows = tuple(
        (
            name,
            UNDEFINED if ms is None else f"{ms:.4g}",
            UNDEFINED if q is None else f"{q[0]:.4g} to {q[1]:.4g}",
        )
        for name, ms, q in zip(names, middle, quartiles, strict=True)
    )
    table = DataTable(heads=("Optimizer", "Median, ms", "Quartiles, ms"), rows=rows)
    return draw("step_time", title, message, plot, table=table, height=90 + 48 * len(names))


def forecast(
    feature: str, windows: Sequence[Window], skill: Float64[np.ndarray, " horizon"], *, unit: str = ""
) -> Chart:
    """Up to three windows of the test span with their forecasts; last the skill by horizon, mean over features.

    Args:
        feature: whose path is drawn.
        windows: the known bars, the forecast, and what came.
        skill: 1 - error / error of the best naive forecast, for 1, 2, … bars ahead.
        unit: of the feature.
    """
    title = "Forecasts on unseen bars, and their skill"
    if not windows:
        return nothing("forecast", title, "The encoder's forecasts were not computed in this run.")
    ends = (
        f"{signed(skill[0], 3)} one bar ahead and {signed(skill[-1], 3)} after {len(skill)}"
        if len(skill)
        else "not measured"
    )
    better = int((skill > 0).sum())
    message = (
        f"Skill against the best naive forecast, mean over features, is {ends}; above 0 at {better} of {len(skill)} horizons. "
        f"Windows of {feature} at {listed([window.when for window in windows])}."
    )

    def plot(figure: Figure) -> None:
        panels = figure.subplots(2, 2).ravel()
        for axes, window in zip(panels, windows[:3], strict=False):
            ahead = np.arange(1, len(window.future) + 1)
            axes.plot(
                np.arange(1 - len(window.past), 1), window.past, color=FAINT, linewidth=1.2, label="known"
            )
            axes.plot(ahead, window.future, "--", color=ORANGE, linewidth=1.6, label="came")
            axes.plot(ahead, window.forecast, color=BLUE, label="forecast")
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_title(window.when, fontsize=14)
            axes.locator_params(nbins=4)
        for axes in panels[len(windows[:3]) : 3]:
            axes.set_visible(False)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, ncols=3, loc="outside upper center", columnspacing=1.0)
        if len(skill):
            panels[3].plot(np.arange(1, len(skill) + 1), skill, color=BLUE, marker="o", markersize=3)
            panels[3].axhline(0, color=INK, linewidth=1)
        panels[3].set_title("skill by horizon", fontsize=14)
        panels[3].locator_params(nbins=4)
        figure.supxlabel("bars ahead of the newest known one", fontsize=16)
        figure.supylabel(f"{feature}{', ' + unit if unit else ''}", fontsize=16)

    rows = tuple((str(k + 1), signed(value, 4)) for k, value in enumerate(skill))
    table = DataTable(heads=("Bars ahead", "Skill"), rows=rows)
    return draw("forecast", title, message, plot, table=table, height=440)


def _cycle(values: Sequence[str]) -> list[str]:
    """Return the values often enough for any number of optimizers a run compares."""
    return list(values) * 8
