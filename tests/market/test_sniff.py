"""Encodings, separators, headers, line ends and packing change nothing; what is no table is named."""

import gzip
import itertools
from pathlib import Path

import pytest

from halfstep import errors
from halfstep.market.read import read_bars

ROWS = [
    ("2022.01.03", "00:00:00", "1.13693", "1.13742", "1.13645", "1.13726", "571"),
    ("2022.01.03", "01:00:00", "1.13725", "1.13778", "1.13687", "1.13728", "1345"),
    ("2022.01.03", "02:00:00", "1.13728", "1.13759", "1.13608", "1.13622", "1054"),
]
HEADER = ("<DATE>", "<TIME>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>")
ENCODINGS = {
    "ascii": lambda text: text.encode("ascii"),
    "utf-8 with mark": lambda text: text.encode("utf-8-sig"),
    "utf-16-le with mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "utf-16-be with mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
}
ENDS = {"lf": "\n", "crlf": "\r\n", "cr": "\r", "mixed": None}


def text_of(rows: list[tuple[str, ...]], separator: str, ends: str | None) -> str:
    marks = itertools.cycle(["\n", "\r\n", "\r"]) if ends is None else itertools.repeat(ends)
    return "".join(separator.join(row) + mark for row, mark in zip(rows, marks, strict=False))


@pytest.mark.pitfall("D8")
@pytest.mark.parametrize("separator", ["\t", ";", ","], ids=["tab", "semicolon", "comma"])
@pytest.mark.parametrize("has_header", [True, False], ids=["header", "no header"])
def test_every_spelling_of_a_file_gives_the_same_bars(
    tmp_path: Path, separator: str, has_header: bool
) -> None:
    hashes = set()
    path = tmp_path / "EURUSD_H1.csv"
    rows = [HEADER, *ROWS] if has_header else ROWS
    for ends, encode in itertools.product(ENDS.values(), ENCODINGS.values()):
        for quoted, comma, packed in itertools.product([False, True], repeat=3):
            if comma and separator == ",":
                continue
            cells = [
                tuple(cell.replace(".", ",") if comma and k > 1 else cell for k, cell in enumerate(row))
                for row in rows
            ]
            cells = [tuple(f'"{cell}"' if quoted else cell for cell in row) for row in cells]
            data = encode(text_of(cells, separator, ends))
            path.write_bytes(gzip.compress(data) if packed else data)
            hashes.add(read_bars(path).hash)
    assert len(hashes) == 1
    path.write_text(text_of([HEADER, *ROWS], "\t", "\n"))
    assert read_bars(path).hash in hashes


def test_blank_lines_and_blanks_around_cells_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(text_of([HEADER, *ROWS], "\t", "\n"))
    expected = read_bars(path).hash
    path.write_text("\n\n" + text_of([HEADER, *ROWS], " \t ", "\n \n") + "\n\n")
    assert read_bars(path).hash == expected


def test_a_separator_inside_quotes_belongs_to_the_cell(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    rows = [
        ("time", "open", "high", "low", "close", "note"),
        *((f'"2022-01-03 0{k}:00Z"', "1.1", "1.2", "1.0", "1.1", '"a,b"') for k in range(3)),
    ]
    path.write_text(text_of(rows, ",", "\n"))
    bars = read_bars(path)
    assert len(bars) == 3
    assert "columns not used: note" in bars.report.notes


def test_a_thai_excel_file_reads_like_the_original(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(text_of([HEADER, *ROWS], ",", "\n"))
    expected = read_bars(path).hash
    header = ("<DATE>", *HEADER)
    rows = [(row[0], "จันทร์", row[1].removeprefix("0"), *row[2:]) for row in ROWS]
    path.write_bytes(text_of([header, *rows], ",", "\n").encode("cp874"))
    bars = read_bars(path)
    assert bars.hash == expected
    assert "encoding cp1252" in bars.report.notes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \r\n\t\n", "the file is empty"),
        (b"time,open,high,low,close\n", "a header and no bars"),
        (b"<!DOCTYPE html><html></html>", "an HTML page, not a table.*log in|an HTML page.*Log in and download again"),
        (b"\xef\xbb\xbf\n <html><body>", "an HTML page"),
        (b"PK\x03\x04zip", "a .zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
        (b"\x80\x04\x95pickle", "a pickle"),
        (b"\x1f\x8b\x08\x00cut", "a damaged or cut .gz file"),
        (b"PAR1 cut", "a damaged Parquet file"),
        (b"time,open,high,low\0,close\n" * 30, "binary data"),
        (b"just words\nand more of them\n", "no tab, semicolon or comma"),
        (b",".join([b"1"] * 2000) + b"\n", "no tab, semicolon or comma"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_bars_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_bytes(content)
    with pytest.raises(errors.FormatError, match=words) as caught:
        read_bars(path)
    assert caught.value.file == path
    assert caught.value.hint


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingInputError, match="no file at"):
        read_bars(tmp_path / "absent.csv")
    with pytest.raises(errors.FormatError, match="this is a folder"):
        read_bars(tmp_path)


def test_a_trade_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD.csv"
    path.write_text(
        "Time;Type;Volume;Symbol;Price;S/L;T/P;Time;Price;Commission;Swap;Profit\n" + "x;" * 11 + "x\n"
    )
    with pytest.raises(errors.FormatError, match=r"a trade history.*signal reader of halfstep\.experience"):
        read_bars(path)
