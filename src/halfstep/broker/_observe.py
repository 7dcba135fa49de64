"""What an account shows of itself, for many accounts in one compiled pass: plain Python, as `_kernel`."""

from numba import prange

from halfstep.broker._kernel import profit
from halfstep.broker._layout import (
    BALANCE,
    BAR,
    CLOSE,
    ENTRY,
    EQUITY,
    OPENED,
    POSITION_SIZE,
    PREVIOUS_BALANCE,
    PREVIOUS_EQUITY,
    PROFIT_RATE,
    R_FLOOR,
    R_LOT_STEP,
    R_STEP_MONEY,
    SPREAD,
    STEPS,
    SWAP,
    TIME,
)  # fmt: skip

DISCOUNT_SECONDS = 36_000.0
BOUND = 1e6
VECTOR_SIZE = 12


def observe_accounts(
    rules, base_point, table, server_time, harmonics, bar_seconds, floats, ints, numbers, vectors
):
    """Write the eight numbers and the twelve-number vector of each account, as of the close of its newest bar.

    Args (columns: see `_layout`):
        server_time, harmonics: ``(bars,)`` int64 and ``(bars, 4)`` float64; None where ``vectors`` is.
        bar_seconds: from a bar's open to its close.
        numbers: ``(accounts, 8)`` float64: balance, equity, buy lots, sell lots, buy profit, sell profit, discount,
            server seconds; profits at closing quotes, swap included.
        vectors: ``(accounts, 12)`` float32, see `halfstep.market.state.account_vector`; or None.
    """
    floor = rules[R_FLOOR]
    for k in prange(floats.shape[0]):
        bar = ints[k, BAR]
        unit = rules[R_STEP_MONEY] * table[bar, PROFIT_RATE]
        now = table[bar, TIME] + bar_seconds
        for column in range(2, 7):
            numbers[k, column] = 0.0
        for slot in range(2):
            at = slot * POSITION_SIZE
            steps = floats[k, STEPS + at]
            if steps != 0.0:
                d = 1.0 if steps > 0.0 else -1.0
                n = abs(steps)
                quote = table[bar, CLOSE] + (table[bar, SPREAD] if d < 0.0 else 0.0)
                gain = floats[k, SWAP + at] + profit(d, quote, floats[k, ENTRY + at], unit * n, base_point)
                age = now - floats[k, OPENED + at]
                column = 0 if d > 0.0 else 1
                numbers[k, 2 + column] = n * rules[R_LOT_STEP]
                numbers[k, 4 + column] = gain
                numbers[k, 6] += gain - age / DISCOUNT_SECONDS * abs(gain)
        numbers[k, 0] = floats[k, BALANCE]
        numbers[k, 1] = floats[k, EQUITY]
        numbers[k, 7] = server_time[bar]
        if vectors is not None:
            balance = max(floats[k, PREVIOUS_BALANCE], floor)
            equity = max(floats[k, PREVIOUS_EQUITY], floor)
            vectors[k, 0] = min(max((numbers[k, 0] - balance) / balance, -BOUND), BOUND)
            vectors[k, 1] = min(max(numbers[k, 1] / balance, -BOUND), BOUND)
            vectors[k, 2] = min(max((numbers[k, 1] - equity) / equity, -BOUND), BOUND)
            vectors[k, 3] = min(numbers[k, 2], BOUND)
            vectors[k, 4] = min(numbers[k, 3], BOUND)
            for column in range(3):
                vectors[k, 5 + column] = min(max(numbers[k, 4 + column] / balance, -BOUND), BOUND)
            for column in range(4):
                vectors[k, 8 + column] = harmonics[bar, column]
