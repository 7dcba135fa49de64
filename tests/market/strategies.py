"""Valid bars for hypothesis."""

import numpy as np
from hypothesis import strategies as st

from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.timeframes import Timeframe

START = parse_date("2022-01-03")
ZONES = ("UTC", "server-eu", "server-us", "est", "Asia/Kolkata")


@st.composite
def valid_bars(
    draw: st.DrawFn,
    least: int = 1,
    most: int = 200,
    frames: tuple[Timeframe, ...] = (Timeframe.M1, Timeframe.M15, Timeframe.H1, Timeframe.H4),
) -> Bars:
    """Return bars on the grid with holes, zero spreads, flat bars and whole volumes."""
    n, seed = draw(st.integers(least, most)), draw(st.integers(0, 2**31))
    frame = draw(st.sampled_from(frames))
    digits = draw(st.sampled_from([0, 2, 3, 5]))
    random = np.random.Generator(np.random.Philox(seed))
    level = 10_000 if digits == 0 else 100_000
    close = np.maximum(level + np.cumsum(np.rint(random.normal(0, 20, n))), 500)
    opened = np.maximum(np.concatenate([[level], close[:-1]]) + np.rint(random.normal(0, 2, n)), 400)
    wicks = np.rint(np.abs(random.normal(0, 15, (2, n)))) * (random.random((2, n)) < 0.8)
    steps = 1 + random.geometric(0.98, n) - 1
    zone = ServerZone(draw(st.sampled_from(ZONES)))
    points = {
        "open": opened,
        "high": np.maximum(opened, close) + wicks[0],
        "low": np.minimum(opened, close) - wicks[1],
        "close": close,
    }
    return Bars(
        time=START + np.cumsum(steps) * frame.seconds,
        **{name: path / 10.0**digits for name, path in points.items()},
        volume=np.rint(np.exp(random.normal(5, 2, n))),
        spread=random.integers(-1, 30, n).astype(np.int32),
        symbol="TEST",
        timeframe=frame,
        digits=digits,
        side=draw(st.sampled_from(["bid", "ask"])),
        zone=zone,
        volume_kind="tick",
    )
