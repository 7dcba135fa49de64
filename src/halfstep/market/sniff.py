"""Bytes to a table of text cells: compression, encoding, separator and header are found out, never assumed silently."""

import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfstep.errors import FormatError, MissingInputError
from halfstep.market import _cells

MOST_BYTES = 4 * 2**30 - 1
SNIFFED_LINES = 50
LEAST_CELLS, MOST_CELLS = 4, 1000
CHUNK = 2**24
ACCEPTED = "Accepted are MetaTrader exports, CSV with a header (time, open, high, low, close) and Parquet, also as .gz."
NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_BINARY = {
    b"PK\x03\x04": "a .zip archive or an Excel workbook",
    b"PK\x05\x06": "an empty .zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"Rar!": "a .rar archive",
    b"7z\xbc\xaf": "a .7z archive",
    b"BZh": "a .bz2 archive",
    b"\xfd7zXZ": "an .xz archive",
    b"\x28\xb5\x2f\xfd": "a .zst archive",
    b"%PDF": "a PDF document",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))

Bounds = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Table:
    """Text cells by column.

    Attributes:
        text: the whole text as UTF-8 bytes, ``(size,)`` uint8.
        names: header cells as the file spells them, or None for a file without a header.
        header_line: physical line of the header, or of the first row.
        first, last: where each cell begins and ends in ``text``, ``(column, row)``.
        lines: physical line of each row, from 1, ``(row,)``.
        ragged_lines, ragged_counts: lines with another number of cells than the table, and that number.
        separator: the character between cells.
        encoding: how the file's bytes spell the text.
        sha256: of the file's bytes.
        ticker: symbol that a second header line names, or None.
    """

    text: npt.NDArray[np.uint8]
    names: tuple[str, ...] | None
    header_line: int
    first: Bounds
    last: Bounds
    lines: npt.NDArray[np.int64]
    ragged_lines: npt.NDArray[np.int64]
    ragged_counts: npt.NDArray[np.int64]
    separator: str
    encoding: str
    sha256: str
    ticker: str | None

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.first)

    def __len__(self) -> int:
        return len(self.lines)

    def cell(self, column: int, row: int) -> str:
        """Return the text of one cell."""
        return _text(self.text, int(self.first[column, row]), int(self.last[column, row]))


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes, or say what is wrong with it as a file."""
    if not path.exists():
        raise MissingInputError(f"no file at {path}. Check the path.")
    if path.is_dir():
        raise FormatError("this is a folder, not a file of bars", file=path, hint="Name the file inside.")
    if not path.is_file():
        raise FormatError("this is no plain file", file=path, hint=ACCEPTED)
    if path.stat().st_size > MOST_BYTES:
        raise FormatError("more than 4 GiB", file=path, hint="Split the file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"cannot be read: {error.strerror or error}", file=path, hint="Check its permissions."
        ) from None


def read_table(path: Path, data: bytes) -> Table:
    """Return the cells of a text file.

    Raises:
        FormatError: empty, binary, HTML, an archive, or no separator gives at least four cells.
    """
    text, encoding = _decoded(path, _decompressed(path, data))
    letters = np.frombuffer(text, np.uint8)
    letters.flags.writeable = False
    starts, ends, numbers = _cells.line_spans(letters)
    if len(numbers) == 0:
        raise FormatError("the file is empty", file=path, hint=ACCEPTED)
    separator = _separator(path, letters, starts, ends)
    if _cells.count_cells(letters, starts[:3], ends[:3], ord(separator)).max() > MOST_CELLS:
        raise FormatError(
            f"more than {MOST_CELLS} cells in a line", file=path, row=int(numbers[0]), hint=ACCEPTED
        )
    head = [_line(letters, starts[k], ends[k]) for k in range(min(3, len(numbers)))]
    names, skipped, ticker = _header(head, separator)
    counts = _cells.count_cells(letters, starts[skipped:], ends[skipped:], ord(separator))
    if len(counts) == 0:
        raise FormatError("the file holds a header and no bars", file=path, hint=ACCEPTED)
    width = len(names) if names is not None else Counter(counts[:SNIFFED_LINES].tolist()).most_common(1)[0][0]
    whole = counts == width
    first = np.empty((width, int(whole.sum())), np.uint32)
    last = np.empty_like(first)
    _cells.split_cells(letters, starts[skipped:][whole], ends[skipped:][whole], ord(separator), first, last)
    return Table(
        text=letters,
        names=names,
        header_line=int(numbers[0]),
        first=first,
        last=last,
        lines=numbers[skipped:][whole],
        ragged_lines=numbers[skipped:][~whole],
        ragged_counts=counts[~whole],
        separator=separator,
        encoding=encoding,
        sha256=hashlib.sha256(data).hexdigest(),
        ticker=ticker,
    )


def plain_name(name: str) -> str:
    """Return a header cell as it is compared: lower case, without ``<>"_.`` and blanks."""
    return "".join(
        character for character in name.lower() if character not in '<>"_.\ufeff' and not character.isspace()
    )


