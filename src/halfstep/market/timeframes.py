"""Lengths of a bar, under MetaTrader's names."""

import enum

from halfstep.errors import ConfigError

HOUR, DAY = 3600, 86_400


class Timeframe(enum.Enum):
    """Length of a bar; the value is its nominal number of seconds (a month counts 30 days)."""

    M1 = 60
    M5 = 300
    M15 = 900
    M30 = 1800
    H1 = 3600
    H4 = 14_400
    D1 = DAY
    W1 = 7 * DAY
    MN1 = 30 * DAY

    @property
    def seconds(self) -> int:
        """Nominal seconds from a bar's open to its close."""
        return self.value

    @classmethod
    def parse(cls, name: "str | Timeframe") -> "Timeframe":
        """Return the timeframe of a name such as ``"H1"``."""
        if isinstance(name, cls):
            return name
        try:
            return cls[str(name).upper()]
        except KeyError:
            known = ", ".join(member.name for member in cls)
            raise ConfigError(f"timeframe: {name!r}, must be one of {known}.") from None
