"""What bars are of: symbol, digits and timeframe, from what the file says, its name and its rows."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halfstep.errors import TimeError
from halfstep.market.instruments import PRESETS, is_pair
from halfstep.market.timeframes import DAY, Timeframe

UNKNOWN_SYMBOL = "UNKNOWN"
SPARE_DIGITS = 8
FEW_STEPS = 3
NOISE = 1e-7  # of a price: what float32 leaves
_FRAMES = "|".join(frame.name for frame in sorted(Timeframe, key=lambda frame: -len(frame.name)))
_FRAME_IN_NAME = re.compile(rf"(?<![A-Z0-9])({_FRAMES})(?![A-Z0-9])", re.IGNORECASE)
_LEADING_SYMBOL = re.compile(rf"([A-Z0-9.#&-]{{2,16}})[_ ](?:{_FRAMES})(?![A-Z0-9])", re.IGNORECASE)


def symbol_of(path: Path, ticker: str | None = None) -> str:
    """Return the symbol that a file names: in its header, or in its name; `UNKNOWN_SYMBOL` where there is none.

    >>> symbol_of(Path("EURUSDm_H1.csv")), symbol_of(Path("US30_M15_2023.csv")), symbol_of(Path("bars.csv"))
    ('EURUSD', 'US30', 'UNKNOWN')
    """
    for text in (ticker or "", path.name):
        letters = text.upper()
        known = [symbol for symbol in PRESETS if symbol in letters]
        if len(known) == 1:
            return known[0]
        pairs: set[str] = {pair for pair in re.findall(r"(?=([A-Z]{6}))", letters) if is_pair(pair)}
        if len(pairs) == 1:
            return pairs.pop()
    if ticker and re.fullmatch(r"[A-Z0-9.=^-]{1,16}", ticker.upper(), re.ASCII):
        return ticker.upper()
    leading = _LEADING_SYMBOL.match(path.name)
    return leading[1].upper() if leading else UNKNOWN_SYMBOL


def digits_of(prices: npt.NDArray[np.float64]) -> int:
    """Return the fewest decimals that hold 99 % of the prices."""
    prices = prices[np.isfinite(prices)]
    for digits in range(SPARE_DIGITS):
        scaled = prices * 10.0**digits
        if len(prices) and (np.abs(scaled - np.rint(scaled)) <= NOISE * scaled).mean() >= 0.99:
            return digits
    return SPARE_DIGITS


def timeframe_in_name(path: Path) -> Timeframe | None:
    """Return the one timeframe that a file's name holds as a word (``_H1_``), or None."""
    found = {name.upper() for name in _FRAME_IN_NAME.findall(path.name)}
    return Timeframe[found.pop()] if len(found) == 1 else None


def timeframe_of(
    path: Path, server: npt.NDArray[np.int64], given: Timeframe | str | None, lines: npt.NDArray[Any]
) -> Timeframe:
    """Return the timeframe of rising times: the given one, else the file name's, else the most frequent step.

    Args:
        server: seconds on the clock of the file, at each bar's open.
        lines: physical line of each bar, for messages.

    Raises:
        TimeError: the steps contradict the name, no timeframe has the most frequent step, or it covers less than
            half of all steps.
    """
    named = Timeframe.parse(given) if given is not None else timeframe_in_name(path)
    if len(server) < 2:
        if named is None:
            raise TimeError("one bar tells no timeframe", file=path, row=int(lines[0]), hint=_FRAME_HINT)
        return named
    steps, first, counts = np.unique(np.diff(server), return_index=True, return_counts=True)
    usual, share = int(steps[counts.argmax()]), float(counts.max() / counts.sum())
    frame = _frame_of_step(usual)
    row = int(lines[first[counts.argmax()] + 1])
    if given is not None and named is not None:
        if usual < _least_step(named):
            raise TimeError(
                f"the usual step between bars is {usual} s, shorter than the given timeframe {named.name}",
                file=path,
                row=row,
                hint="Leave timeframe= out, or give the one of the file.",
            )
        return named
    if named is not None and len(server) <= FEW_STEPS and usual % named.seconds == 0:
        return named  # a cut of two or three bars beside a hole contradicts nothing
    if named is not None and frame is not named and share >= 0.5:
        raise TimeError(
            f"the file's name says {named.name}, but the usual step between bars is {usual} s ({share:.0%} of them)",
            file=path,
            row=row,
            hint=_FRAME_HINT,
        )
    if frame is None or share < 0.5:
        odd = np.diff(server) != (named.seconds if named else usual)
        raise TimeError(
            f"irregular times: the most frequent step between bars is {usual} s ({share:.0%} of them)",
            file=path,
            row=int(lines[int(odd.argmax()) + 1]) if odd.any() else row,
            hint=_FRAME_HINT,
        )
    return frame


_FRAME_HINT = "Say the timeframe with timeframe= (command line: --timeframe), or export one timeframe."


def _frame_of_step(seconds: int) -> Timeframe | None:
    if 28 * DAY <= seconds <= 31 * DAY:
        return Timeframe.MN1
    return next((frame for frame in Timeframe if frame.seconds == seconds), None)


def _least_step(frame: Timeframe) -> int:
    return 28 * DAY if frame is Timeframe.MN1 else frame.seconds
