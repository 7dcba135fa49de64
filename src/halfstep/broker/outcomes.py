"""What became of a decision: exactly one outcome, and any number of flags."""

import enum


class Outcome(enum.IntEnum):
    """The one outcome of a decision; their counts add up to the number of decisions."""

    FILLED = 0
    """The action made a deal."""
    NONFINITE = 1
    """The action held NaN or infinity; positions and levels stayed."""
    STOPPED_OUT = 2
    """The position was liquidated at the open, before the action."""
    BELOW_MIN_LOT = 3
    """The volume was under the least lot."""
    TP_TOO_CLOSE = 4
    """The target was nearer than the broker takes."""
    SL_TOO_CLOSE = 5
    """The stop was nearer than the broker takes, spread included."""
    NO_MONEY = 6
    """The margin did not suffice."""
    HELD = 7
    """Nothing to do, or levels only."""


class Flag(enum.IntFlag):
    """What else happened on the way."""

    NETTED = 1
    """Opposite volumes of one action were subtracted from each other."""
    CAPPED = 2
    """The volume was cut to the lot cap."""
    SL_KEPT = 4
    """The new stop was less favourable; the old one stayed."""
    LEVEL_DROPPED = 8
    """A level at or below zero was left out."""
    CLOSED_BY_CHECK = 16
    """A held side was closed because its request failed the volume or distance check."""


class Phase(enum.IntEnum):
    """When in a bar a deal was made."""

    OPEN_LEVELS = 1
    """At the opening quote: a level the market jumped over."""
    ACTION = 2
    """At the open, by the action."""
    INSIDE = 3
    """Inside the bar."""
    END = 4
    """At the close of the episode's last bar."""


class Reason(enum.IntEnum):
    """Why a deal was made."""

    ACTION = 0
    SL = 1
    TP = 2
    STOP_OUT = 3
    END = 4
