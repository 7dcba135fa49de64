"""Clocks: the server's zone, its days and nights, and the length of a span in years.

A zone is one of four names or any IANA name:

    server-eu   EET/EEST with the European Union's dates (Europe/Athens): most MetaTrader brokers
    server-us   New York's clock plus seven hours: the others
    est         UTC-5 all year
    UTC
"""

import functools
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, TimeError
from halfstep.market.timeframes import DAY, HOUR

Seconds = npt.NDArray[np.int64]

_RULES = {
    "server-eu": ("Europe/Athens", 0),
    "server-us": ("America/New_York", 7 * 3600),
    "est": ("UTC", -5 * 3600),
    "UTC": ("UTC", 0),
}
ZONE_HINT = "Name the right clock with zone= (command line: --zone; of halfstep run: --data.zone)."
SECONDS_PER_YEAR = 365.25 * DAY


@dataclass(frozen=True, slots=True)
class ServerZone:
    """A named clock and whether it was stated or assumed."""

    name: str
    is_assumed: bool = False

    def __post_init__(self) -> None:
        _rule(self.name)

    def offset(self, time: Seconds) -> Seconds:
        """Return the seconds this clock is ahead of UTC, for UTC seconds."""
        if len(time) == 0:
            return np.zeros(0, np.int64)
        moments, offsets = _transitions(self.name, _year(int(time.min())), _year(int(time.max())))
        return offsets[np.searchsorted(moments, time, side="right") - 1]

    def to_server(self, time: Seconds) -> Seconds:
        """Return what this clock shows at UTC seconds, as seconds since 1970-01-01 on its own dial."""
        return time + self.offset(time)

    def to_utc(self, server: Seconds) -> Seconds:
        """Return the UTC seconds at which this clock shows ``server``.

        A time that the clock shows twice is its first occurrence, unless that does not come after the row before.

        Raises:
            TimeError: the clock never shows such a time (it is skipped when summer time begins).
        """
        utc, never = self.to_utc_where_it_exists(server)
        if never.any():
            row = int(never.argmax())
            raise TimeError(
                f"{iso(int(server[row]))} does not exist on the clock {self.name}",
                row=row + 1,
                value=int(server[row]),
                hint=ZONE_HINT,
            )
        return utc

    def to_utc_where_it_exists(self, server: Seconds) -> tuple[Seconds, npt.NDArray[np.bool_]]:
        """Return UTC seconds as `to_utc` does, and where the clock never shows such a time."""
        if len(server) == 0:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        early = server - self.offset(server - 2 * DAY)  # with the offset of two days ago
        late = server - self.offset(server + 2 * DAY)
        if np.array_equal(early, late):
            return early, np.zeros(len(server), bool)
        early_holds = self.to_server(early) == server
        late_holds = self.to_server(late) == server
        twice = early_holds & late_holds
        first = np.where(twice, np.minimum(early, late), np.where(early_holds, early, late))
        for row in np.flatnonzero(twice & (early != late)).tolist():
            if row > 0 and first[row] <= first[row - 1]:
                first[row] = max(early[row], late[row])
        return first, ~(early_holds | late_holds)


def is_open(time: Seconds, sessions: str) -> npt.NDArray[np.bool_]:
    """Return whether a market trades at UTC seconds.

    Args:
        sessions: on the New York clock: ``"fx"`` Sunday 17:00 to Friday 17:00, ``"metals"`` Sunday 18:00 to Friday
            17:00 without 17:00 to 18:00 of each day, ``"always"``.
    """
    if sessions == "always":
        return np.ones(len(time), bool)
    of_week = (ServerZone("America/New_York").to_server(time) + 4 * DAY) % (7 * DAY)  # from Sunday 00:00
    first, last = 17 * HOUR, 5 * DAY + 17 * HOUR
    inside = (of_week >= first) & (of_week < last)
    if sessions == "metals":
        inside &= of_week % DAY // HOUR != 17
    return np.asarray(inside)


