"""Damage to files: what a reader must survive, and how its answer is judged."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from halfstep.errors import DataError, HalfstepError
from halfstep.market.bars import COLUMNS, Bars, check_columns
from halfstep.market.raw import ReadOptions
from halfstep.market.read import bars_of, raw_of

Mutation = Callable[[bytearray, np.random.Generator], bytearray]
REPAIR_SETS: tuple[tuple[str, ...], ...] = (
    (),
    (),
    (),
    ("drop-bad", "sort", "dedupe", "widen", "snap", "drop-days", "drop-last"),
    ("drop-bad",),
    ("sort", "widen"),
)
HUGE = (
    b"1e308",
    b"1.7976931348623157e308",
    b"9" * 25,
    b"-1",
    b"0",
    b"nan",
    b"inf",
    b"1e-320",
    b"2147483648",
    b"99999999999999",
)
SECONDS = 2.0


def _at(data: bytearray, random: np.random.Generator) -> int:
    return int(random.integers(0, max(1, len(data))))


def flip(data: bytearray, random: np.random.Generator) -> bytearray:
    if data:
        data[_at(data, random)] ^= 1 << int(random.integers(0, 8))
    return data


def set_byte(data: bytearray, random: np.random.Generator) -> bytearray:
    if data:
        data[_at(data, random)] = int(random.integers(0, 256))
    return data


def insert(data: bytearray, random: np.random.Generator) -> bytearray:
    letters = b"0123456789.,;:\t\r\n -+eE<>\"'/TZxKM\xa0\xc2\xff"
    at = _at(data, random)
    data[at:at] = bytes(letters[int(k)] for k in random.integers(0, len(letters), int(random.integers(1, 5))))
    return data


def delete(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _at(data, random)
    del data[at : at + int(random.integers(1, 20))]
    return data


def duplicate(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _at(data, random)
    data[at:at] = data[at : at + int(random.integers(1, 120))]
    return data


def duplicate_line(data: bytearray, random: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    k, j = (int(random.integers(0, len(lines))) for _ in range(2))
    return bytearray(b"\n".join([*lines[:j], lines[k], *lines[j:]]))


def swap_lines(data: bytearray, random: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    k, j = (int(random.integers(0, len(lines))) for _ in range(2))
    lines[k], lines[j] = lines[j], lines[k]
    return bytearray(b"\n".join(lines))


def drop_line(data: bytearray, random: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    del lines[int(random.integers(0, len(lines)))]
    return bytearray(b"\n".join(lines))


def swap_separators(data: bytearray, random: np.random.Generator) -> bytearray:
    a, b = (b",;\t."[int(k) : int(k) + 1] for k in random.integers(0, 4, 2))
    return bytearray(bytes(data).replace(a, b"\0").replace(b, a).replace(b"\0", b))


def truncate(data: bytearray, random: np.random.Generator) -> bytearray:
    del data[_at(data, random) :]
    return data


def nuls(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _at(data, random)
    data[at:at] = bytes(int(random.integers(1, 40)))
    return data


def huge_number(data: bytearray, random: np.random.Generator) -> bytearray:
    cells = bytes(data).replace(b"\t", b",").split(b",")
    cells[int(random.integers(0, len(cells)))] = HUGE[int(random.integers(0, len(HUGE)))]
    return bytearray(b",".join(cells))


def other_digit(data: bytearray, random: np.random.Generator) -> bytearray:
    places = [k for k, byte in enumerate(data) if 48 <= byte <= 57]
    if places:
        data[places[int(random.integers(0, len(places)))]] = 48 + int(random.integers(0, 10))
    return data


def encode_again(data: bytearray, random: np.random.Generator) -> bytearray:
    name = ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "cp1252")[int(random.integers(0, 5))]
    return bytearray(bytes(data).decode("latin-1").encode(name, errors="replace"))


def megabyte(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _at(data, random)
    filler = (b"1", b",", b"x", b" ", b"\n", b";1.1", b'"')[int(random.integers(0, 7))]
    data[at:at] = filler * (2**20 // len(filler))
    return data


SMALL: tuple[Mutation, ...] = (
    flip, set_byte, insert, delete, duplicate, duplicate_line, swap_lines, drop_line, swap_separators, truncate,
    nuls, huge_number, other_digit, other_digit, encode_again,
)  # fmt: skip
MEGABYTE_SHARE = 0.002  # of the files get a megabyte somewhere


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Return the file with one to five kinds of damage."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        changed = SMALL[int(random.integers(0, len(SMALL)))](changed, random)
    if random.random() < MEGABYTE_SHARE:
        changed = megabyte(changed, random)
    return bytes(changed)


def judge(name: str, data: bytes, repair: tuple[str, ...]) -> str:
    """Read a file and return ``bars`` or ``error``; raises AssertionError where neither is proper."""
    path = Path(name)
    begin = time.perf_counter()
    options = ReadOptions(symbol="EURUSD", repair=repair)
    answer: Bars | HalfstepError
    try:
        answer = bars_of(raw_of(path, data, options), options)
    except HalfstepError as error:
        answer = error
    seconds = time.perf_counter() - begin
    assert seconds < SECONDS, f"{seconds:.1f} s"
    if isinstance(answer, Bars):
        check_columns({column: getattr(answer, column) for column in COLUMNS})
        assert answer.time[0] >= -86_400
        assert answer.time[-1] < 4_133_980_800 + 86_400
        return "bars"
    text = str(answer)
    assert "\n" not in text, text
    assert len(text) < 2000, text
    assert isinstance(answer, DataError), repr(answer)
    assert answer.file == path, repr(answer)
    assert answer.hint, text
    assert answer.row is None or answer.row >= 1, text
    return "error"


def run(samples: dict[str, bytes], seed: int, count: int) -> dict[str, int]:
    """Judge ``count`` damaged files; a failure names sample, seed and number, which make the file again."""
    outcomes = {"bars": 0, "error": 0}
    names = sorted(samples)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        name = names[int(random.integers(0, len(names)))]
        data = mutate(samples[name], random)
        repair = REPAIR_SETS[int(random.integers(0, len(REPAIR_SETS)))]
        try:
            outcomes[judge(name, data, repair)] += 1
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}, number {number}, repair {repair}: {data[:300]!r}")
            raise
    return outcomes
