"""A report of made-up numbers in which everything appears: for tests of the page, the charts and the twins."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from halfstep.backtest import content
from halfstep.backtest.content import Banner, Report
from halfstep.backtest.figures import Row, TableKind, Unit, table, text_of

DEPOSIT = 10_000.0
FIRST = 1_512_086_400  # 2017-12-01


def made_up_report(
    *, bars: int = 500, positions: int = 130, seeds: int = 5, seed: int = 0, years: int = 1
) -> Report:
    """Return a report; with 0 positions, or 1, or 1 seed, what then is not defined is None or absent."""
    rng = np.random.default_rng(seed)
    net = rng.normal(1.0, 20.0, positions)
    frames = dict(_frames(rng, bars, net, seeds, years))
    total = float(net.sum())
    return Report(
        title="EURUSD H1: test 2017-12-01 to 2018-01-01", verdict="Cannot be told from random trading (p = 0.412).",
        currency="USD", representative="adam_mini, seed 3, the seed in the middle by net profit",
        banners=(Banner("few", f"{positions} positions: too few to judge a policy by."),) if positions < 100 else (),
        settings=(
            row("expert", None, "text", text="adam_mini, seed 3"), row("symbol", None, "text", text="EURUSD"),
            row("inputs", None, "text", text="research: rounds 2, passes 64; " * 12), row("deposit", DEPOSIT, "money"),
            row("source", None, "text", text="EURUSD_H1.csv, sha256 " + "0123456789abcdef" * 4),
        ),
        summary=(
            row("summary_net", total, "money", interval=(total - 300, total + 300)), row("random_p", 0.412, "ratio"),
            row("risk_free", 34.0, "money"), row("seeds_net", 12.0, "money", interval=(-80.0, 95.0) if seeds > 1 else None),
        ),
        tester=(
            row("history_quality", 0.9941, "share"), row("net_profit", total, "money"),
            row("profit_factor", None if not positions else 1.12, "ratio"),
            row("equity_dd_maximal", 829.54, "money", text="829.54 (19.27%)"),
            row("sharpe_ratio", None, "ratio", note="fewer than 2 values"), row("total_trades", float(positions), "count"),
            row("corr_profit_mfe", 0.7 if positions > 2 else None, "ratio"), row("corr_profit_mae", 0.6 if positions > 2 else None, "ratio"),
            row("holding_mean", 18_000.0 if positions else None, "seconds"),
        ),
        ours=(row("exposure", 0.41, "share"), row("growth_annual", None, "share", note="less than a quarter of a year")),
        uncertainty=(row("deflated_sharpe", 0.31, "ratio"), row("pbo", 0.45, "ratio")),
        remarks=(("optimizers", "adam_mini - adamw: +0.00020 (95 % -0.00219 … +0.00259), 5 seeds; within ±1 % (±0.00400): shown, p = 0.0058."),),
        assumptions=("A decision at the close of a bar is executed at the open of the next one.", "Commission < 5 USD & no swap."),
        limits=("One month says little about the next.",), versions=(("halfstep", "0.1"), ("numpy", "2.0"), ("system", "Linux-6.1.0-with-a-name-longer-than-a-phone-is-wide-x86_64-with-glibc2.36"), ("command", "halfstep run")),
        tables=tuple(table(kind, frames[kind.key]) for kind in content.TABLES if kind.key in frames),
    )  # fmt: skip


def row(
    key: str, value: float | None, unit: Unit, *, text: str = "", note: str = "", interval: tuple[float, float] | None = None
) -> Row:  # fmt: skip
    return Row(
        key=key, label=key.replace("_", " ").capitalize(), value=value, text=text or text_of(value, unit), unit=unit,
        definition=f"how {key} is computed", note=note, interval=interval,
    )  # fmt: skip


def without(report: Report, *keys: str) -> Report:
    """Return the report without some tables."""
    return replace(report, tables=tuple(each for each in report.tables if each.kind.key not in keys))


def _frames(
    rng: np.random.Generator, bars: int, net: np.ndarray, seeds: int, years: int
) -> Iterator[tuple[str, pl.DataFrame]]:
    count = len(net)
    time = FIRST + 3600 * np.arange(bars)
    equity = DEPOSIT + np.cumsum(rng.normal(0, 8, bars))
    opened = FIRST + 3600 * np.sort(rng.integers(0, max(1, bars - 10), count))
    held = 3600 * rng.integers(1, 40, count)
    level = np.where(rng.random(bars) < 0.4, rng.uniform(5, 60, bars), np.nan)
    records = {
        "equity": {
            "time": time, "balance": equity.round(-1), "equity": equity, "equity_worst": equity - 3, "margin_level": level, "lots": rng.integers(-2, 3, bars) / 10,
        },
        "band": {"time": time, "buy_and_hold": DEPOSIT + np.cumsum(rng.normal(0, 4, bars)), "random_low": DEPOSIT - 9 * np.sqrt(np.arange(bars)), "random_high": DEPOSIT + 9 * np.sqrt(np.arange(bars))},
        "positions": {
            "number": np.arange(1, count + 1), "side": ["long" if n % 2 else "short" for n in range(count)], "open_time": opened,
            "close_time": opened + held, "lots": np.full(count, 0.1), "open_price": 1.18 + rng.normal(0, 0.01, count),
            "close_price": 1.18 + rng.normal(0, 0.01, count), "sl": np.full(count, 1.17), "tp": np.full(count, np.nan),
            "reason": ["sl"] * count, "commission": np.full(count, 0.7), "swap": np.full(count, -0.1), "profit": net + 0.8,
            "net": net, "mfe": np.abs(net) + 3, "mae": -np.abs(net) - 5, "held_seconds": held.astype(float), "ambiguous": [False] * count,
        },
        "random": {"net": rng.normal(0, 100, 400), "trades": np.full(400, count)},
        "seeds": {
            "seed": np.arange(1, seeds + 1), "net": rng.normal(0, 100, seeds), "percent": rng.normal(0, 0.01, seeds), "log_growth": rng.normal(0, 0.01, seeds),
            "drawdown": rng.uniform(50, 300, seeds), "trades": np.full(seeds, count), "won": np.full(seeds, 0.5), "profit_factor": np.full(seeds, 1.1),
        },
        "profile": {"net": np.linspace(-90, 120, seeds), "share": np.linspace(1, 1 / seeds, seeds), "low": np.linspace(0.6, 0.02, seeds), "high": np.linspace(1, 0.5, seeds)},
        "pbo": {"logit": rng.normal(0, 1, 70)},
        "quality": {"part": np.arange(199), "share": np.where(rng.random(199) > 0.97, 0.9, 1.0)},
        "costs": {"part": ["mid price", "spread", "slippage", "commission", "swap", "net"], "money": [120.0, -60.0, 0.0, -20.5, -3.25, 36.25] if count else [0.0] * 6},
        "outcomes": {"name": ["FILLED", "HELD", "BELOW_MIN_LOT", "CLAMPED"], "kind": ["outcome", "outcome", "outcome", "flag"], "count": [count, bars - count, 0, 3], "share": [count / bars, 1 - count / bars, 0.0, 3 / bars]},
        "monthly": {
            "month": [f"{2017 + k // 12}-{k % 12 + 1:02d}" for k in range(12 * years)], "net": rng.normal(0, 90, 12 * years), "percent": rng.normal(0, 0.02, 12 * years),
            "trades": np.full(12 * years, 9), "won": np.full(12 * years, 0.5), "drawdown": np.full(12 * years, 120.0),
        },
        "walk_forward": _walk(rng, time),
        "baselines": {
            "name": ["policy", "flat", "random", "always long", "always short", "buy and hold"], "net": [float(net.sum()), 0.0, 4.0, -310.2, 215.9, 31.2], "percent": [0.01, 0.0, 0.0004, -0.031, 0.0216, 0.0031],
            "drawdown": [829.54, 0.0, None, 512.0, 300.0, 101.0], "profit_factor": [1.1, None, None, 0.8, 1.2, None], "trades": [float(count), 0.0, float(count), 77.0, 80.0, 1.0], "note": ["", "", "1 000 runs, a coin for the side", "0.10 lots, the median of our openings", "", "price 1.19 to 1.20"],
        },
        "sides": {
            "side": ["long", "short", "both"], "trades": [count // 2, count - count // 2, count], "won": [0.5, None, 0.5], "net": [10.0, -4.0, 6.0], "profit_factor": [1.1, 0.9, 1.0], "mean_net": [0.2, -0.1, 0.1],
            "holding": [7200.0, 9000.0, 8000.0], **{name: [1, 2, 3] for name in ("action", "sl", "tp", "stop_out", "end")},
        },
        "optimizers": _optimizers(rng),
        "loss": {
            "optimizer": [name for name in OPTIMIZERS for _ in range(seeds * 5)], "seed": [s for _ in OPTIMIZERS for s in range(seeds) for _ in range(5)],
            "epoch": [e for _ in OPTIMIZERS for _ in range(seeds) for e in range(1, 6)], "train": rng.uniform(0.5, 0.9, 15 * seeds), "validation": rng.uniform(0.6, 1.0, 15 * seeds),
            "is_chosen": [e == 4 for _ in OPTIMIZERS for _ in range(seeds) for e in range(1, 6)],
        },
    }  # fmt: skip
    for key, record in records.items():
        yield key, pl.DataFrame(record)
    yield "by_time", pl.DataFrame([
        {"by": by, "group": group, "entries": int(rng.integers(0, 9)) if count else 0, "profit": float(rng.uniform(0, 90)) if count else 0.0, "loss": -float(rng.uniform(0, 90)) if count else 0.0}
        for by, groups in (("hour", 24), ("weekday", 7), ("month", 12)) for group in range(groups)
    ])  # fmt: skip
    yield "actions", pl.DataFrame([
        {"element": element, "kind": kind, "low": k / 10, "high": (k + 1) / 10, "count": bars // 10}
        for element in content.ELEMENTS for kind in ("raw", "executed") for k in range(10)
    ])  # fmt: skip
    yield "forecast_windows", pl.DataFrame([
        {
            "window": w, "time": FIRST + 9 * 3600 * (w + 1), "feature": "atr", "step": step, "known": float(rng.normal()) if step <= 0 else None,
            "truth": float(rng.normal()) if step > 0 else None, "forecast": float(rng.normal()) if step > 0 else None,
        }
        for w in range(3) for step in range(-119, 25)
    ], infer_schema_length=None)  # fmt: skip
    yield "forecast_horizons", pl.DataFrame([
        {"feature": feature, "horizon": h, "mse": 1.0 + h / 100, "naive_mse": 1.2, "skill": 0.4 / h - 0.02, "low": 0.1, "high": 0.4}
        for feature in ("atr", "body") for h in range(1, 25)
    ])  # fmt: skip
    yield "forecast", pl.DataFrame([
        {"feature": feature, "mse": 11.1, "last_value": 21.9, "window_mean": 11.5, "same_hour": 21.6, "skill": skill, "low": skill - 0.05, "high": skill + 0.05, "signs": 0.52, "signs_low": 0.4, "signs_high": 0.64, "origins": 60}
        for feature, skill in (("relative_volume", 0.43), ("body", -0.01))
    ])  # fmt: skip


def _walk(rng: np.random.Generator, time: np.ndarray) -> dict[str, object]:
    """Return a line for each month of the bars."""
    months = np.unique(time.astype("datetime64[s]").astype("datetime64[M]")).astype(str)
    growth = rng.normal(0, 0.02, len(months))
    return {
        "month": months, "growth": growth, "low": growth - 0.01, "high": growth + 0.01, "worst": growth - 0.02, "best": growth + 0.02,
        "log_growth": np.log1p(growth), "trades": np.full(len(months), 9.0), "stopped": np.zeros(len(months), np.int64),
        "drawdown": np.full(len(months), 120.0), "price_change": rng.normal(0, 0.02, len(months)),
    }  # fmt: skip


OPTIMIZERS = ("sgd", "adamw", "adam_mini")


def _optimizers(rng: np.random.Generator) -> dict[str, list[object]]:
    """Return a column for each of the table's, words in those of words."""
    record: dict[str, list[object]] = {}
    kind: TableKind = content.OPTIMIZERS
    for column in kind.columns:
        if column.unit == "text":
            record[column.name] = [
                f"{name} - adamw: {'no verdict, too few seeds' if 'verdict' in column.name else 'measured'}"
                for name in OPTIMIZERS
            ]
        elif column.unit in ("count", "bytes"):
            record[column.name] = [550_000, 1_100_000, 561_000]
        else:
            record[column.name] = [None, *(float(value) for value in rng.uniform(0.3, 1.5, 2))]
    record["optimizer"] = list(OPTIMIZERS)
    return record
