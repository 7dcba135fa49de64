"""Every chart of a report, from its tables; a table that does not apply leaves its charts out."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from halfstep.backtest.charts import account, chance, learning, policy, trades, walk_forward
from halfstep.backtest.charts.figure import Chart
from halfstep.backtest.content import Report
from halfstep.market.calendar import iso

WINDOWS = 3  # forecasts drawn


def all_charts(report: Report) -> dict[str, Chart]:
    """Return the charts by key, in the order of the page."""
    return {chart.key: chart for part in PARTS for chart in part(report)}


def growth_chart(reports: Sequence[tuple[str, Report]]) -> Chart:
    """Return the equity of several named reports in one picture."""
    curves = []
    for name, report in reports:
        curve, deposit = _frame(report, "equity"), report.row("deposit").value
        if curve is not None and deposit:
            percent = 100 * (_numbers(curve, "equity") / deposit - 1)
            curves.append((name, _numbers(curve, "time").astype(np.int64), percent))
    return account.growths(curves)


def _account(report: Report) -> Iterator[Chart]:
    curve = _frame(report, "equity")
    if curve is None:
        return
    time, equity = _numbers(curve, "time").astype(np.int64), _numbers(curve, "equity")
    deposit = report.row("deposit").value
    assert deposit is not None, "every test has a deposit"
    hold, band = None, None
    beside = _frame(report, "band")
    if beside is not None and beside.height == curve.height:
        hold = _numbers(beside, "buy_and_hold")
        if beside["random_low"].null_count() == 0:
            band = (_numbers(beside, "random_low"), _numbers(beside, "random_high"))
    yield account.equity(
        time, _numbers(curve, "balance"), equity, deposit=deposit, currency=report.currency, hold=hold, band=band
    )  # fmt: skip
    level = _numbers(curve, "margin_level")
    yield account.deposit_load(time, np.where(level > 0, 100 / np.where(level > 0, level, 1.0), 0.0))
    months = _frame(report, "monthly")
    if months is not None:
        names = [tuple(int(part) for part in str(name).split("-")[:2]) for name in months["month"]]
        growth = [None if share is None else 100 * share for share in months["percent"]]
        yield account.monthly([(year, month) for year, month in names], growth)
    parts = _frame(report, "quality")
    if parts is not None:
        overall = report.row("history_quality").value
        shares = 100 * _numbers(parts, "share")
        yield account.quality(shares, 100 * overall if overall is not None else float(shares.mean()))


def _months(report: Report) -> Iterator[Chart]:
    curve, months, deposit = (
        _frame(report, "equity"),
        _frame(report, "walk_forward"),
        report.row("deposit").value,
    )
    if curve is None or months is None or not deposit or not curve.height:
        return
    seeds = _frame(report, "seed_curves")
    paths = [] if seeds is None else seeds.partition_by("seed", maintain_order=True)
    yield walk_forward.walk_forward(
        [_path(path) for path in paths], _path(curve),
        [
            walk_forward.Month(
                name=record["month"], growth=100 * record["growth"],
                interval=None if record["low"] is None else (100 * record["low"], 100 * record["high"]),
            )
            for record in months.to_dicts()
        ],
        deposit=deposit, currency=report.currency,
    )  # fmt: skip


def _path(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return _numbers(frame, "time").astype(np.int64), _numbers(frame, "equity")


def _trades(report: Report) -> Iterator[Chart]:
    by_time = _frame(report, "by_time")
    if by_time is not None:
        groups = {by: by_time.filter(pl.col("by") == by).sort("group") for by in trades.GROUPS}
        for by, frame in groups.items():
            yield trades.entries(by, _numbers(frame, "entries").astype(np.int64))
        for by, frame in groups.items():
            yield trades.profit_and_loss(by, _numbers(frame, "profit"), _numbers(frame, "loss"), report.currency)  # fmt: skip
    positions = _frame(report, "positions")
    if positions is not None:
        net = _numbers(positions, "net")
        for kind in trades.EXCURSIONS:
            r = report.row(f"corr_profit_{kind}").value
            yield trades.excursion(kind, _numbers(positions, kind), net, r, report.currency)
        yield trades.holding(_numbers(positions, "held_seconds"), net, report.currency)


def _policy(report: Report) -> Iterator[Chart]:
    asked = _frame(report, "actions")
    if asked is not None:
        yield policy.actions(tuple(_histograms(asked)))
    outcomes = _frame(report, "outcomes")
    if outcomes is not None:
        counted = outcomes.filter(pl.col("kind") == "outcome")
        yield policy.outcomes(list(zip(counted["name"], counted["count"], strict=True)))
    costs = _frame(report, "costs")
    if costs is not None:
        yield policy.costs(
            list(zip(costs["part"], costs["money"].fill_null(0.0), strict=True)), report.currency
        )


def _histograms(frame: pl.DataFrame) -> Iterator[policy.Histogram]:
    for name in frame["element"].unique(maintain_order=True):
        kinds = {
            kind: frame.filter((pl.col("element") == name) & (pl.col("kind") == kind)).sort("low")
            for kind in ("raw", "executed")
        }
        raw = kinds["raw"]
        yield policy.Histogram(
            name=name,
            edges=np.append(_numbers(raw, "low"), raw["high"][-1]),
            asked=raw["count"].to_numpy(),
            executed=kinds["executed"]["count"].to_numpy(),
        )


def _chance(report: Report) -> Iterator[Chart]:
    seeds = _frame(report, "seeds")
    if seeds is not None:
        row = report.row("seeds_net")
        names = [str(seed) for seed in seeds["seed"]]
        steps = _frame(report, "profile")
        profile = (
            None
            if steps is None
            else chance.Profile(**{name: _numbers(steps, name) for name in ("net", "share", "low", "high")})
        )
        yield chance.seeds(
            names, _numbers(seeds, "net"), row.value or 0.0, row.interval, report.currency, profile
        )
    runs = _frame(report, "random")
    if runs is not None:
        net, p = report.row("net_profit").value, report.row("random_p").value
        yield chance.random(_numbers(runs, "net"), net or 0.0, p, report.currency)
    logits = _frame(report, "pbo")
    if logits is not None:
        yield chance.pbo(_numbers(logits, "logit"), report.row("pbo").value)


def _learning(report: Report) -> Iterator[Chart]:
    losses = _frame(report, "loss")
    if losses is not None:
        yield learning.loss([_loss_curves(losses, name) for name in losses["optimizer"].unique(maintain_order=True)])  # fmt: skip
    optimizers = _frame(report, "optimizers")
    if optimizers is not None:
        names = optimizers["optimizer"].to_list()
        predicted, measured = (optimizers[column].to_list() for column in ("predicted_bytes", "state_bytes"))
        yield learning.memory(names, predicted, measured)
        quartiles = list(zip(optimizers["step_low_ms"], optimizers["step_high_ms"], strict=True))
        yield learning.step_time(
            names,
            optimizers["step_ms"].to_list(),
            [None if None in pair else (float(pair[0]), float(pair[1])) for pair in quartiles],
        )
    windows, horizons = _frame(report, "forecast_windows"), _frame(report, "forecast_horizons")
    if windows is not None and horizons is not None:
        yield _forecast(windows, horizons)


def _loss_curves(losses: pl.DataFrame, name: str) -> learning.LossCurves:
    """Return one optimizer's losses, cut to the shortest of its seeds."""
    seeds = [seed.sort("epoch") for seed in losses.filter(pl.col("optimizer") == name).partition_by("seed")]
    length = min(seed.height for seed in seeds)
    return learning.LossCurves(
        name=name,
        train=np.stack([_numbers(seed, "train")[:length] for seed in seeds]),
        validation=np.stack([_numbers(seed, "validation")[:length] for seed in seeds]),
        chosen=tuple(int(epoch) for seed in seeds for epoch in seed.filter(pl.col("is_chosen"))["epoch"]),
    )


