"""Rates into the account's currency: numbers, series, and bars of a connecting symbol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halfstep.broker import AccountRules, MarketTable, deals_frame, market_table, run_actions
from halfstep.broker._layout import MARGIN_RATE, PROFIT_RATE
from halfstep.broker.rates import conversion_rates
from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.resample import resample
from halfstep.market.timeframes import DAY, HOUR, Timeframe

from .scenarios import BACKENDS, EURGBP, EURUSD, RULES, TUESDAY, A, Z, bars_of, random_actions

TRADED = bars_of("0/150/-100/100;100/120/80/110", of=EURGBP, base=85_000)  # opens at 12:00, 13:00, 14:00


def closes(
    symbol: str, prices: list[float], *, first: int = TUESDAY - HOUR, timeframe: Timeframe = Timeframe.H1,
    times: list[int] | None = None, zone: str = "UTC",
) -> Bars:  # fmt: skip
    """Return bars of a connecting symbol with these closes, the first opening an hour before the traded ones."""
    close = np.array(prices)
    n = len(prices)
    return Bars(
        time=first + timeframe.seconds * np.arange(n) if times is None else np.array(times), open=close,
        high=close + 0.05, low=close - 0.05, close=close, volume=np.ones(n), spread=np.zeros(n, np.int32),
        symbol=symbol, timeframe=timeframe, digits=5, zone=ServerZone(zone),
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_profits_and_margin_at_the_last_close_known_at_the_open(backend: str) -> None:
    """GBPUSD closed at 1.30, 1.25, 1.20 by the opens of bars 0, 1, 2 (EURUSD 1.15, 1.10, 1.05); 1.90 comes too late.

    Bar 1: in at +10, close +100: 90 points * 0.10 GBP = 9.00 GBP * 1.25 = 11.25 USD; margin 100 EUR * 1.10 = 110.00.
    Bar 2: close +110: 10.00 GBP * 1.20 = 12.00 USD; margin 100 EUR * 1.05 = 105.00; worst at +80: 7.00 * 1.20.
    Out at the open of bar 2 instead: 9.00 GBP * 1.20 = 10.80 USD.
    """
    rates = {
        "profit_rate": closes("GBPUSD", [1.30, 1.25, 1.20, 1.90, 1.90]),
        "margin_rate": closes("EURUSD.m", [1.15, 1.10, 1.05, 1.90, 1.90]),
    }
    table = market_table(TRADED, EURGBP, RULES, **rates)
    held = run_actions(table, RULES, np.array([A, A]), 0, backend=backend)  # type: ignore[arg-type]
    np.testing.assert_allclose(held.equity, [10_011.25, 10_012.00], rtol=0, atol=1e-9)
    np.testing.assert_allclose(held.equity_worst, [9_986.25, 10_008.40], rtol=0, atol=1e-9)
    np.testing.assert_allclose(held.margin, [110.0, 105.0], rtol=0, atol=1e-9)
    closed = run_actions(table, RULES, np.array([A, Z]), 0, backend=backend)  # type: ignore[arg-type]
    np.testing.assert_allclose(closed.balance, [10_000.0, 10_010.80], rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pair_the_other_way_round_is_inverted(backend: str) -> None:
    """EURUSD for an account in GBP: 9.00 USD at GBPUSD 1.25 = 7.20 GBP; 100 EUR at EURGBP 0.88 = 88.00 GBP."""
    rules = replace(RULES, currency="GBP")
    bars = bars_of("0/150/-100/100")
    rates = {"profit_rate": closes("GBPUSD", [1.3, 1.25]), "margin_rate": closes("EURGBP", [0.9, 0.88])}
    run = run_actions(market_table(bars, EURUSD, rules, **rates), rules, np.array([A]), 0, backend=backend)  # type: ignore[arg-type]
    np.testing.assert_allclose(run.equity, [10_007.20], rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.margin, [88.0], rtol=0, atol=1e-9)


def test_a_number_stands_for_every_bar() -> None:
    table = market_table(TRADED, EURGBP, RULES, profit_rate=1.25, margin_rate=np.array([1.1, 1.2, 1.3]))
    assert table.values[:, PROFIT_RATE].tolist() == [1.25] * 3
    assert table.values[:, MARGIN_RATE].tolist() == [1.1, 1.2, 1.3]


def test_an_unfinished_bar_is_not_known() -> None:
    """A bar that closes a second after the open, or that is still open, does not count."""
    opens = TRADED.time[:1]
    for late, expected in ((0, 1.2), (1, 1.1)):
        rate = closes("GBPUSD", [1.1, 1.2], times=[int(opens[0]) - 2 * HOUR, int(opens[0]) - HOUR + late])
        found = conversion_rates(rate, TRADED, base="GBP", quote="USD")
        assert found[0] == expected
    days = closes("GBPUSD", [1.1, 1.2], first=TUESDAY - TUESDAY % DAY - DAY, timeframe=Timeframe.D1)
    assert conversion_rates(days, TRADED, base="GBP", quote="USD").tolist() == [1.1] * 3


def test_a_day_ends_at_midnight_where_the_clock_is_put_back() -> None:
    """Sunday 2023-10-29 has 25 hours in Athens: its close is known at Monday 00:00 there, 22:00 UTC, not at 21:00."""
    sunday = parse_date("2023-10-28") + 21 * HOUR
    rate = closes(
        "GBPUSD", [1.1, 1.2], times=[sunday - DAY, sunday], timeframe=Timeframe.D1, zone="server-eu"
    )
    bars = replace(TRADED, time=sunday + HOUR * np.array([23, 24, 25]))
    assert conversion_rates(rate, bars, base="GBP", quote="USD").tolist() == [1.1, 1.1, 1.2]


def test_rates_may_be_as_old_as_a_week() -> None:
    """Over weekends and holidays the last close stays; a file that has ended before the bars do is refused."""
    for days, is_known in ((7, True), (8, False)):
        rate = closes("GBPUSD", [1.2], first=int(TRADED.time[-1]) - days * DAY - 2 * HOUR)
        if is_known:
            assert conversion_rates(rate, TRADED, base="GBP", quote="USD").tolist() == [1.2] * 3
        else:
            with pytest.raises(
                CoverageError, match=r"bar 1, 2023-06-06 12:00 \(UTC\).* The bars cover 2023-05-29"
            ):
                conversion_rates(rate, TRADED, base="GBP", quote="USD")


def test_wrong_rates_are_named() -> None:
    late = closes("GBPUSD", [1.2, 1.2], first=TUESDAY)
    with pytest.raises(CoverageError, match="profit_rate: no close of GBPUSD is known at the open of bar 1"):
        market_table(TRADED, EURGBP, RULES, profit_rate=late, margin_rate=1.1)
    with pytest.raises(ConfigError, match="margin_rate: bars of USDJPY, must be of EURUSD or USDEUR"):
        market_table(TRADED, EURGBP, RULES, profit_rate=1.2, margin_rate=closes("USDJPY", [130.0] * 3))
    with pytest.raises(ConfigError, match=r"profit_rate: 0\.0, must be one finite rate above 0"):
        market_table(TRADED, EURGBP, RULES, profit_rate=0.0, margin_rate=1.1)
    with pytest.raises(ConfigError, match=r"profit_rate: shape \(2,\), must be .*, or one a bar, \(3,\)"):
        market_table(TRADED, EURGBP, RULES, profit_rate=np.ones(2), margin_rate=1.1)
    with pytest.raises(
        ConfigError, match=r"profit_rate \(GBPUSD\) and margin_rate \(EURUSD\): numbers, or bars"
    ):
        market_table(TRADED, EURGBP, RULES, profit_rate=1.2)
    with pytest.raises(
        ConfigError, match="profit_rate: W1 bars of GBPUSD, must be of D1 or a finer timeframe"
    ):
        market_table(
            TRADED,
            EURGBP,
            RULES,
            profit_rate=closes("GBPUSD", [1.2], timeframe=Timeframe.W1),
            margin_rate=1.1,
        )


def test_another_price_keeps_the_rates() -> None:
    table = market_table(TRADED, EURGBP, RULES, profit_rate=closes("GBPUSD", [1.3, 1.25, 1.2]), margin_rate=1.1,
                         atr_points=np.arange(3.0))  # fmt: skip
    dear = table.repriced(replace(RULES, cost_scale=2.0))
    assert (
        dear.values[:, 4].tolist() == [20.0] * 3
    )  # the spread, whose doubling the columns of the bid do not show
    others = [column for column in range(11) if column != 4]
    np.testing.assert_array_equal(dear.values[:, others], table.values[:, others])
    with pytest.raises(ConfigError, match="currency: CHF, must be USD as of the table"):
        table.repriced(replace(RULES, currency="CHF"))


@pytest.fixture(scope="module")
def real(shared_data: Callable[[str], Path]) -> tuple[Bars, Bars]:
    """Return the EURUSD and USDJPY hours from January to March 2022."""
    dollars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"), symbol="EURUSD")
    yen = read_bars(shared_data("USDJPY_H1_mt5_2012_2022-03.csv.gz"), symbol="USDJPY", zone="server-eu")
    return dollars.between("2022-01-03", "2022-03-04"), yen.between("2021-12-31", "2022-03-05")


YEN = AccountRules(
    currency="JPY",
    deposit=1_000_000.0,
    lot_cap=0.5,
    leverage=500.0,
    spread_floor_points=10,
    close_at_end=True,
)


def yen_table(bars: Bars, rate: Bars) -> MarketTable:
    return market_table(bars, EURUSD, YEN, profit_rate=rate, margin_rate=130.0)


def test_real_hours_in_another_currency(real: tuple[Bars, Bars]) -> None:
    """EURUSD in an account of JPY by real USDJPY hours: every deal's profit by a plain look-up, in all forms."""
    bars, rate = real
    table = yen_table(bars, rate)
    ended = dict(zip((rate.time + HOUR).tolist(), rate.close.tolist(), strict=True))
    expected = []
    for opens in bars.time.tolist():
        at = opens
        while at not in ended:
            at -= HOUR
        expected.append(ended[at])
    assert table.values[:, PROFIT_RATE].tolist() == expected
    actions = random_actions(len(bars) - 1, 5, 0.5)
    runs = [run_actions(table, YEN, actions, 0, backend=backend) for backend in BACKENDS]  # type: ignore[arg-type]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.equity, runs[0].equity)
        np.testing.assert_array_equal(run.margin, runs[0].margin)
        np.testing.assert_array_equal(run.log.records, runs[0].log.records)
    outs = [deal for deal in deals_frame(runs[0].log, table).iter_rows(named=True) if deal["entry"] == "out"]
    assert len(outs) > 100
    total = 0.0
    for deal in outs:
        profit = (
            deal["side"]
            * (deal["price"] - deal["entry_price"])
            * 100_000
            * deal["lots"]
            * expected[deal["bar"]]
        )
        assert deal["profit"] == pytest.approx(profit, rel=1e-6, abs=1e-3)
        total += profit
    assert runs[0].balance[-1] == pytest.approx(YEN.deposit + total, rel=1e-9)


