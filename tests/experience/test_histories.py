"""Deal histories are read by position, only filled deals count, and the traps of their exports are named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from halfstep.errors import CellError, FormatError, MissingInputError, TimeError
from halfstep.experience.histories import History, read_history
from halfstep.market.calendar import ServerZone

MT4 = "Time;Type;Volume;Symbol;Price;S/L;T/P;Time;Price;Commission;Swap;Profit;Comment"
MT5 = "Time;Type;Volume;Symbol;Price;Volume;Time;Price;Commission;Swap;Profit"
STATEMENT = "Ticket;Open Time;Type;Size;Item;Price;S / L;T / P;Close Time;Price;Commission;Taxes;Swap;Profit;"


def read(tmp_path: Path, *lines: str, encoding: str = "utf-8-sig") -> History:
    path = tmp_path / "history.csv"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return read_history(path)


@pytest.mark.pitfall("D17")
def test_signal_history_counts(shared_data: Callable[[str], Path]) -> None:
    history = read_history(shared_data("USDJPY_signal_history_mt4_2019-12_2023-02.csv.gz"))
    assert sum(history.counts.values()) == 5336
    assert history.counts == {
        "buy": 976, "sell": 827, "cancelled": 3523, "pending": 0, "open": 0, "balance": 10, "footer": 0,
    }  # fmt: skip
    assert len(history.deals) == 1803
    assert history.deals["open_clock"].is_sorted()


@pytest.mark.pitfall("D18")
def test_signal_profit_is_net(shared_data: Callable[[str], Path]) -> None:
    deals = read_history(shared_data("USDJPY_signal_history_mt4_2019-12_2023-02.csv.gz")).deals
    assert deals["profit"].sum() == pytest.approx(11_841.24)
    assert deals["net"].sum() == pytest.approx(11_841.24 - 3_120.67) == pytest.approx(8_720.57)
    stops = deals.filter(deals["comment"] == "[sl]")
    assert (len(stops), (stops["profit"] > 0).sum()) == (1409, 482)  # stops that were trailed into profit


@pytest.mark.pitfall("D17", "D18")
def test_every_kind_of_row_by_hand(tmp_path: Path) -> None:
    history = read(
        tmp_path,
        MT4,
        "2023.02.10 11:00:04;Sell Stop;0.26;USDJPY;129.806;130.136;96.574;2023.02.10 20:59:03;131.552;;;;cancelled",
        "2023.02.10 11:00:02;Buy Limit;0.26;USDJPY;129.806;;;;;;;;",
        "2023.02.10 10:00:35;Sell;1 000.34;USDJPY;4 566.52;130.615;;2023.02.10 10:38:12;130\u00a0626.5;-2.38;;-99.69;[sl]",
        "2023.02.10 10:00:30;buy;0.34;usdjpy.;130.243;;156.5;2023.02.10 10:38:12;130.626;-2,38;-0.02;1 234.56;[tp]",
        "2023.02.10 10:00:20;Buy;0.34;USDJPY;130.243;;;;;;;;",
        "2023.02.09 10:00:00;Balance;;;;;;;;;;-293.00;",
        ";;;;;;;;;-2.40;-0.02;1 134.87;",
    )
    assert history.counts == {
        "buy": 1, "sell": 1, "cancelled": 1, "pending": 1, "open": 1, "balance": 1, "footer": 1,
    }  # fmt: skip
    buy, sell = history.deals.to_dicts()
    assert (buy["side"], buy["symbol"], buy["tp"], buy["sl"], buy["line"]) == (1, "usdjpy.", 156.5, 0.0, 5)
    assert (buy["commission"], buy["profit"]) == (-2.38, 1234.56)
    assert buy["net"] == pytest.approx(1234.56 - 2.38 - 0.02)
    assert (sell["side"], sell["open_volume"], sell["open_price"], sell["close_price"]) == (
        -1, 1000.34, 4566.52, 130_626.5,
    )  # fmt: skip
    assert sell["net"] == pytest.approx(-99.69 - 2.38)
    opened, closed = history.utc(ServerZone("server-eu"))
    assert closed[1] - opened[1] == 37 * 60 + 37
    assert opened[0] == 1_676_023_230 - 2 * 3600 + 0  # 10:00:30 on a clock two hours ahead of UTC


@pytest.mark.pitfall("D17")
def test_mt5_history_has_two_volumes(tmp_path: Path) -> None:
    history = read(
        tmp_path, MT5,
        "2026.08.28 23:50:00;Sell;0.03;XAUUSD;4459.3;0.01;2026.08.28 23:51:00;4458.08;-0.07;;1.22",
        "2026.08.03 06:16:02;Balance;;;;;;;;;-96.56",
    )  # fmt: skip
    assert history.format == "mql5-signal-mt5"
    (deal,) = history.deals.to_dicts()
    assert (deal["open_volume"], deal["close_volume"]) == (0.03, 0.01)
    assert (deal["open_price"], deal["close_price"], deal["net"]) == (4459.3, 4458.08, pytest.approx(1.15))


@pytest.mark.pitfall("D17")
def test_statement_with_decimal_commas(tmp_path: Path) -> None:
    history = read(
        tmp_path, STATEMENT,
        "121408155;26.09.2022 3:15;buy;0.33;usdjpy;143.634;143.907;173.602;26.09.2022 8:46;143.907;-2,31;0,10;0,20;62,60;",
        "121408156;26.09.2022 3:15;sell;0,33;usdjpy;143.634;0;0;27.09.2022 8:46;143.907;-2,31;0,00;0,00;-1 062,60;",
        "Closed P/L:;1,00",
    )  # fmt: skip
    assert history.format == "mt4-statement"
    assert history.counts["footer"] == 1
    first, second = sorted(history.deals.to_dicts(), key=lambda deal: deal["line"])
    assert (first["commission"], first["taxes"], first["swap"], first["profit"]) == (-2.31, 0.1, 0.2, 62.6)
    assert first["net"] == pytest.approx(60.59)
    assert (second["side"], second["open_volume"], second["profit"]) == (-1, 0.33, -1062.6)


@pytest.mark.pitfall("D17")
@pytest.mark.parametrize(
    ("name", "format_name", "deals"),
    [
        ("mql5_signal_mt4_history.csv", "mql5-signal-mt4", 9),
        ("mql5_signal_mt4_history_thousands_space.csv", "mql5-signal-mt4", 3),
        ("mql5_signal_mt5_positions.csv", "mql5-signal-mt5", 3),
        ("mt4_statement_ru_excel.csv", "mt4-statement", 11),
    ],
)
def test_format_samples_read(
    shared_data: Callable[[str], Path], name: str, format_name: str, deals: int
) -> None:
    history = read_history(shared_data(f"formats/{name}"))
    assert (history.format, len(history.deals)) == (format_name, deals)
    if "thousands" in name:
        assert 4566.52 in history.deals["open_price"].to_list()
    if "statement" in name:
        assert history.deals["commission"].to_list()[0] == -2.31


GOOD = "2023.02.10 10:00:35;Sell;0.34;USDJPY;130.243;;;2023.02.10 10:38:12;130.626;-2.38;;-99.69;[sl]"


@pytest.mark.pitfall("D17")
@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        (("<!DOCTYPE html>", "<html>"), FormatError, "an HTML page.*this is the login page"),
        (("a;b;c;d;e", "1;2;3;4;5"), FormatError, "5 fields.*mql5.com signals"),
        ((MT4, GOOD.replace("130.243", "x")), CellError, "column 'open_price': 'x' is no positive number"),
        ((MT4, GOOD.replace("-99.69", "none")), CellError, "column 'profit': 'none' is no number"),
        ((MT4, GOOD.replace("10:38", "25:38")), TimeError, "column 'close_time'"),
        ((MT4, GOOD.replace("10:38", "09:38")), TimeError, "closes before it opens"),
        ((MT4, GOOD, GOOD + ";more"), CellError, "history.csv:3: a deal with 14 cells"),
        ((MT4, GOOD.replace("Sell", "Vente")), FormatError, "no row is a buy, a sell or a balance"),
        ((MT4,), FormatError, "Accepted are histories"),
    ],
    ids=["html", "fields", "price", "profit", "time", "order", "ragged", "words", "empty"],
)
def test_faulty_histories_are_named(
    tmp_path: Path, lines: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read(tmp_path, *lines)


def test_a_missing_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no deal history at .*gone\.csv"):
        read_history(tmp_path / "gone.csv")
