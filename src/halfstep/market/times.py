"""Text of times to seconds since 1970, on whatever clock the text is meant.

Read are dates with the year first (``2023.06.01``, ``-``, ``/``, ``20230601``), dates with dots and the year last
(day first), dates with the year last and ``/`` or ``-`` (day or month first by any number above 12), clocks such as
``10:00``, ``10:00:00.000``, ``1:00 PM`` and ``100000``, offsets such as ``Z``, ``+02:00`` and ``GMT+0200``, and Unix
seconds or milliseconds. Fractions of a second are cut off.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfstep.errors import TimeError
from halfstep.market import _cells
from halfstep.market._cells import DAY_FIRST, NO_CLOCK, NO_OFFSET, NO_TIME, UNDECIDED, YEAR_FIRST
from halfstep.market.sniff import Table
from halfstep.market.timeframes import DAY

FIRST_YEAR, LAST_YEAR = 1970, 2100
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])

Mask = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ParsedTimes:
    """Times of a table.

    Attributes:
        seconds: since 1970: UTC where ``is_stated``, else on the unnamed clock of the file.
        is_stated: the text says its offset from UTC, or is Unix time.
        is_unix: the column holds Unix time.
        has_clock: some text says a time of the day.
        unreadable: cells that are no time, or written in another way than the first.
        impossible: cells that name a day or time that no calendar has, or a year outside 1970 to 2100.
    """

    seconds: Seconds
    is_stated: Mask
    is_unix: bool
    has_clock: bool
    unreadable: Mask
    impossible: Mask


def parse_times(
    table: Table, date: int, clock: int | None, *, path: Path, date_order: str | None
) -> ParsedTimes:
    """Read a column of times, or two of dates and clocks.

    Args:
        date, clock: positions of the columns.
        date_order: ``"dmy"`` or ``"mdy"`` for dates that nothing else decides.

    Raises:
        TimeError: dates whose order of day and month nothing decides.
    """
    n = len(table)
    form, parts = np.empty(n, np.int8), np.empty((3, n), np.int64)
    seconds_of_day, offset = np.empty(n, np.int64), np.empty(n, np.int64)
    none = np.empty(0, np.uint32)
    _cells.parse_times(
        table.text,
        table.first[date],
        table.last[date],
        none if clock is None else table.first[clock],
        none if clock is None else table.last[clock],
        form,
        parts,
        seconds_of_day,
        offset,
    )
    readable = form[form != NO_TIME]
    usual = int(readable[0]) if len(readable) else YEAR_FIRST
    unreadable = form != usual
    is_unix = usual not in (YEAR_FIRST, DAY_FIRST, UNDECIDED)
    stated = offset != NO_OFFSET
    if is_unix:
        seconds = parts[0]
        impossible = (
            seconds >= days_since_1970(np.array([LAST_YEAR + 1]), np.array([1]), np.array([1]))[0] * DAY
        )
    else:
        order = _order(usual, parts[:, ~unreadable], date_order, table, date, path, ~unreadable)
        year, month, day = (parts[k] for k in order)
        month_safe = np.clip(month, 1, 12)
        leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
        impossible = (year < FIRST_YEAR) | (year > LAST_YEAR) | (month != month_safe) | (day < 1)
        impossible |= day > _DAYS[month_safe - 1] + (leap & (month == 2))
        impossible |= seconds_of_day == _cells.BAD_CLOCK
        seconds = days_since_1970(year, month_safe, day) * DAY + np.maximum(seconds_of_day, 0)
        seconds -= np.where(stated, offset, 0)
    impossible |= seconds < DAY  # the first day of 1970 is an empty time, not a bar
    impossible &= ~unreadable
    return ParsedTimes(
        seconds=np.where(unreadable | impossible, 0, seconds),
        is_stated=stated,
        is_unix=is_unix,
        has_clock=bool((seconds_of_day[~unreadable] != NO_CLOCK).any()),
        unreadable=unreadable,
        impossible=impossible,
    )


def days_since_1970(year: Seconds, month: Seconds, day: Seconds) -> Seconds:
    """Return days since 1970-01-01 of Gregorian dates, with years that begin in March (Hinnant's algorithm)."""
    y = year - (month <= 2)
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    return np.asarray(
        era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468, np.int64
    )


def _order(
    form: int, parts: Seconds, date_order: str | None, table: Table, column: int, path: Path, readable: Mask
) -> tuple[int, int, int]:
    """Return where year, month and day stand among the three numbers of a date."""
    if form == YEAR_FIRST:
        return 0, 1, 2
    if form == DAY_FIRST or date_order == "dmy":
        return 2, 1, 0
    if date_order == "mdy" or (parts[1] > 12).any():
        if date_order is None and (parts[0] > 12).any():
            rows = np.flatnonzero(readable)
            one, other = (int(rows[(parts[k] > 12).argmax()]) for k in (0, 1))
            row = max(one, other)
            raise TimeError(
                f"{table.cell(column, row)!r} cannot be in the same order of day and month as "
                f"{table.cell(column, min(one, other))!r} in line {table.lines[min(one, other)]}",
                file=path,
                row=int(table.lines[row]),
                column=None if table.names is None else table.names[column],
                value=table.cell(column, row),
                hint="Export the file again with dates of one form.",
            )
        return 2, 0, 1
    if (parts[0] > 12).any():
        return 2, 1, 0
    raise TimeError(
        "these dates could be day/month or month/day",
        file=path,
        row=int(table.lines[0]),
        column=None if table.names is None else table.names[column],
        value=table.cell(column, 0),
        hint='Say which with date_order="dmy" or date_order="mdy" (command line: --date-order dmy).',
    )
