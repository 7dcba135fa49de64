"""Compiled loops against the plain ones, and numbers against Python's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from halfstep.market import _cells
from halfstep.market.text import number

LETTERS = b'0123456789.,;:\t\r\n -+eE"/TZx\xa0\xc2'
texts = st.lists(st.sampled_from(list(LETTERS)), max_size=120).map(bytes)


def split(kernels: dict[str, Callable[..., Any]], data: np.ndarray, separator: int) -> list[Any]:
    starts, ends, numbers = kernels["line_spans"](data)
    counts = kernels["count_cells"](data, starts, ends, separator)
    width = int(counts[0]) if len(counts) else 0
    whole = counts == width
    first, last = (np.zeros((width, int(whole.sum())), np.uint32) for _ in range(2))
    kernels["split_cells"](data, starts[whole], ends[whole], separator, first, last)
    out: list[Any] = [starts, ends, numbers, counts, first, last]
    n = first.shape[1]
    if width:
        values, unread = np.zeros(n), np.zeros(n, bool)
        kernels["parse_numbers"](data, first[0], last[0], True, values, unread)
        form, parts, clock, offset = (
            np.zeros(n, np.int8),
            np.zeros((3, n), np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
        )
        kernels["parse_times"](
            data, first[0], last[0], first[-1][:0], last[-1][:0], form, parts, clock, offset
        )
        out += [values, unread, form, parts, clock, offset]
    return out


@given(texts, st.sampled_from([9, 44, 59]))
@example(b"2023.01.02 10:00\t1\r\n\t\r2023.01.02,11:00\t2", 9)
@example(b'"a;b";"c\n', 59)
def test_compiled_and_plain_loops_agree(text: bytes, separator: int) -> None:
    data = np.frombuffer(text, np.uint8)
    compiled = {name: getattr(_cells, name) for name in _cells.plain}
    for ours, theirs in zip(
        split(compiled, data, separator), split(dict(_cells.plain), data, separator), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@given(texts)
def test_lines_are_those_of_a_text_file(text: bytes) -> None:
    starts, ends, numbers = _cells.line_spans(np.frombuffer(text, np.uint8))
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    expected = [(k, line) for k, line in enumerate(lines, 1) if any(byte > 32 for byte in line)]
    assert [(int(n), text[a:b]) for a, b, n in zip(starts, ends, numbers, strict=True)] == expected


@given(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-(10**9), 10**9, places=5).map(float))
def test_numbers_are_those_of_python_to_the_bit(value: float) -> None:
    for text in (repr(value), f"{value:.5f}", f"{value:.17g}"):
        data = np.frombuffer(text.encode(), np.uint8)
        out, unread = np.zeros(1), np.zeros(1, bool)
        _cells.parse_numbers(data, np.array([0]), np.array([len(data)]), False, out, unread)
        ours = number(text, decimal_comma=False) if unread[0] else out[0]
        assert ours == float(text), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4 694.88", 4694.88), ("4\u00a0694.88", 4694.88), ("1e-3", 0.001), ("+1.5", 1.5), (".5", 0.5), ("5.", 5.0),
        ("12.5K", 12500.0), ("1.2M", 1.2e6), ("abc", None), ("", None), ("1.2.3", None), ("1_000", None), ("--1", None),
        ("1,234", None), ("１２", None), ("0x10", None), ("1e", None), ("9" * 500, None), ("1 .5", None), ("K", None),
    ],
)  # fmt: skip
def test_numbers_that_are_not_plain(text: str, value: float | None) -> None:
    assert number(text, decimal_comma=False) == value


def test_a_decimal_comma_is_a_point() -> None:
    assert number("1,5", decimal_comma=True) == 1.5
    assert number("1.234,5", decimal_comma=True) is None
    assert np.isnan(number("nan", decimal_comma=True))  # type: ignore[arg-type]
