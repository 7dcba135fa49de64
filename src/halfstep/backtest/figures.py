"""A figure of the report and a table of figures: the value in full, and the text that the page shows.

Texts are made here and nowhere else, from a value and its unit. A value that is not defined is None and reads
``--``; no text ever says nan, inf or -0.00.

    money     account currency      1 234.50           share     fraction          12.34%
    ratio     plain number          1.97               growth    factor            1.0005
    count     whole number          1 417              seconds   duration          2 d 3:04:05
    time      server seconds        2024-01-02 10:00   lots      volume            0.10
    price     price                 1.10437            points    whole points      12
    bytes     bytes                 4 096              ms        milliseconds      1.234
    error     loss or error         0.39800            skill     signed share      +0.120
    mean      mean of counts        4 or 3.5
    text      words                                    flag      yes or no
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from halfstep.market.calendar import iso

SPACE = "\u00a0"  # no-break: thousands are not torn apart
UNDEFINED = "--"

Unit = Literal[
    "money", "share", "ratio", "growth", "count", "seconds", "time", "lots", "price", "points", "bytes", "ms",
    "error", "skill", "mean", "text", "flag", "row",
]  # fmt: skip
"""What a number is; ``row`` in a table: what the row's own column ``unit`` says."""
Form = Literal["page", "list", "long", "curve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure of the report.

    Attributes:
        key: name in every twin.
        label: as the page shows it.
        value: the figure, or None where it is not defined or is words.
        text: as the page shows it, second figure included.
        unit: of the value, see the module.
        definition: how it is computed.
        note: why there is no value, or what to know about this one.
        second: the figure in brackets.
        interval: lower and upper bound, in the unit of the value.
    """

    key: str
    label: str
    value: float | None
    text: str
    unit: Unit
    definition: str
    note: str = ""
    second: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its name in the twins, its heading on the page, its unit."""

    name: str
    label: str
    unit: Unit


@dataclass(frozen=True, kw_only=True, slots=True)
class TableKind:
    """What a table is called and what its columns are.

    Attributes:
        key: name of its files, ``tables/<key>.parquet``.
        caption: on the page.
        form: ``page`` = shown whole, in every twin; ``list`` = the page shows the first and last 50 rows;
            ``long`` = Parquet only; ``curve`` = the data of charts, Parquet only.
        columns: in order.
        is_transposed: the page shows one column per row of the table.
    """

    key: str
    caption: str
    form: Form
    columns: tuple[Column, ...]
    is_transposed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table of the report: full values in a frame with exactly the columns of its kind."""

    kind: TableKind
    frame: pl.DataFrame

    def __post_init__(self) -> None:
        names = [column.name for column in self.kind.columns]
        if self.frame.columns != names:
            raise ValueError(f"table {self.kind.key}: columns {self.frame.columns}, must be {names}.")

    def texts(self) -> list[tuple[str, ...]]:
        """Return the cells as the page shows them, row by row."""
        units = [column.unit for column in self.kind.columns]
        at = self.frame.columns.index("unit") if "row" in units else 0
        return [
            tuple(
                text_of(value, unit if unit != "row" else _averaged(row[at]))
                for value, unit in zip(row, units, strict=True)
            )
            for row in self.frame.iter_rows()
        ]


def table(kind: TableKind, rows: list[dict[str, Any]] | pl.DataFrame) -> Table:
    """Return a table of records or of a frame that has at least the columns of its kind; NaN becomes null."""
    names = [column.name for column in kind.columns]
    if isinstance(rows, pl.DataFrame):
        frame = rows.select(names)
    else:
        schema = {column.name: POLARS_TYPES.get(column.unit, pl.Float64) for column in kind.columns}
        frame = pl.DataFrame([{name: row[name] for name in names} for row in rows], schema=schema)
    undefined = [
        name for name, dtype in frame.schema.items() if dtype == pl.Float64 and frame[name].is_nan().any()
    ]
    return Table(kind, frame.with_columns(pl.col(undefined).fill_nan(None)) if undefined else frame)


POLARS_TYPES: dict[str, Any] = {
    "text": pl.String,
    "flag": pl.Boolean,
    "count": pl.Int64,
    "bytes": pl.Int64,
    "time": pl.Int64,
}


def text_of(value: Any, unit: Unit) -> str:
    """Return a value as the page shows it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNDEFINED
    return _TEXTS[unit](value)


def money(value: float | None) -> str:
    """Return money with two decimals and no-break thousands.

    >>> money(-1234.5).replace(SPACE, " "), money(-0.001), money(None)
    ('-1 234.50', '0.00', '--')
    """
    return text_of(value, "money")


def percent(value: float | None) -> str:
    """Return a fraction as percent with two decimals.

    >>> percent(0.1927)
    '19.27%'
    """
    return text_of(value, "share")


def number(value: float | None, digits: int = 2) -> str:
    """Return a plain number."""
    return UNDEFINED if value is None or not math.isfinite(value) else _grouped(value, digits)


def _averaged(unit: Unit) -> Unit:
    """Return how a mean over counts is shown: it need not be whole."""
    return "mean" if unit == "count" else unit


def _grouped(value: float | int, digits: int) -> str:
    text = f"{value:,.{digits}f}".replace(",", SPACE)
    return text.removeprefix("-") if not text.strip("-0.") else text


def _duration(value: float | int) -> str:
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def _skill(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def _mean(value: float | int) -> str:
    text = _grouped(value, 1)
    return text.removesuffix(".0")


_TEXTS: dict[str, Callable[[Any], str]] = {
    "money": lambda value: _grouped(value, 2),
    "share": lambda value: f"{_grouped(100 * value, 2)}%",
    "ratio": lambda value: _grouped(value, 2),
    "growth": lambda value: _grouped(value, 4),
    "count": lambda value: _grouped(value, 0),
    "seconds": _duration,
    "time": lambda value: iso(int(value)),
    "lots": lambda value: _grouped(value, 2),
    "price": lambda value: _grouped(value, 5),
    "points": lambda value: _grouped(value, 0),
    "bytes": lambda value: _grouped(value, 0),
    "ms": lambda value: _grouped(value, 3),
    "error": lambda value: _grouped(value, 5),
    "skill": _skill,
    "mean": _mean,
    "text": str,
    "flag": lambda value: "yes" if value else "no",
}