def shortened(text: str, most: int = 60) -> str:
    """Return a text of at most ``most`` characters for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: tuple[str, ...] | list[str], most: int = 20) -> str:
    """Return names for a message, each shortened, at most ``most`` of them."""
    return f"[{', '.join(repr(shortened(name, 24)) for name in names[:most])}{', ...' if len(names) > most else ''}]"


def _decompressed(path: Path, data: bytes) -> bytes | bytearray:
    kind = next((kind for magic, kind in _BINARY.items() if data.startswith(magic)), None)
    if kind is not None:
        raise FormatError(f"{kind}, not a table of bars", file=path, hint=f"Unpack or export it. {ACCEPTED}")
    if data[:2] != b"\x1f\x8b":
        return data
    plain = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while chunk := stream.read(CHUNK):
                plain += chunk
                if len(plain) > MOST_BYTES:
                    raise FormatError("more than 4 GiB when unpacked", file=path, hint="Split the file.")
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"a damaged or cut .gz file: {error}", file=path, hint="Copy it again.") from None
    return plain


def _decoded(path: Path, data: bytes | bytearray) -> tuple[bytes | bytearray, str]:
    """Return the text as UTF-8 without a byte order mark, and the encoding it came in."""
    encoding, data = next(
        ((name, data[len(mark) :]) for mark, name in _MARKS if data.startswith(mark)), ("", data)
    )
    head = np.frombuffer(data[:4096], np.uint8) == 0
    if not encoding and len(head) and head.mean() > 0.3:
        encoding = "utf-16-le" if head[1::2].sum() > head[0::2].sum() else "utf-16-be"
    if encoding.startswith("utf-16"):
        data = data.decode(encoding, errors="replace").encode("utf-8", errors="replace")
    elif not data.isascii():
        try:
            data.decode("utf-8")
            encoding = "utf-8"
        except UnicodeDecodeError:
            encoding = "cp1252"
            data = data.decode("cp1252", errors="replace").encode()
    start = bytes(data[:200]).lstrip()[:6].lower()
    if start.startswith((b"<!", b"<html", b"<?xml")):
        raise FormatError(
            "an HTML page, not a table", file=path, hint="Log in and download again; this is the login page."
        )
    if b"\0" in data:
        raise FormatError("binary data, not a text table", file=path, hint=ACCEPTED)
    return data, encoding or "ascii"


def _separator(
    path: Path, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> str:
    best, best_share = "", 0.5
    for separator in ("\t", ";", ","):
        counts = Counter(
            _cells.count_cells(text, starts[:SNIFFED_LINES], ends[:SNIFFED_LINES], ord(separator)).tolist()
        )
        width, lines = counts.most_common(1)[0]
        share = lines / counts.total()
        if LEAST_CELLS <= width <= MOST_CELLS and (
            share > best_share or (share == best_share == 0.5 and not best)
        ):
            best, best_share = separator, share
    if not best:
        raise FormatError(
            "no tab, semicolon or comma separates at least four cells",
            file=path,
            row=1,
            value=_line(text, starts[0], min(ends[0], starts[0] + 80)),
            hint=ACCEPTED,
        )
    return best


def _header(head: list[str], separator: str) -> tuple[tuple[str, ...] | None, int, str | None]:
    """Return the header's cells (None: there is none), how many lines it takes, and a symbol named in it."""
    rows = [[cell.strip(' \t"\u00a0') for cell in _split(line, separator)] for line in head]
    names = rows[0]
    if any(NUMBER.fullmatch(cell) for cell in names):
        return None, 0, None
    if len(rows) == 3 and rows[1][0] == "Ticker" and rows[2][0]:  # yfinance writes three lines
        return (rows[2][0], *names[1:]), 3, next((cell for cell in rows[1][1:] if cell), None)
    return tuple(names), 1, None


def _split(line: str, separator: str) -> list[str]:
    """Split one line as the compiled loop does: a separator inside quotes belongs to the cell."""
    text = np.frombuffer(line.encode(), np.uint8)
    cells, at = [], 0
    while at <= len(text):
        end = _cells.cell_end(text, at, len(text), ord(separator))
        cells.append(_text(text, at, end))
        at = end + 1
    return cells


def _line(text: npt.NDArray[np.uint8], start: int, end: int) -> str:
    return _text(text, int(start), int(end))


def _text(text: npt.NDArray[np.uint8], start: int, end: int) -> str:
    return text[start:end].tobytes().decode("utf-8", errors="replace")
