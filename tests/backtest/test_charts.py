"""Charts: what they say in numbers, what they keep of a curve, and the element they are in the page."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.backtest.charts import account, chance, learning, policy, trades
from halfstep.backtest.charts.all import all_charts
from halfstep.backtest.charts.figure import POINTS, TABLE_ROWS, Chart, sample, thin
from halfstep.backtest.content import Report

HOUR = 3600
START = 1_512_086_400  # Friday 2017-12-01


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


@given(st.integers(0, 30_000), st.integers(0, 2**32 - 1))
def test_thinning_keeps_the_shape(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_cauchy(count)
    kept = thin(values)
    assert len(kept) <= POINTS
    assert (np.diff(kept) > 0).all()
    if count:
        assert kept[0] == 0
        assert kept[-1] == count - 1
        assert values[kept].max() == values.max()
        assert values[kept].min() == values.min()


def test_thinning_loses_no_single_spike() -> None:
    for place in (0, 1, 777, 54_321, 99_999):
        values = np.zeros(100_000)
        values[place] = -1.0
        assert place in thin(values)


def test_samples_have_both_ends() -> None:
    assert sample(0).tolist() == []
    assert sample(1).tolist() == [0]
    picked = sample(1000)
    assert (picked[0], picked[-1], len(picked)) == (0, 999, TABLE_ROWS)


def test_equity_says_where_it_fell_by_hand() -> None:
    time = START + HOUR * np.arange(72)
    equity = np.full(72, 10_000.0)
    equity[10:30] = 10_500.0  # the peak, on 1 December
    equity[30:] = 9_450.0  # 10 % below it, on 2 December
    chart = account.equity(time, equity, equity, deposit=10_000.0, currency="USD")
    assert plain(chart.message) == (
        "Equity goes from 10 000.00 to 9 450.00 USD between 1 Dec 2017 and 3 Dec 2017, lowest 9 450.00, highest "
        "10 500.00; the deepest fall is 10.00% of the peak, from 2 Dec 2017 to 2 Dec 2017."
    ).replace("from 2 Dec 2017 to 2 Dec 2017", "on 2 Dec 2017")
    assert chart.table.rows[-1] == ("2017-12-03 23:00", "9\u00a0450.00", "9\u00a0450.00", "10.00")


def test_a_loss_from_the_first_bar_falls_from_the_deposit() -> None:
    equity = np.array([9_900.0, 9_800.0])
    chart = account.equity(START + HOUR * np.arange(2), equity, equity, deposit=10_000.0, currency="USD")
    assert "the deepest fall is 2.00% of the peak" in chart.message


def test_a_rise_has_no_fall() -> None:
    equity = np.array([10_000.0, 10_100.0])
    chart = account.equity(START + HOUR * np.arange(2), equity, equity, deposit=10_000.0, currency="USD")
    assert chart.message.endswith("it never falls below an earlier peak.")


def test_messages_by_hand() -> None:
    hours = np.zeros(24, dtype=np.int64)
    hours[[9, 14]] = 7, 5
    assert trades.entries("hour", hours).message == (
        "12 positions were opened; most, 7, between 9:00 and 10:00; 22 of 24 hours saw none."
    )
    profit, loss = np.zeros(7), np.zeros(7)
    profit[1], loss[1], loss[4] = 30.0, -10.0, -5.0
    assert trades.profit_and_loss("weekday", profit, loss, "USD").message == (
        "Best on Tue with 20.00 USD net, worst on Fri with -5.00 USD."
    )
    assert policy.outcomes((("FILLED", 1), ("HELD", 3), ("NO_MARGIN", 0))).message == (
        "Of 4 decisions: 75.0% held and 25.0% filled."
    )
    assert policy.costs((("mid price", 10.0), ("spread", -1.0), ("net", 9.0)), "USD").message == (
        "Mid price 10.00, spread -1.00 and net 9.00 USD."
    )
    nets = np.array([-10.0, 20.0, 30.0])
    assert chance.seeds(("1", "2", "3"), nets, 20.0, (-1.0, 25.0), "USD").message == (
        "3 seeds: interquartile mean 20.00 USD (95% interval -1.00 to 25.00), worst -10.00, best 30.00; 2 of 3 earned money."
    )
    assert chance.random(np.arange(101.0), 100.0, 0.02, "USD").message == (
        "101 random runs earn between 5.00 and 95.00 USD in nine of ten cases, 50.00 in the middle; ours 100.00, p = 0.020."
    )
    assert account.monthly([(2017, 11), (2017, 12)], [1.25, -0.5]).message.replace("\u00a0", " ") == (
        "1 of 2 months with a gain; best Nov 2017 with +1.25%, worst Dec 2017 with -0.50%."
    )
    assert plain(learning.memory(("adamw", "adam_mini"), (800, 400), (800, 404)).message) == (
        "Measured after the first step: adamw 800 bytes and adam_mini 404 bytes (50.5% of adamw)."
    )


def test_a_constant_action_is_named() -> None:
    edges = np.linspace(0, 1, 11)
    still = policy.Histogram(
        name="Buy lots", edges=edges, asked=np.array([100] + [0] * 9), executed=np.array([100] + [0] * 9)
    )
    moving = policy.Histogram(name="Buy stop", edges=edges, asked=np.full(10, 10), executed=np.full(10, 10))
    message = policy.actions((still, moving)).message
    assert message == "100 decisions. One bin holds more than 99% of them in: buy lots."


@pytest.fixture(scope="module")
def charts(report: Report) -> dict[str, Chart]:
    return all_charts(report)


def test_every_chart_of_a_whole_report(charts: dict[str, Chart]) -> None:
    assert list(charts) == [
        "walk_forward", "equity", "deposit_load", "monthly", "quality", "entries_hour", "entries_weekday", "entries_month", "pl_hour",
        "pl_weekday", "pl_month", "mfe", "mae", "holding", "actions", "outcomes", "costs", "seeds", "random", "pbo",
        "loss", "memory", "step_time", "forecast",
    ]  # fmt: skip
    assert all(chart.svg and chart.table.rows for chart in charts.values())


def test_an_element_is_named_scales_and_asks_for_nothing(charts: dict[str, Chart]) -> None:
    for key, chart in charts.items():
        root = ElementTree.fromstring(chart.svg)
        assert root.tag == "svg"
        assert root.get("role") == "img"
        assert re.fullmatch(r"0 0 480 \d+(\.\d+)?", root.get("viewBox", "")), key
        assert root.get("width") is None
        assert root.get("height") is None
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(set(ids)) == len(ids)
        assert all(name.startswith(f"{key}-") for name in ids if name)
        named = root.get("aria-labelledby", "").split()
        assert [root.findtext("title"), root.findtext("desc")] == [chart.title, chart.message]
        assert set(named) <= set(ids)
        assert re.search(r"\d", chart.message)
        for target in re.findall(r'(?:url\(|href=")([^)"]*)', chart.svg):
            assert target[0] == "#"
            assert target[1:] in ids
        assert "http" not in chart.svg
        assert re.search(r"#[0-9a-f]{6}", chart.svg.replace("#" + key, "")) is None, (
            "a colour that no theme changes"
        )


def test_a_long_curve_stays_small() -> None:
    rng = np.random.default_rng(0)
    bars = 60_000
    equity = 10_000 + np.cumsum(rng.normal(0, 5, bars))
    chart = account.equity(START + HOUR * np.arange(bars), equity, equity, deposit=10_000.0, currency="USD")
    assert len(chart.svg) < 200_000
    assert len(chart.table.rows) == TABLE_ROWS
    assert plain(chart.table.note) == f"{TABLE_ROWS} of 60 000 points; all are in tables/equity.parquet."
