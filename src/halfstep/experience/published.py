"""The trajectory file of the published programs (``.bd``): read into a store, and written from one.

Little-endian: int32 count of trajectories; each int32 count of states and float32 discount; each state four blocks of
int32 length and float32 values:

    state      1080   120 bars, newest first; of bar t - b: close - open, high - open, low - open, volume / 1000, and
                      RSI, CCI, ATR, MACD, signal of bar t + 1 - b. For b = 0 that bar is still forming.
    account       8   `halfstep.market.state.NUMBERS` at the close of bar t; seconds in float32, so good to 128 s
    action        6   executed, netted
    reward        3   returns-to-go: r_i = R_i - discount R_{i+1} is what led to state i

The shift of the indicators by one bar is a defect of the published programs that any reader of their files has to
know. Their second reward component is the floating result with its sign inverted. Rewards are therefore not read:
they follow from the accounts, a gain being positive. A trajectory of n states gives n - 1 steps, because nothing is
recorded after its last action.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from halfstep import files
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rewards import relative_components
from halfstep.errors import StoreDamagedError, StoreError, StoreMismatchError
from halfstep.experience.episode import ACCOUNT_SIZE, Episode, Group, Indices
from halfstep.experience.store import EpisodeStore
from halfstep.market.bars import Bars
from halfstep.market.features import SETTLED, compute_features
from halfstep.market.indicators import atr, cci, macd, rsi

BARS, COLUMNS, PRICE_COLUMNS = 120, 9, 4
MOST_TRAJECTORIES, MOST_STATES = 500, 6500
SECONDS_OFF = 128
TOLERANCE = 1e-3
LEAST_SHARE = 0.99
_SIZES = {"state": BARS * COLUMNS, "account": 8, "action": 6, "reward": 3}
STATE = np.dtype(
    [part for name, size in _SIZES.items() for part in ((f"{name}_size", "<i4"), (name, "<f4", size))]
)
"""One state, 4,404 bytes."""
_GROUP = 16  # trajectories a shard

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What an export wrote and left out.

    Attributes:
        trajectories, states: written.
        left_out: episodes beyond the most that the published programs read.
        too_early: episodes that begin before 120 bars of features.
        cut: states beyond the most of a trajectory.
    """

    trajectories: int
    states: int
    left_out: int
    too_early: int
    cut: int