def overlaps_sessions(time: Seconds, seconds: int, sessions: str) -> npt.NDArray[np.bool_]:
    """Return whether bars of ``seconds`` that open at ``time`` share a moment with the sessions.

    A bar shorter than the weekend that is closed at both ends lies outside; longer ones always share a moment.
    """
    if seconds > DAY:
        return np.ones(len(time), bool)
    if seconds > HOUR and sessions == "metals":
        sessions = "fx"  # such a bar is longer than the daily break
    return is_open(time, sessions) | is_open(time + (seconds - 1), sessions)


def session_label(time: Seconds) -> npt.NDArray[np.str_]:
    """Return ``Asian`` (22:00 to 06:59 UTC), ``European`` (07:00 to 12:59) or ``American`` (13:00 to 21:59) of times."""
    hour = time % DAY // HOUR
    return np.select([(hour >= 22) | (hour < 7), hour < 13], ["Asian", "European"], "American")


def server_day(time: Seconds, zone: ServerZone) -> Seconds:
    """Return the day of the server's calendar that UTC seconds fall on, as days since 1970-01-01."""
    return zone.to_server(time) // DAY


def rollover_days(time: Seconds, zone: ServerZone, swap_days: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Return the nights of swap that fall between each bar's open and the open before.

    The nights of bar i are the sum of ``swap_days[w]`` over the server midnights in (time of bar i-1, time of
    bar i], w = weekday of the day that ends, Monday 0. The first bar has none.
    """
    day = zone.to_server(time) // DAY
    first = int(day[0]) if len(day) else 0
    ending = np.arange(first, int(day[-1]) + 1 if len(day) else first)
    charged = np.asarray(swap_days, np.int64)[(ending + 3) % 7]  # day 0 of 1970 was a Thursday
    total = np.concatenate([[0], np.cumsum(charged)])[day - first]
    return np.diff(total, prepend=total[:1]).astype(np.int32)


def years_between(first_open: int, last_close: int) -> float:
    """Return the length of a span in years of 365.25 days; every annual figure uses it, never a constant."""
    return (last_close - first_open) / SECONDS_PER_YEAR


def iso(seconds: int) -> str:
    """Return seconds since 1970 as ``2023-06-01 10:00``, with seconds only where they are not 0."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"


def parse_date(text: str) -> int:
    """Return the seconds since 1970 of a date ``2023-06-01``, on whatever dial it is meant."""
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ConfigError(f"date: {text!r}, must look like 2023-06-01.") from None


@functools.cache
def _rule(name: str) -> tuple[zoneinfo.ZoneInfo, int]:
    key, shift = _RULES.get(name, (name, 0))
    try:
        return zoneinfo.ZoneInfo(key), shift
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"zone: {name!r}, must be one of {', '.join(_RULES)} or an IANA name.") from None


@functools.lru_cache(maxsize=64)
def _transitions(name: str, first_year: int, last_year: int) -> tuple[Seconds, Seconds]:
    """Return the moments at which the offset changes (the first one lies before every time) and the offsets."""
    zone, shift = _rule(name)

    def offset_at(moment: int) -> int:
        delta = datetime.fromtimestamp(moment, zone).utcoffset()
        return (int(delta.total_seconds()) if delta else 0) + shift

    start = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp()) - 7 * DAY
    stop = int(datetime(last_year + 1, 1, 1, tzinfo=UTC).timestamp()) + 7 * DAY
    moments, offsets = [start], [offset_at(start)]
    for day in range(start, stop, DAY):
        if offset_at(day + DAY) == offsets[-1]:
            continue
        low, high = day, day + DAY  # the change lies in (low, high]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle) == offsets[-1] else (low, middle)
        moments.append(high)
        offsets.append(offset_at(high))
    return np.array(moments, np.int64), np.array(offsets, np.int64)


def _year(seconds: int) -> int:
    return datetime.fromtimestamp(seconds, UTC).year
