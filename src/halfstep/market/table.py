"""Bytes to a table of text cells: compression, encoding, separator and header are found out, never guessed silently."""

import gzip
import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.errors import CellError, ColumnError, FormatError, MissingInputError

MOST_BYTES = 4 * 2**30
ACCEPTED = "Accepted are MetaTrader exports, CSV with a header (time, open, high, low, close) and Parquet, also as .gz."


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Text cells by column.

    Attributes:
        names: header cells as the file spells them, or None for a file without a header.
        columns: one series of stripped text per column.
        lines: physical line of each row, from 1, ``(n,)``.
        separator: the character between cells.
        sha256: of the file's bytes.
    """

    names: tuple[str, ...] | None
    columns: tuple[pl.Series, ...]
    lines: npt.NDArray[np.int64]
    separator: str
    sha256: str


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes, or say what is wrong with it as a file."""
    if not path.exists():
        raise MissingInputError(
            f"no file at {path}. Check the path, or leave out --bars to use the default bars."
        )
    if path.is_dir():
        raise FormatError("this is a folder, not a file of bars", file=path, hint="Name the file inside.")
    return path.read_bytes()


def read_table(path: Path, data: bytes) -> Table:
    """Return the cells of a text file.

    Raises:
        FormatError: empty, binary, HTML, an archive, or no separator gives at least four cells.
        CellError: a row has another number of cells than the others.
    """
    digest = hashlib.sha256(data).hexdigest()
    text = _decoded(path, _decompressed(path, data))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = np.array([k for k, line in enumerate(lines, 1) if line.strip()], np.int64)
    if len(numbers) == 0:
        raise FormatError("the file is empty", file=path, hint=ACCEPTED)
    rows = pl.Series("line", [lines[k - 1] for k in numbers])
    separator, width = _separator(path, rows)
    names = _header(rows[0], separator)
    if names is not None:
        rows, numbers = rows[1:], numbers[1:]
        if len(rows) > 1 and rows[0].startswith("Ticker" + separator):  # yfinance writes three header lines
            names = (rows[1].split(separator)[0], *names[1:])
            rows, numbers = rows[2:], numbers[2:]
        width = len(names)
    if len(rows) == 0:
        raise FormatError("the file holds a header and no bars", file=path, hint=ACCEPTED)
    counts = rows.str.count_matches(separator, literal=True).to_numpy() + 1
    ragged = counts != width
    if ragged.any():
        row = int(np.flatnonzero(ragged)[0])
        raise CellError(
            f"{counts[row]} cells, but the table has {width} columns",
            file=path,
            row=int(numbers[row]),
            value=rows[row],
            hint="Export the file again; this line was cut or edited.",
        )
    cells = rows.str.split_exact(separator, width - 1).struct.unnest()
    columns = tuple(cells[name].str.strip_chars(' \t"\u00a0') for name in cells.columns)
    return Table(names=names, columns=columns, lines=numbers, separator=separator, sha256=digest)


def find_column(table: Table, path: Path, wanted: tuple[str, ...]) -> int | None:
    """Return the position of the first header cell, compared without case, brackets and blanks, that is ``wanted``."""
    if table.names is None:
        raise ColumnError("the file has no header", file=path, hint=ACCEPTED)
    plain = [plain_name(name) for name in table.names]
    return next((plain.index(name) for name in wanted if name in plain), None)


def plain_name(name: str) -> str:
    """Return a header cell as it is compared: lower case, without ``<>"_.`` and blanks."""
    return "".join(character for character in name.lower() if character not in '<>"_. \t')


def _decompressed(path: Path, data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as stream:
                plain = stream.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(
                f"a damaged or cut .gz file: {error}", file=path, hint="Copy it again."
            ) from None
        if len(plain) > MOST_BYTES:
            raise FormatError("more than 4 GiB when unpacked", file=path, hint="Split the file.")
        return plain
    for magic, kind in ((b"PK\x03\x04", "a .zip archive or an Excel workbook"), (b"\x80\x04", "a pickle")):
        if data.startswith(magic):
            raise FormatError(
                f"{kind}, not a table of bars", file=path, hint=f"Unpack or export it. {ACCEPTED}"
            )
    return data


def _decoded(path: Path, data: bytes) -> str:
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        if data.startswith(mark):
            return _checked(path, data[len(mark) :].decode(encoding, errors="replace"))
    head = np.frombuffer(data[:4096], np.uint8)
    if len(head) and (head == 0).mean() > 0.3:
        odd_nuls = (head[1::2] == 0).mean() > (head[0::2] == 0).mean()
        return _checked(path, data.decode("utf-16-le" if odd_nuls else "utf-16-be", errors="replace"))
    try:
        return _checked(path, data.decode("utf-8"))
    except UnicodeDecodeError:
        return _checked(path, data.decode("cp1252", errors="replace"))


def _checked(path: Path, text: str) -> str:
    start = text.lstrip()[:6].lower()
    if start.startswith(("<!", "<html")):
        raise FormatError(
            "an HTML page, not a table",
            file=path,
            hint="Log in and download the file again; this is the login page.",
        )
    if "\0" in text:
        raise FormatError("binary data, not a text table", file=path, hint=ACCEPTED)
    return text


def _separator(path: Path, rows: pl.Series) -> tuple[str, int]:
    head = rows.head(50)
    best = ("", 0, 0)
    for separator in ("\t", ";", ","):
        counts = Counter((head.str.count_matches(separator, literal=True) + 1).to_list())
        width, share = counts.most_common(1)[0]
        if width >= 4 and share > best[2]:
            best = (separator, width, share)
    if not best[0]:
        raise FormatError(
            "no tab, semicolon or comma separates at least four cells",
            file=path,
            row=1,
            value=rows[0][:80],
            hint=ACCEPTED,
        )
    return best[0], best[1]


def _header(line: str, separator: str) -> tuple[str, ...] | None:
    """Return the cells of a header line, or None where a cell is a price."""
    cells = tuple(cell.strip(' \t"') for cell in line.split(separator))
    return None if any(_is_price(cell) for cell in cells) else cells


def _is_price(cell: str) -> bool:
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        return False
    return np.isfinite(value) and "." in cell.replace(",", ".")
