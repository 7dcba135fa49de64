"""Every way to write a time, and what is said of the others."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep import errors
from halfstep.market import _cells
from halfstep.market.read import read_bars


def table(tmp_path: Path, *times: str, name: str = "EURUSD_H1.csv", header: str = "time") -> Path:
    path = tmp_path / name
    rows = [f"{time};1.1;1.2;1.0;1.15" for time in times]
    path.write_bytes("\n".join([f"{header};open;high;low;close", *rows]).encode())
    return path


def first(path: Path, **options: object) -> str:
    bars = read_bars(path, **options)  # type: ignore[arg-type]
    return datetime.fromtimestamp(int(bars.time[0]), UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.pitfall("D10")
@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("2023.06.01 10:00", "2023.06.01 11:00", "2023-06-01 10:00:00"),
        ("2023.06.01 10:00:05", "2023.06.01 11:00:05", "2023-06-01 10:00:05"),
        ("2023-06-01T10:00:00.999", "2023-06-01T11:00:00.999", "2023-06-01 10:00:00"),
        ("2023/6/1 9:00", "2023/6/1 10:00", "2023-06-01 09:00:00"),
        ("20230601 100000", "20230601 110000", "2023-06-01 10:00:00"),
        ("01.07.2020 00:00", "01.07.2020 01:00", "2020-07-01 00:00:00"),
        ("01.07.2020 00:00:00.000 GMT+0200", "01.07.2020 01:00:00.000 GMT+0200", "2020-06-30 22:00:00"),
        ("13/07/2020 10:00", "13/07/2020 11:00", "2020-07-13 10:00:00"),
        ("07/13/2020 10:00", "07/13/2020 11:00", "2020-07-13 10:00:00"),
        ("7/13/2020 1:00:00 PM", "7/13/2020 2:00:00 PM", "2020-07-13 13:00:00"),
        ("7/13/2020 12:00 AM", "7/13/2020 1:00 AM", "2020-07-13 00:00:00"),
        ("2023-06-01T10:00:00Z", "2023-06-01T11:00:00Z", "2023-06-01 10:00:00"),
        ("2023-06-01 10:00:00+02:00", "2023-06-01 11:00:00+02:00", "2023-06-01 08:00:00"),
        ("2023-06-01 10:00-05", "2023-06-01 11:00-05", "2023-06-01 15:00:00"),
        ("2023-06-01 10:00 UTC", "2023-06-01 11:00 UTC", "2023-06-01 10:00:00"),
        ("1685613600", "1685617200", "2023-06-01 10:00:00"),
        ("1685613600123", "1685617200123", "2023-06-01 10:00:00"),
    ],
)
def test_times_of_formats(tmp_path: Path, one: str, two: str, expected: str) -> None:
    assert first(table(tmp_path, one, two), zone="UTC") == expected


def test_an_offset_may_change_inside_the_file(tmp_path: Path) -> None:
    path = table(tmp_path, "2023-10-29 01:00+01:00", "2023-10-29 01:00+00:00", "2023-10-29 02:00+00:00")
    assert list(np.diff(read_bars(path).time)) == [3600, 3600]


@pytest.mark.parametrize("text", ["abc", "2023.06.01 10", "2023.06", "10:00", "2023.06.01 10:00 +25:00", "2023.06.01 10:00x",
                                  "１２.06.2023 10:00", "2023.06.01 10:0", "", "16856136001", "2023-06.01 10:00"])  # fmt: skip
def test_a_cell_that_is_no_time_is_named(tmp_path: Path, text: str) -> None:
    path = table(tmp_path, "2023.06.01 10:00", text, "2023.06.01 12:00")
    with pytest.raises(errors.CellError, match="is no time") as caught:
        read_bars(path, zone="UTC")
    assert (caught.value.row, caught.value.column, caught.value.file) == (3, "time", path)


@pytest.mark.parametrize(
    "text",
    ["2023.02.30 10:00", "2023.13.01 10:00", "2023.06.00 10:00", "2023.06.01 24:00", "2023.06.01 10:60", "1969.12.31 10:00",
     "2101.01.01 10:00", "2023.02.29 00:00", "1970.01.01 00:00"],
)  # fmt: skip
def test_an_impossible_time_is_named(tmp_path: Path, text: str) -> None:
    path = table(tmp_path, "2023.06.01 10:00", text, "2023.06.01 12:00")
    with pytest.raises(errors.TimeError, match="is no time of a calendar from 1970 to 2100") as caught:
        read_bars(path, zone="UTC")
    assert (caught.value.row, caught.value.column) == (3, "time")


def test_day_and_month_are_not_guessed(tmp_path: Path) -> None:
    path = table(tmp_path, "03/04/2023 10:00", "03/04/2023 11:00")
    with pytest.raises(errors.TimeError, match=r"day/month or month/day.*date_order="):
        read_bars(path, zone="UTC")
    assert first(path, zone="UTC", date_order="dmy") == "2023-04-03 10:00:00"
    assert first(path, zone="UTC", date_order="mdy") == "2023-03-04 10:00:00"
    mixed = table(tmp_path, "13/04/2023 10:00", "04/14/2023 11:00")
    with pytest.raises(errors.TimeError, match="cannot be in the same order") as caught:
        read_bars(mixed, zone="UTC")
    assert caught.value.row == 3


def test_metatraders_unix_times_are_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(
        "time,open,high,low,close,tick_volume,spread,real_volume\n"
        "1685613600,1.1,1.2,1.0,1.15,5,1,0\n1685617200,1.1,1.2,1.0,1.15,5,1,0\n"
    )
    assert first(path) == "2023-06-01 07:00:00"  # 10:00 on the server's clock, UTC+3 in summer


def test_a_skipped_local_hour_is_named_with_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, "2023.03.26 02:00", "2023.03.26 03:30", "2023.03.26 04:00")
    with pytest.raises(
        errors.TimeError, match="2023-03-26 03:30 does not exist on the clock server-eu"
    ) as caught:
        read_bars(path, zone="server-eu", timeframe="M30")
    assert caught.value.row == 3


@given(
    st.integers(86_400, 4_133_980_799),
    st.sampled_from(["%Y.%m.%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y%m%d %H%M%S", "%Y-%m-%dT%H:%M:%S"]),
)
def test_what_strftime_writes_reads_back(moment: int, form: str) -> None:
    text = np.frombuffer(datetime.fromtimestamp(moment, UTC).strftime(form).encode(), np.uint8)
    kind, a, b, c, stop = _cells.parse_date(text, 0, len(text))
    seconds, end = _cells.parse_clock(text, stop + 1, len(text))
    day = datetime.fromtimestamp(moment, UTC)
    expected = (day.year, day.month, day.day) if kind == _cells.YEAR_FIRST else (day.day, day.month, day.year)
    assert ((a, b, c), seconds, end) == (expected, moment % 86_400, len(text))
