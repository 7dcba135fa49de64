"""Both ends of an export: daily bars under an hourly stamp at its head, an unfinished bar at its tail."""

import numpy as np
import numpy.typing as npt

from halfstep.market.timeframes import DAY, HOUR

HEAD_BARS, HEAD_REFERENCE, HEAD_LEAST = 10, 500, 20
HEAD_VOLUME, HEAD_RANGE, HEAD_RANGE_ALONE = 6.0, 2.5, 6.0
TAIL_BARS, TAIL_LEAST, TAIL_SHARE = 20, 5, 0.25

Values = npt.NDArray[np.float64]


def first_days(high: Values, low: Values, volume: Values) -> npt.NDArray[np.int64]:
    """Return which of the first 10 bars look like whole days.

    Their volume is above 6 times the median of bars 11 to 510, and their range above 2.5 times; without volumes the
    range is above 6 times. A day of EURUSD, GBPUSD or USDJPY spans only about six median hours: asking its range for
    as much as its volume would miss half of them. Fewer than 20 bars after the first 10 tell nothing.
    """
    after = slice(HEAD_BARS, HEAD_BARS + HEAD_REFERENCE)
    reach = high - low
    if len(reach) < HEAD_BARS + HEAD_LEAST:
        return np.zeros(0, np.int64)
    has_volume = bool(volume.any())
    strange = reach[:HEAD_BARS] > (HEAD_RANGE if has_volume else HEAD_RANGE_ALONE) * np.median(reach[after])
    if has_volume:
        strange &= volume[:HEAD_BARS] > HEAD_VOLUME * np.median(volume[after])
    return np.flatnonzero(strange)


def leading_days(high: Values, low: Values, volume: Values) -> int:
    """Return how many bars the head loses to ``drop-days``: all up to the first that is no whole day."""
    found = first_days(high, low, volume)
    return int((found == np.arange(len(found))).sum()) if len(found) and found[0] == 0 else 0


def last_bar_share(server: npt.NDArray[np.int64], volume: Values) -> float | None:
    """Return the last bar's volume as a share of the median of the 20 bars before at the same hour.

    None where fewer than 5 such bars or no volumes tell.
    """
    hour = server % DAY // HOUR
    same = np.flatnonzero(hour[:-1] == hour[-1])[-TAIL_BARS:]
    usual = float(np.median(volume[same])) if len(same) >= TAIL_LEAST else 0.0
    return float(volume[-1]) / usual if usual > 0 else None
