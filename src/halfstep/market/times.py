"""Text of times to seconds since 1970, on whatever clock the text is meant."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.errors import CellError, TimeError
from halfstep.market.calendar import parse_date

_CLOCK = r"(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?)?"
_OFFSET = r"\s*(Z|UTC|[+-]\d{2}:?\d{2})?$"
_FORMS = {
    "year first": rf"^(\d{{4}})[./-](\d{{1,2}})[./-](\d{{1,2}}){_CLOCK}{_OFFSET}",
    "day first": rf"^(\d{{1,2}})\.(\d{{1,2}})\.(\d{{4}}){_CLOCK}{_OFFSET}",
    "slashes": rf"^(\d{{1,2}})/(\d{{1,2}})/(\d{{4}}){_CLOCK}{_OFFSET}",
    "compact": r"^(\d{4})(\d{2})(\d{2})(?: (\d{2})(\d{2})(\d{2}))?()$",
}
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
FIRST_YEAR, LAST_YEAR = 1970, 2100


def parse_times(
    text: pl.Series, *, path: Path, lines: npt.NDArray[np.int64], column: str, date_order: str | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return seconds and whether each is UTC (its text holds an offset, or it is Unix time).

    Raises:
        CellError: a cell is no time; the message names line and cell.
        TimeError: slashes whose order of day and month nothing decides.
    """
    first = text[0] or ""
    if re.fullmatch(r"\d{10}|\d{13}", first):
        return _unix(text, path=path, lines=lines, column=column)
    form = next((name for name, pattern in _FORMS.items() if re.match(pattern, first)), None)
    if form is None:
        raise CellError(
            f"{first!r} is no known form of a time",
            file=path,
            row=int(lines[0]),
            column=column,
            value=first,
            hint="Known: 2023.06.01 10:00, 2023-06-01T10:00Z, 01.06.2023 10:00, 20230601 100000, Unix seconds.",
        )
    groups = text.str.extract_groups(_FORMS[form]).struct.unnest()
    parts = [groups[name] for name in groups.columns]
    numbers = [part.cast(pl.Int64, strict=False) for part in parts[:6]]
    _refuse(
        numbers[0].is_null() | numbers[1].is_null() | numbers[2].is_null(),
        text,
        path=path,
        lines=lines,
        column=column,
    )
    values = [number.fill_null(0).to_numpy().astype(np.int64) for number in numbers]
    year, month, day = _ordered(form, values[:3], date_order, path=path, column=column)
    bad = (year < FIRST_YEAR) | (year > LAST_YEAR) | (month < 1) | (month > 12) | (day < 1)
    bad |= (values[3] > 23) | (values[4] > 59) | (values[5] > 59)
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    bad |= day > _DAYS[np.clip(month, 1, 12) - 1] + (leap & (month == 2))
    _refuse(pl.Series(bad), text, path=path, lines=lines, column=column)
    seconds = _days_since_1970(year, month, day) * 86_400 + values[3] * 3600 + values[4] * 60 + values[5]
    offset, stated = _offsets(parts[6])
    return seconds - offset, stated


def _unix(
    text: pl.Series, *, path: Path, lines: npt.NDArray[np.int64], column: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    numbers = text.cast(pl.Int64, strict=False)
    _refuse(numbers.is_null(), text, path=path, lines=lines, column=column)
    seconds = numbers.to_numpy().astype(np.int64)
    if len(text[0]) == 13:
        seconds = seconds // 1000
    outside = (seconds < 0) | (seconds > parse_date(f"{LAST_YEAR}-12-31"))
    _refuse(pl.Series(outside), text, path=path, lines=lines, column=column)
    return seconds, np.ones(len(seconds), bool)


def _ordered(
    form: str, values: list[npt.NDArray[np.int64]], date_order: str | None, *, path: Path, column: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    a, b, c = values
    if form in ("year first", "compact"):
        return a, b, c
    if form == "day first" or date_order == "dmy" or (date_order is None and (a > 12).any()):
        return c, b, a
    if date_order == "mdy" or (b > 12).any():
        return c, a, b
    raise TimeError(
        "dates with slashes could be day/month or month/day",
        file=path,
        column=column,
        hint='Say which with date_order="dmy" or date_order="mdy".',
    )


def _offsets(text: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    stated = (text.is_not_null() & (text != "")).fill_null(value=False).to_numpy()
    if not stated.any():
        return np.zeros(len(text), np.int64), stated
    groups = text.str.extract_groups(r"^([+-])(\d{2}):?(\d{2})$").struct.unnest()
    sign = pl.Series(np.where((groups[groups.columns[0]] == "-").fill_null(value=False).to_numpy(), -1, 1))
    hours, minutes = (groups[name].cast(pl.Int64, strict=False).fill_null(0) for name in groups.columns[1:])
    return np.asarray((sign * (hours * 3600 + minutes * 60)).to_numpy(), np.int64), stated


def _days_since_1970(
    year: npt.NDArray[np.int64], month: npt.NDArray[np.int64], day: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return days since 1970-01-01 of Gregorian dates, with years that begin in March (Hinnant's algorithm)."""
    y = year - (month <= 2)
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    return np.asarray(
        era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468, np.int64
    )


def _refuse(
    bad: pl.Series, text: pl.Series, *, path: Path, lines: npt.NDArray[np.int64], column: str
) -> None:
    if bad.any():
        row = int(bad.arg_true()[0])
        raise CellError(
            f"{text[row]!r} is no time",
            file=path,
            row=int(lines[row]),
            column=column,
            value=text[row],
            hint="Export the file again, or correct this line.",
        )
