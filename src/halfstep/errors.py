"""The errors a caller may want to catch.

    HalfstepError                     exit status 2 on the command line
    ├── ConfigError                   a setting is unknown, out of range or contradicts another
    ├── MissingInputError             a file or folder that a program needs is not there
    ├── OutputExistsError             a program would overwrite a result
    ├── DataError                     bars or deals are not what they should be; names file, row and column
    │   ├── FormatError               not a table of bars at all
    │   ├── ColumnError               a column is absent or ambiguous
    │   ├── CellError                 a cell is not a number or a time
    │   ├── TimeError                 times are not rising, repeated, impossible or undecidable
    │   ├── PriceError                prices contradict each other or lie off the grid
    │   ├── QuantityError             a volume or spread is negative
    │   ├── CoverageError             the bars do not cover what was asked of them
    │   └── SignalError               a deal history does not fit the bars
    ├── ActionError                   an action has the wrong shape or is not finite
    ├── StoreError                    a trajectory store cannot be used
    │   ├── StoreMismatchError        it was made from other bars, features or rules
    │   └── StoreDamagedError         a shard fails its checks
    ├── CheckpointError               model files do not fit the model
    ├── ResumeError                   a run cannot be continued as asked
    ├── TaskError                     work in a process of its own crashed or was killed; exit status 1
    ├── RankLostError                 another process of a training is gone; exit status 1
    └── DivergenceError               a loss or gradient is not finite; exit status 3

A message reads ``<what>: <value>, <allowed>. <way out>``. Wrong arguments to a function are plain
``ValueError`` or ``TypeError``. The optimizer library raises only those, so that it depends on nothing.
"""

from pathlib import Path
from typing import ClassVar


class HalfstepError(Exception):
    """Base of every error that halfstep raises on purpose."""

    exit_status: ClassVar[int] = 2


class ConfigError(HalfstepError, ValueError):
    """A setting is unknown, out of range or contradicts another."""


class MissingInputError(HalfstepError, FileNotFoundError):
    """A needed file or folder is absent; the message names it and the command that makes it."""


class OutputExistsError(HalfstepError, FileExistsError):
    """A program would overwrite a result."""


class DataError(HalfstepError, ValueError):
    """Bars or deals are not what they should be.

    Attributes:
        file: the file as it was given, or None for data that came from memory.
        row: physical line of a text file or row of a table, counted from 1, or None.
        column: the column's name as the file spells it, or None.
        value: the offending text or number, or None.
        hint: the way out, one sentence, or None.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        column: str | None = None,
        value: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.file, self.row, self.column, self.value, self.hint = (
            what,
            file,
            row,
            column,
            value,
            hint,
        )
        place = ":".join(str(part) for part in (file, row) if part is not None)
        named = f"column {column!r}: {what}" if column is not None else what
        message = f"{place}: {named}" if place else named
        super().__init__(f"{message.rstrip('.')}. {hint}" if hint else message)


class FormatError(DataError):
    """The input is not a table of bars at all."""


class ColumnError(DataError):
    """A column is absent or ambiguous."""


class CellError(DataError):
    """A cell is not a number or a time."""


class TimeError(DataError):
    """Times are not rising, repeated, impossible or undecidable."""


class PriceError(DataError):
    """Prices contradict each other, are not positive or lie off the instrument's grid."""


class QuantityError(DataError):
    """A volume or spread is negative."""


class CoverageError(DataError):
    """The bars do not cover what was asked of them."""


class SignalError(DataError):
    """A deal history does not fit the bars: another zone, another symbol, or another time."""


class ActionError(HalfstepError, ValueError):
    """An action has the wrong shape or is not finite."""


class StoreError(HalfstepError):
    """A trajectory store cannot be used."""


class StoreMismatchError(StoreError):
    """A store was made from other bars, features or account rules."""


class StoreDamagedError(StoreError):
    """A shard fails its checks; the message names the file and the check."""


class CheckpointError(HalfstepError):
    """Model files do not fit the model that is to be loaded."""


class ResumeError(HalfstepError):
    """A run cannot be continued as asked."""


class TaskError(HalfstepError):
    """Work in a process of its own crashed or was killed, and the program cannot go on without it."""

    exit_status: ClassVar[int] = 1


class RankLostError(HalfstepError):
    """Another process of a training is gone or silent; what its last checkpoint holds is kept."""

    exit_status: ClassVar[int] = 1


class DivergenceError(HalfstepError):
    """A loss or gradient is not finite; weights and state are those of the step before."""

    exit_status: ClassVar[int] = 3
