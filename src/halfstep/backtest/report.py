"""One static HTML file that says what was tested, what came out, how sure that is, and what each optimizer cost.

No script and no request of any kind; charts are inline SVG. The same data give the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from halfstep import files
from halfstep.backtest import report_charts as charts
from halfstep.backtest.metrics import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerFigures:
    """One optimizer over all seeds.

    Attributes:
        name: of the optimizer.
        losses: validation loss per seed.
        loss_text: interquartile mean and 95 % interval.
        verdict: the paired sentence, or why there is none.
        state_bytes: measured, encoder and both policy networks.
        parameters: trained by it.
        step_ms: median time of an optimizer step, or None.
        nets: net profit on the test span per seed.
        net_text: interquartile mean and 95 % interval.
        skill: mean forecast skill on the validation span, over features and seeds.
        train_curves, validation_curves: loss by epoch, per seed.
    """

    name: str
    losses: tuple[float, ...]
    loss_text: str
    verdict: str
    state_bytes: int
    parameters: int
    step_ms: float | None
    nets: tuple[float, ...]
    net_text: str
    skill: float
    train_curves: tuple[tuple[float, ...], ...]
    validation_curves: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineLine:
    """One comparison run, as text."""

    name: str
    net: str
    drawdown: str
    deals: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Balance and equity after each bar of one run; times are server seconds."""

    time: tuple[int, ...]
    balance: tuple[float, ...]
    equity: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """One window of a feature's path with its forecast, in units of the feature."""

    feature: str
    past: tuple[float, ...]
    future: tuple[float, ...]
    forecast: tuple[float, ...]
    when: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """Everything the page shows."""

    title: str
    verdict: str
    banners: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    headline: str
    seed_table: tuple[tuple[str, str, str, str, str], ...]
    """Per seed of the headline: seed, net profit, drawdown, trades, profit factor."""
    representative: str
    """Which seed the curves belong to, in words."""
    rows: tuple[tuple[str, tuple[Row, ...]], ...]
    """The tester's rows: per optimizer, the headline first, its name with the seed and the rows in one order."""
    curve: Curve
    other_curves: tuple[tuple[float, ...], ...]
    baselines: tuple[BaselineLine, ...]
    random_nets: tuple[float, ...]
    net: float
    uncertainty: tuple[tuple[str, str], ...]
    optimizers: tuple[OptimizerFigures, ...]
    skill_table: tuple[tuple[str, str, str, str], ...]
    """Per feature: name, error of the encoder, of the best naive forecast, skill."""
    forecast: Forecast
    outcomes: tuple[tuple[str, int], ...]
    assumptions: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


def write_report(data: ReportData, path: Path) -> None:
    """Write the page atomically."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("halfstep.backtest"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("old.html.jinja").render(data=data, charts=charts.all_charts(data))
    files.write_text(path, page)