def _forecast(windows: pl.DataFrame, horizons: pl.DataFrame) -> Chart:
    drawn = []
    for window in windows.partition_by("window", maintain_order=True)[:WINDOWS]:
        ahead = window.filter(pl.col("step") > 0)
        drawn.append(
            learning.Window(
                when=iso(int(window["time"][0])),
                past=tuple(window.filter(pl.col("step") <= 0)["known"].drop_nulls()),
                forecast=tuple(ahead["forecast"].drop_nulls()),
                future=tuple(ahead["truth"].drop_nulls()),
            )
        )
    mean = horizons.group_by("horizon").agg(pl.col("skill").mean()).sort("horizon")
    feature = windows["feature"][0] if windows.height else ""
    return learning.forecast(feature, drawn, _numbers(mean.drop_nulls(), "skill"))


PARTS: tuple[Callable[[Report], Iterator[Chart]], ...] = (
    _months,
    _account,
    _trades,
    _policy,
    _chance,
    _learning,
)


def _frame(report: Report, key: str) -> pl.DataFrame | None:
    table = report.table(key)
    return None if table is None else table.frame


def _numbers(frame: pl.DataFrame, column: str) -> np.ndarray:
    """Return a column as float64; what is not defined becomes 0, which no picture shows as more than nothing."""
    return frame[column].cast(pl.Float64).fill_null(0.0).to_numpy()