def read_buffer(path: Path) -> Iterator[tuple[float, npt.NDArray[Any]]]:
    """Return discount and states, ``(states,)`` of `STATE`, of each trajectory; one at a time is in memory.

    Raises:
        StoreDamagedError: the file is cut, or not such a file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        count = _number(path, stream, "<i4", "count of trajectories")
        for number in range(int(count)):
            length = int(_number(path, stream, "<i4", f"states of trajectory {number}"))
            discount = float(_number(path, stream, "<f4", f"discount of trajectory {number}"))
            if length < 0 or stream.tell() + length * STATE.itemsize > size:
                raise _broken(path, f"trajectory {number}: {length} states do not fit into {size} bytes")
            states = np.frombuffer(stream.read(length * STATE.itemsize), STATE)
            for name, expected in _SIZES.items():
                if (states[f"{name}_size"] != expected).any():
                    found = int(states[f"{name}_size"][states[f"{name}_size"] != expected][0])
                    raise _broken(path, f"trajectory {number}: {found} values of {name}, must be {expected}")
            if not 0 < discount <= 1 or not all(np.isfinite(states[name]).all() for name in _SIZES):
                raise _broken(
                    path, f"trajectory {number}: numbers that are not finite, or discount {discount}"
                )
            yield discount, states
        if stream.read(1):
            raise _broken(path, f"bytes follow the last of {int(count)} trajectories")


def buffer_discount(path: Path) -> float:
    """Return the discount of the first trajectory, rounded to what was meant before it became float32."""
    with path.open("rb") as stream:
        stream.seek(8)
        return float(f"{_number(path, stream, '<f4', 'discount'):.6g}")


def import_buffer(path: Path, store: EpisodeStore, bars: Bars) -> EpisodeStore:
    """Add every trajectory of at least two states to a store as an ``imported`` episode, and return the store.

    Raises:
        StoreDamagedError: see `read_buffer`.
        StoreMismatchError: the states are not of these bars.
    """
    expected = state_rows(bars)
    number, waiting = 0, list[tuple[int, npt.NDArray[Any]]]()
    for index, (_, states) in enumerate(read_buffer(path)):
        if len(states) >= 2:
            waiting.append((find_bars(path, index, states, bars, expected), states))
        if len(waiting) == _GROUP:
            store.write(f"i0-g{number}", _group(waiting, path, store))
            number, waiting = number + 1, []
    if waiting:
        store.write(f"i0-g{number}", _group(waiting, path, store))
    if not len(store):
        raise StoreError(f"{path}: no trajectory of two states or more. Nothing was imported.")
    return store


def find_bars(path: Path, index: int, states: npt.NDArray[Any], bars: Bars, expected: Floats) -> int:
    """Return the bar of the first state of a trajectory, proved by the features of all states.

    Args:
        expected: `state_rows` of the bars.

    Raises:
        StoreMismatchError: no bar at that time, or fewer than 99 % of the states hold these bars' features.
    """
    seconds, server = states["account"][:, 7].astype(np.float64), bars.server_time
    low, high = np.searchsorted(server, [seconds[0] - SECONDS_OFF, seconds[0] + SECONDS_OFF + 1])
    best, shares = -1, [0.0]
    for first in range(int(low), int(high)):
        at = first + np.arange(len(states))
        if at[-1] >= len(bars) or (np.abs(server[at] - seconds) > SECONDS_OFF).any() or first < BARS - 1:
            continue
        share = _share_of_equal(states["state"], at, expected)
        if share > max(shares):
            best = first
        shares.append(share)
    if max(shares) < LEAST_SHARE:
        raise StoreMismatchError(
            f"{path}: trajectory {index} begins at server second {seconds[0]:.0f}; {max(shares):.1%} of its "
            f"{len(states)} states hold the features of these bars ({bars.covers()}), must be {LEAST_SHARE:.0%}. "
            "Give the bars it was recorded on with --bars."
        )
    return best


def state_rows(bars: Bars) -> Floats:
    """Return what one bar adds to a state: prices of bar t and indicators of bar t + 1, ``(bars, 9)``.

    The last bar has no next one; its indicators are NaN.
    """
    features = compute_features(bars, "published9").values
    rows = features.copy()
    rows[:-1, PRICE_COLUMNS:] = features[1:, PRICE_COLUMNS:]
    rows[-1, PRICE_COLUMNS:] = np.nan
    return rows


def forming_indicators(bars: Bars, t: Indices) -> Floats:
    """Return RSI, CCI, ATR, MACD and signal at the first tick of the bar after t, ``(len(t), 5)``.

    That bar is one price so far, its open; after the last bar, the last close.
    """
    found = np.empty((len(t), COLUMNS - PRICE_COLUMNS), np.float32)
    for row, bar in enumerate(t.tolist()):
        past = slice(max(0, bar + 1 - SETTLED), bar + 1)
        price = bars.open[bar + 1] if bar + 1 < len(bars) else bars.close[bar]
        high, low, close = (np.append(column[past], price) for column in (bars.high, bars.low, bars.close))
        main, signal = macd(close)
        found[row] = (
            rsi(close)[-1],
            cci(high, low, close)[-1],
            atr(high, low, close)[-1],
            main[-1],
            signal[-1],
        )
    return found


def export_buffer(store: EpisodeStore, path: Path) -> ExportReport:
    """Write the episodes of a store as the published programs read them, at most 500 of 6,500 states each.

    Raises:
        StoreError: no episode can be written.
    """
    bars = store.bars()
    rows, least = state_rows(bars), compute_features(bars, "published9").first_valid + BARS - 1
    written = np.flatnonzero(store.first_bar >= least)
    chosen, cut, states = written[:MOST_TRAJECTORIES], 0, 0
    if not len(chosen):
        raise StoreError(
            f"{store.folder}: none of {len(store)} episodes begins at bar {least} or later, where a state of {BARS} "
            "bars is whole. Collect trajectories from there on."
        )
    used = np.unique(
        np.concatenate(
            [
                np.arange(a, a + n + 1)
                for a, n in zip(store.first_bar[chosen], store.length[chosen], strict=True)
            ]
        )
    )
    forming = forming_indicators(bars, used)
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(np.int32(len(chosen)).astype("<i4").tobytes())
        for number in chosen.tolist():
            episode = store.read(number)
            length = min(len(episode.bar) + 1, MOST_STATES)
            cut, states = cut + len(episode.bar) + 1 - length, states + length
            stream.write(np.array(length, "<i4").tobytes() + np.array(store.header.discount, "<f4").tobytes())
            stream.write(_states(episode, length, store.header.discount, bars, rows, used, forming).tobytes())
    return ExportReport(
        trajectories=len(chosen), states=states, left_out=len(written) - len(chosen),
        too_early=len(store) - len(written), cut=cut,
    )  # fmt: skip


def _states(
    episode: Episode, length: int, discount: float, bars: Bars, rows: Floats, used: Indices, forming: Floats
) -> npt.NDArray[Any]:
    """Return the states of an episode; the last one, after its last step, has no action."""
    states = np.zeros(length, STATE)
    for name, size in _SIZES.items():
        states[f"{name}_size"] = size
    bar = episode.bar[0] + np.arange(length)
    window = rows[bar[:, None] - np.arange(BARS)]  # newest first
    window[:, 0, PRICE_COLUMNS:] = forming[np.searchsorted(used, bar)]
    states["state"] = window.reshape(length, -1)
    states["account"][:, :ACCOUNT_SIZE] = episode.account[:length]
    states["account"][:, ACCOUNT_SIZE] = bars.server_time[bar]
    actions = min(length, len(episode.action))
    states["action"][:actions] = episode.action[:actions]
    to_go = np.zeros(3)
    for k in range(length - 1, -1, -1):
        to_go = (episode.reward[k - 1] if k else 0.0) + discount * to_go
        states["reward"][k] = to_go
    return states


def _group(waiting: list[tuple[int, npt.NDArray[Any]]], path: Path, store: EpisodeStore) -> Group:
    """Return trajectories as episodes; a change of volume counts as a deal, because deals are not recorded."""
    n, steps = len(waiting), max(len(states) for _, states in waiting) - 1
    floor = store.header.rules["floor_fraction"] * store.header.rules["deposit"]
    group = Group(
        first_bar=np.array([first for first, _ in waiting]), account=np.zeros((n, steps + 1, ACCOUNT_SIZE), np.float32),
        action=np.zeros((n, steps, 6), np.float32), reward=np.zeros((n, steps, 3), np.float32),
        mark=np.full((n, steps), Outcome.HELD, np.uint8), length=np.array([len(s) - 1 for _, s in waiting]),
        terminated=np.zeros(n, np.bool_), source=("imported",) * n, seed=np.full(n, -1),
        policy=(files.sha256(path),) * n, initial_balance=np.zeros(n), final_equity=np.zeros(n),
        trades=np.zeros(n, np.int64),
    )  # fmt: skip
    for row, (_, states) in enumerate(waiting):
        length, account = len(states) - 1, states["account"][:, :ACCOUNT_SIZE]
        money = account.astype(np.float64)
        change = np.diff(money[:, [0, 1, 1]], axis=0) * [1.0, 1.0, 0.0]  # idle bars were not charged
        traded = (np.diff(money[:, 2:4], axis=0) != 0).any(axis=1)
        group.account[row, : length + 1] = account
        group.action[row, :length] = states["action"][:-1]
        group.reward[row, :length] = relative_components(change, money[:-1, 0], floor)
        group.mark[row, :length][traded] = Outcome.FILLED
        group.initial_balance[row], group.final_equity[row] = money[0, 0], money[-1, 1]
        group.terminated[row] = money[-1, 1] <= floor
        group.trades[row] = traded.sum()
    return group


def _share_of_equal(found: Floats, at: Indices, expected: Floats) -> float:
    """Return the share of states whose features are those of the bars, in pieces of bounded size.

    Left out are the five indicators of the bar that was forming: they depend on the tick at which it was saved.
    """
    equal = 0
    for begin in range(0, len(at), 512):
        part = slice(begin, begin + 512)
        window = expected[at[part, None] - np.arange(BARS)]
        stored = found[part].reshape(window.shape)
        close = np.isclose(stored, window, rtol=TOLERANCE, atol=1e-7)
        close[:, 0, PRICE_COLUMNS:] = True
        equal += int(close.all(axis=(1, 2)).sum())
    return equal / len(at)


def _number(path: Path, stream: IO[bytes], kind: str, what: str) -> float:
    data = stream.read(4)
    if len(data) < 4:
        raise _broken(path, f"length: {os.fstat(stream.fileno()).st_size} bytes end before the {what}")
    return float(np.frombuffer(data, kind)[0])


def _broken(path: Path, what: str) -> StoreDamagedError:
    return StoreDamagedError(f"{path}: {what}. Give a buffer file (.bd) as the published programs save it.")
