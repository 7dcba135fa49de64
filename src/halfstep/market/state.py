"""What a network is given at a bar: a window of features, the account as twelve numbers, time as harmonics.

The account arrives as eight plain numbers per account, in this order (`NUMBERS`): balance, equity, buy lots, sell
lots, buy profit, sell profit, discount, and the seconds of the server's clock at the open of the newest bar.
"""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.features import Features

WINDOW = 120  # bars
NUMBERS = (
    "balance",
    "equity",
    "buy_lots",
    "sell_lots",
    "buy_profit",
    "sell_profit",
    "discount",
    "server_seconds",
)
VECTOR_SIZE = 12
BOUND = 1e6

YEAR, MONTH, WEEK, DAY = 31_536_000, 2_592_000, 604_800, 86_400  # seconds


def windows(features: Features, t: npt.NDArray[np.int64], length: int = WINDOW) -> npt.NDArray[np.float32]:
    """Return the ``length`` rows that end at each bar t, ``(len(t), length, columns)``, in time order.

    Rows t - length + 1 to t, the oldest first, so that row -1 is bar t itself.

    Raises:
        CoverageError: a window begins before the first valid row or ends after the last.
    """
    t = np.asarray(t, np.int64)
    least = features.first_valid + length - 1
    outside = (t < least) | (t >= len(features.values))
    if outside.any():
        raise CoverageError(
            f"no window of {length} rows ends at bar {int(t[outside][0])}",
            hint=f"Windows end at bars {least} to {len(features.values) - 1}.",
        )
    return all_windows(features.values, length)[t - length + 1]


def all_windows(values: npt.NDArray[np.float32], length: int = WINDOW) -> npt.NDArray[np.float32]:
    """Return every window of consecutive rows as a view, ``(n - length + 1, length, columns)``; nothing is copied."""
    return sliding_window_view(values, length, axis=0).transpose(0, 2, 1)


def harmonic(
    seconds: npt.NDArray[np.int64], period: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return sine and cosine of 2 pi seconds / period, reduced in int64 before the angle is formed."""
    angle = 2 * np.pi * (seconds % period) / period
    return np.sin(angle), np.cos(angle)


def time_harmonics(seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return [sin year, cos month, sin week, sin day] of server seconds, ``(..., 4)``."""
    return np.stack(
        [
            harmonic(seconds, YEAR)[0],
            harmonic(seconds, MONTH)[1],
            harmonic(seconds, WEEK)[0],
            harmonic(seconds, DAY)[0],
        ],
        axis=-1,
    )


def account_vector(
    now: npt.NDArray[np.float64],
    previous: npt.NDArray[np.float64],
    *,
    floor: float,
    harmonics: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float32]:
    """Return what the network sees of the account, ``(..., 12)`` float32.

    With B, E the balance and equity now, PB, PE those one bar before, each at least ``floor``:

        [(B - PB)/PB, E/PB, (E - PE)/PE, buy lots, sell lots, buy profit/PB, sell profit/PB, discount/PB,
         sin year, cos month, sin week, sin day]          clipped to +-1e6

    Args:
        now: ``(..., 8)`` numbers of the account, see `NUMBERS`.
        previous: the same one bar before.
        floor: the account's ruin level, account currency, above 0.
        harmonics: `time_harmonics` of ``now``'s seconds, where the caller has them already.

    Raises:
        ConfigError: the floor is not above 0.
    """
    if not floor > 0:
        raise ConfigError(f"floor: {floor}, must be above 0: it divides.")
    out = np.empty((*now.shape[:-1], VECTOR_SIZE))
    balance = np.maximum(previous[..., 0], floor)
    equity = np.maximum(previous[..., 1], floor)
    out[..., 0] = (now[..., 0] - balance) / balance
    out[..., 1] = now[..., 1] / balance
    out[..., 2] = (now[..., 1] - equity) / equity
    out[..., 3:5] = now[..., 2:4]
    out[..., 5:8] = now[..., 4:7] / balance[..., None]
    out[..., 8:] = time_harmonics(now[..., 7].astype(np.int64)) if harmonics is None else harmonics
    return np.clip(out, -BOUND, BOUND).astype(np.float32)
