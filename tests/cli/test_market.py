"""The market of a configuration: bars, finer bars inside them, and rates into the account's currency."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfstep.backtest.run import make_test_run
from halfstep.broker._layout import CLOSE, MARGIN_RATE, NIGHTS, OPEN, PROFIT_RATE, SPREAD
from halfstep.broker.engine import run_actions
from halfstep.cli.programs.market import load_market, market_facts
from halfstep.cli.programs.words import assumptions
from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.errors import ConfigError, PriceError
from halfstep.market.bars import PRICE_COLUMNS
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars


def test_finer_bars_reach_both_tables(shared_data: Callable[[str], Path]) -> None:
    hours = shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz")
    quarters = shared_data("EURUSD_M15_mt5_2022-01_2024-01.csv.gz")
    config = merged(
        Config(), {"data": {"bars": hours, "detail": quarters}, "broker": {"intrabar": "m1"}}, source="test"
    )
    market = load_market(config)
    for table in (market.table, market.test_table):
        assert table.detail is not None
        assert table.detail.missing == 0  # all 12,963 hours are made of their quarters


def test_finer_bars_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detail: .*M15.csv, but no bars\. Name both files\."):
        merged(Config(), {"data": {"detail": tmp_path / "M15.csv"}}, source="test")


def test_rates_reach_both_tables_and_the_words(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """EURUSD of early 2022 in an account of yen; there is no file of EURJPY, so that it is made of both."""
    euro = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"), symbol="EURUSD")
    euro = euro.between("2022-01-03", "2022-03-04")
    yen = shared_data("USDJPY_H1_mt5_2012_2022-03.csv.gz")
    write_bars(euro, tmp_path / "EURUSD_H1.parquet")
    close = euro.close * 115
    cross = replace(
        euro, symbol="EURJPY", digits=3, open=close, high=close, low=close, close=close, time=euro.time - 3600
    )
    write_bars(cross, tmp_path / "EURJPY_H1.parquet")
    spans = {"train": ("2022-02-09", "2022-02-16"), "validation": ("2022-02-16", "2022-02-22"),
             "test": ("2022-02-22", "2022-03-01")}  # fmt: skip
    data = {"bars": tmp_path / "EURUSD_H1.parquet", "zone": "server-eu", "profit_rate": yen,
            "margin_rate": tmp_path / "EURJPY_H1.parquet"}  # fmt: skip
    config = merged(
        Config(), {"data": data, "broker": {"currency": "JPY", "deposit": 1e6}, "split": spans}, source="test"
    )
    market = load_market(config)
    usd_yen = read_bars(yen, zone="server-eu")
    for table in (market.table, market.test_table):
        assert table.values[100, PROFIT_RATE] == usd_yen.close[usd_yen.close_time <= euro.time[100]][-1]
        assert table.values[100, MARGIN_RATE] == close[100]
    assert market_facts(market)["profit_rate"] == f"USDJPY H1 {usd_yen.hash}"
    run = run_actions(market.test_table, market.test_rules, np.zeros((1, 6)), 600)
    words = assumptions(
        config, market, make_test_run(run, np.zeros((1, 6)), market.test_table, market.test_rules)
    )
    assert any("of USDJPY (profits) and EURJPY (margin)" in line for line in words)


def scaled(folder: Path, symbol: str, *, price: float, digits: int) -> Path:
    """Write made-up bars about a price, in points of these digits, as an export of a symbol."""
    bars = random_bars(2_500, seed=1)
    factor = price / bars.close[0]
    columns = {name: np.round(getattr(bars, name) * factor, digits) for name in PRICE_COLUMNS}
    path = folder / f"{symbol}_H1.csv"
    write_bars(replace(bars, symbol=symbol, digits=digits, **columns), path)
    return path


def configured(bars: Path, **tables: dict[str, Any]) -> Config:
    return merged(Config(), {"data": {"bars": bars, "zone": "server-us"}, **tables}, source="test")


def test_a_symbol_without_a_preset_is_described(tmp_path: Path) -> None:
    """One lot of an index of 5 USD: two points of a tenth earn 1 USD, and a night costs what is stated."""
    bars = scaled(tmp_path, "US30", price=33_000.0, digits=1)
    with pytest.raises(ConfigError, match="'US30' has no preset"):
        load_market(configured(bars))
    stated = {"quote": "USD", "contract_size": 5.0, "level_scale_points": 3_000, "lot_min": 0.1, "lot_step": 0.1,
              "swap_long": -20.0, "swap_short": -10.0}  # fmt: skip
    config = configured(bars, instrument=stated, broker={"spread_floor_points": 30, "commission": 0.0})
    market = load_market(config)
    table = market.table
    assert (table.instrument.digits, table.instrument.lot_step) == (1, 0.1)
    assert table.values[:, SPREAD].min() == 30
    buy = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    run = run_actions(table, replace(market.test_rules, deposit=1e6), np.repeat(buy, 2, axis=0), 600)
    opened, closed = table.values[601, OPEN], table.values[602, CLOSE]
    night = table.values[602, NIGHTS] * -20.0
    assert run.balance[-1] - 1e6 == pytest.approx((closed - opened - table.values[601, SPREAD] + night) * 0.5)
    words = assumptions(
        config, market, make_test_run(run, np.repeat(buy, 2, axis=0), table, market.test_rules)
    )
    assert any(
        line.startswith("Stated for this run: quote USD, contract size 5, lot min 0.1") for line in words
    )


def test_another_broker_s_digits_and_costs(tmp_path: Path) -> None:
    bars = scaled(tmp_path, "XAUUSD", price=1_900.0, digits=3)
    with pytest.raises(PriceError, match=r"--instrument\.digits"):
        load_market(configured(bars))
    market = load_market(configured(bars, instrument={"digits": 3, "swap_long": -41.0}))
    assert market.table.bars.digits == 3
    assert market.instrument == replace(instrument("XAUUSD", digits=3), swap_long=-41.0)
    assert market.instrument.spread_floor_points == 250
