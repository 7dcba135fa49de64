"""Bytes of a text table to lines, cells, numbers and dates: compiled loops, one pass over the bytes each.

Every function is plain Python that numba compiles (`plain` holds the uncompiled forms, which tests compare with
the compiled ones). All of them read within ``data`` only and take time and memory linear in its length, whatever
the bytes are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

TAB, LF, CR, BLANK, QUOTE = 9, 10, 13, 32, 34
PLUS, COMMA, MINUS, POINT, SLASH, ZERO, NINE, COLON = 43, 44, 45, 46, 47, 48, 57, 58
NBSP = (0xC2, 0xA0)  # in UTF-8
EXACT_MANTISSA = 2**53
POWERS = 10.0 ** np.arange(23)  # each exact, so that mantissa / power is the nearest float64

YEAR_FIRST, DAY_FIRST, UNDECIDED, UNIX_SECONDS, UNIX_MILLISECONDS, NO_TIME = range(6)
NO_OFFSET = -(2**31)
NO_CLOCK, BAD_CLOCK = -3, -2  # in place of seconds of the day


def _line_spans(data):
    """Return start, end and physical number (from 1) of each line that holds more than blanks."""
    size = len(data)
    most = 1
    for k in range(size):
        if data[k] == LF or data[k] == CR:
            most += 1
    starts = np.empty(most, np.int64)
    ends = np.empty(most, np.int64)
    numbers = np.empty(most, np.int64)
    count = 0
    number = 1
    begin = 0
    is_blank = True
    k = 0
    while k <= size:
        byte = LF if k == size else int(data[k])
        if byte == LF or byte == CR:  # noqa: SIM109  # numba compiles it faster than a tuple
            if not is_blank:
                starts[count] = begin
                ends[count] = k
                numbers[count] = number
                count += 1
            if byte == CR and k + 1 < size and data[k + 1] == LF:
                k += 1
            begin = k + 1
            number += 1
            is_blank = True
        elif byte > BLANK:
            is_blank = False
        k += 1
    return starts[:count], ends[:count], numbers[:count]


def _cell_end(data, begin, end, separator):
    """Return where the cell that begins at ``begin`` ends; a separator inside quotes belongs to the cell."""
    k = begin
    while k < end and data[k] == BLANK and separator != BLANK:
        k += 1
    if k < end and data[k] == QUOTE:
        closing = k + 1
        while closing < end and data[closing] != QUOTE:
            closing += 1
        if closing < end:
            k = closing
    while k < end and data[k] != separator:
        k += 1
    return k


def _count_cells(data, starts, ends, separator):
    """Return the number of cells of each line."""
    counts = np.empty(len(starts), np.int64)
    for row in range(len(starts)):
        count = 0
        at = starts[row]
        while at <= ends[row]:
            at = cell_end(data, at, ends[row], separator) + 1
            count += 1
        counts[row] = count
    return counts


def _split_cells(data, starts, ends, separator, first, last):
    """Fill ``first`` and ``last``, ``(cell, row)``, with the bounds of each cell without blanks and quotes around it."""
    for row in range(len(starts)):
        at = starts[row]
        for cell in range(first.shape[0]):
            stop = cell_end(data, at, ends[row], separator)
            begin = at
            end = stop
            moved = True
            while moved:
                moved = False
                if begin < end and (data[begin] == BLANK or data[begin] == TAB or data[begin] == QUOTE):
                    begin += 1
                    moved = True
                elif begin + 1 < end and data[begin] == NBSP[0] and data[begin + 1] == NBSP[1]:
                    begin += 2
                    moved = True
                if begin < end and (data[end - 1] == BLANK or data[end - 1] == TAB or data[end - 1] == QUOTE):
                    end -= 1
                    moved = True
                elif begin + 1 < end and data[end - 2] == NBSP[0] and data[end - 1] == NBSP[1]:
                    end -= 2
                    moved = True
            first[cell, row] = begin
            last[cell, row] = end
            at = stop + 1


def _parse_numbers(data, first, last, decimal_comma, out, unread):
    """Fill ``out`` with the numbers of cells, and ``unread`` where a cell is no short plain decimal."""
    for row in range(len(first)):
        begin = int(first[row])
        end = int(last[row])
        k = begin
        negative = False
        if k < end and (data[k] == MINUS or data[k] == PLUS):
            negative = data[k] == MINUS
            k += 1
        mantissa = 0
        digits = 0
        decimals = 0
        has_point = False
        is_plain = True
        while k < end:
            byte = int(data[k])
            if ZERO <= byte <= NINE:
                mantissa = mantissa * 10 + (byte - ZERO)
                digits += 1
                if has_point:
                    decimals += 1
                if digits > 17:
                    is_plain = False
                    break
            elif not has_point and (byte == POINT or (decimal_comma and byte == COMMA)):
                has_point = True
            else:
                is_plain = False
                break
            k += 1
        if is_plain and digits > 0 and mantissa <= EXACT_MANTISSA:
            value = mantissa / POWERS[decimals]
            out[row] = -value if negative else value
            unread[row] = False
        else:
            out[row] = np.nan
            unread[row] = True


def _digits(data, k, end):
    """Return the value of the digits from ``k`` on (at most 14) and where they stop."""
    value = 0
    begin = k
    while k < end and k - begin < 14 and ZERO <= int(data[k]) <= NINE:
        value = value * 10 + (int(data[k]) - ZERO)
        k += 1
    return value, k


def _skip(data, k, end, letter):
    """Skip blanks and one kind of letter."""
    while k < end and (data[k] == BLANK or data[k] == letter):
        k += 1
    return k


def _parse_clock(data, k, end):
    """Return seconds of the day and where the clock stops; seconds -1: no clock, -2: no time of a day."""
    hour, stop = digits(data, k, end)
    length = stop - k
    if length == 6 or length == 4:  # HHMMSS, HHMM
        second = hour % 100 if length == 6 else 0
        hour_minute = hour // 100 if length == 6 else hour
        hour, minute = hour_minute // 100, hour_minute % 100
    else:
        if length < 1 or length > 2 or stop >= end or data[stop] != COLON:
            return -1, k
        minute, after = digits(data, stop + 1, end)
        if after - stop != 3:
            return -1, k
        stop = after
        second = 0
        if stop < end and data[stop] == COLON:
            second, after = digits(data, stop + 1, end)
            if after - stop != 3:
                return -1, k
            stop = after
            if stop < end and (data[stop] == POINT or data[stop] == COMMA):
                stop += 1
                while stop < end and ZERO <= int(data[stop]) <= NINE:
                    stop += 1
        after = skip(data, stop, end, BLANK)
        if after + 1 < end and (data[after + 1] == 77 or data[after + 1] == 109):  # AM, PM
            half = int(data[after]) & 0xDF
            if half == 65 or half == 80:
                if hour < 1 or hour > 12:
                    return -2, k
                hour = hour % 12 + (12 if half == 80 else 0)
                stop = after + 2
    if hour > 23 or minute > 59 or second > 59:
        return -2, k
    return hour * 3600 + minute * 60 + second, stop


def _parse_offset(data, k, end):
    """Return seconds east of UTC, `NO_OFFSET` where none is stated, and where it stops."""
    k = skip(data, k, end, BLANK)
    if k >= end:
        return NO_OFFSET, k
    if data[k] == 90 or data[k] == 122:  # Z
        return 0, k + 1
    is_named = False
    if k + 2 < end:
        a, b, c = int(data[k]) & 0xDF, int(data[k + 1]) & 0xDF, int(data[k + 2]) & 0xDF
        if (a == 85 and b == 84 and c == 67) or (a == 71 and b == 77 and c == 84):  # UTC, GMT
            is_named = True
            k += 3
    if k < end and (data[k] == PLUS or data[k] == MINUS):
        sign = 1 if data[k] == PLUS else -1
        value, stop = digits(data, k + 1, end)
        length = stop - k - 1
        if length == 4:
            hours, minutes = value // 100, value % 100
        elif length == 2:
            hours, minutes = value, 0
            if stop < end and data[stop] == COLON:
                minutes, after = digits(data, stop + 1, end)
                if after - stop != 3:
                    return NO_OFFSET, k
                stop = after
        else:
            return NO_OFFSET, k
        if hours > 18 or minutes > 59:
            return NO_OFFSET, k
        return sign * (hours * 3600 + minutes * 60), stop
    return (0, k) if is_named else (NO_OFFSET, k)


def _parse_date(data, k, end):
    """Return the form, the three numbers of a date in the order of the text, and where it stops."""
    first, stop = digits(data, k, end)
    length = stop - k
    if length == 10 and stop == end:
        return UNIX_SECONDS, first, 0, 0, stop
    if length == 13 and stop == end:
        return UNIX_MILLISECONDS, first // 1000, 0, 0, stop
    if length == 8:
        return YEAR_FIRST, first // 10_000, first // 100 % 100, first % 100, stop
    if (length != 4 and length != 1 and length != 2) or stop >= end:
        return NO_TIME, 0, 0, 0, k
    mark = int(data[stop])
    if mark != POINT and mark != MINUS and mark != SLASH:
        return NO_TIME, 0, 0, 0, k
    second, after = digits(data, stop + 1, end)
    if after - stop < 2 or after - stop > 3 or after >= end or data[after] != mark:
        return NO_TIME, 0, 0, 0, k
    third, stop = digits(data, after + 1, end)
    width = stop - after - 1
    if length == 4 and (width == 1 or width == 2):
        return YEAR_FIRST, first, second, third, stop
    if length <= 2 and width == 4:
        return (DAY_FIRST if mark == POINT else UNDECIDED), first, second, third, stop
    return NO_TIME, 0, 0, 0, k


def _parse_times(data, first, last, clock_first, clock_last, form, parts, clock, offset):
    """Fill form, ``parts`` (3, n), seconds of the day and offset of each time.

    ``clock_first`` and ``clock_last`` are the bounds of a second cell with the time of the day; empty arrays where
    there is none. A cell outside the grammar has form `NO_TIME`; an impossible time of the day has
    clock `BAD_CLOCK`, a date without one `NO_CLOCK`.
    """
    has_clock = len(clock_first) > 0
    for row in range(len(first)):
        end = int(last[row])
        kind, a, b, c, k = parse_date(data, int(first[row]), end)
        seconds = NO_CLOCK
        east = NO_OFFSET
        if kind == UNIX_SECONDS or kind == UNIX_MILLISECONDS:  # noqa: SIM109
            seconds = 0
            east = 0
            if has_clock:
                kind = NO_TIME
        elif kind != NO_TIME:
            if has_clock:
                if k != end:
                    kind = NO_TIME
                k = int(clock_first[row])
                end = int(clock_last[row])
            else:
                k = skip(data, k, end, 84)  # T
            if k < end:
                seconds, k = parse_clock(data, k, end)
                if seconds == -1:
                    kind = NO_TIME
                elif seconds >= 0:
                    east, k = parse_offset(data, k, end)
                    if k != end:
                        kind = NO_TIME
            elif has_clock:
                kind = NO_TIME
        form[row] = kind
        parts[0, row] = a
        parts[1, row] = b
        parts[2, row] = c
        clock[row] = seconds
        offset[row] = east


plain: dict[str, Callable[..., Any]] = {
    name.removeprefix("_"): function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", "") == __name__ and name.startswith("_")
}
"""The loops as plain Python: the reference of the compiled forms."""

cell_end = njit(cache=True)(_cell_end)
digits = njit(cache=True)(_digits)
skip = njit(cache=True)(_skip)
parse_clock = njit(cache=True)(_parse_clock)
parse_offset = njit(cache=True)(_parse_offset)
parse_date = njit(cache=True)(_parse_date)
line_spans = njit(cache=True)(_line_spans)
count_cells = njit(cache=True)(_count_cells)
split_cells = njit(cache=True)(_split_cells)
parse_numbers = njit(cache=True)(_parse_numbers)
parse_times = njit(cache=True)(_parse_times)