def test_rates_come_from_the_past_alone(real: tuple[Bars, Bars]) -> None:
    """Other closes from any moment on change no rate of a bar that opened before it."""
    bars, rate = real
    before = yen_table(bars, rate).values
    for cut in (1, 2, 100, 517, len(bars) - 1):
        later = rate.time + HOUR > bars.time[cut]
        noise = replace(rate, **{name: np.where(later, 50.0, getattr(rate, name)) for name in ("open", "high", "low", "close")})  # fmt: skip
        after = yen_table(bars, noise).values
        np.testing.assert_array_equal(after[: cut + 1], before[: cut + 1])
        assert (after[cut + 1 :, PROFIT_RATE] == 50.0).any() or cut == len(bars) - 1


def test_days_of_real_hours_give_yesterdays_close(real: tuple[Bars, Bars]) -> None:
    bars, rate = real
    rates = conversion_rates(resample(rate, Timeframe.D1), bars, base="USD", quote="JPY")
    server = rate.server_time // DAY
    for t in range(0, len(bars), 97):
        today = bars.server_time[t] // DAY
        assert rates[t] == rate.close[np.flatnonzero(server < today)[-1]]


def test_presets_name_the_pairs_they_need() -> None:
    with pytest.raises(ConfigError, match=r"profit_rate \(JPYEUR\) and margin_rate \(USDEUR\)"):
        market_table(
            bars_of("0/1/0/0", of=instrument("USDJPY")), instrument("USDJPY"), AccountRules(currency="EUR")
        )
