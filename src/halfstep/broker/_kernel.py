"""The transition of accounts over one bar: plain Python, compiled by `halfstep.broker.engine`.

One long straight function, because the compiler unpacks arguments at every call: rules cut into helpers that
pass tuples run at a third of the speed. Un-jitted it is the reference; compiled for one account and for a batch
it gives equal bits: float64, no fast-math, no reduction across accounts.

Units: prices in whole points (only an average entry may be fractional), volumes in lot steps, money in account
currency. For a position of side d (+1 long, -1 short) with closing quote q (long: bid, short: ask) and n steps,
profit = d (q - entry) u n rate, u = money of one point and step.
"""

import math

from numba import prange
from numba.extending import register_jitable

from halfstep.broker.table import (
    ATR,
    CLOSE,
    COLOUR,
    HIGH,
    LOW,
    MARGIN_RATE,
    NIGHTS,
    OPEN,
    PROFIT_RATE,
    SPREAD,
    TIME,
)

# Columns of the rules vector
(
    R_STEP_MONEY,
    R_LOT_STEP,
    R_MIN_STEPS,
    R_CAP_STEPS,
    R_LEVEL_SCALE,
    R_MIN_DISTANCE,
    R_COMMISSION,
    R_SLIPPAGE,
    R_MARGIN_FACTOR,
    R_POINT,
    R_STOP_OUT,
    R_FLOOR,
    R_INTRABAR,
    R_GAP_FILL,
    R_ZERO_IS_NONE,
    R_CLOSE_AT_END,
    R_RATE_MODE,
    R_SWAP_LONG,
    R_SWAP_SHORT,
    R_SWAP_PERCENT,
    R_IDLE_MONEY,
    R_PER_10K,
    R_HOLD_BAND,
) = range(23)
RULES_SIZE = 23

QUOTE_IS_ACCOUNT, BASE_IS_ACCOUNT, RATES_GIVEN = 0, 1, 2
STOP_FIRST, TARGET_FIRST, ADAPTIVE, MT5_OHLC = 0, 1, 2, 3
CONSERVATIVE, MARKET, LEVEL = 0, 1, 2

# Columns of the float and integer state
BALANCE, EQUITY, EQUITY_WORST, MARGIN, ENTRY, SL, TP, SWAP, OPENED = range(9)
FLOATS = 9
STEPS, BAR, STOP, STATUS, AMBIGUOUS, DEALS = range(6)  # STEPS is signed: positive long, negative short
INTS = 6

# Columns of the output: reward, three components, six numbers of the executed action
REWARD, COMPONENTS, EXECUTED = 0, 1, 4
OUTPUTS = 10

# Columns of a deal
(
    D_BAR,
    D_PHASE,
    D_SIDE,
    D_IS_OUT,
    D_REASON,
    D_STEPS,
    D_PRICE,
    D_ENTRY,
    D_SPREAD,
    D_SLIPPAGE,
    D_COMMISSION,
    D_SWAP,
    D_PROFIT,
    D_BALANCE,
    D_AMBIGUOUS,
    D_SL,
    D_TP,
) = range(17)
DEAL_SIZE = 17

FILLED, NONFINITE, STOPPED_OUT, BELOW_MIN_LOT, TP_TOO_CLOSE, SL_TOO_CLOSE, NO_MONEY, HELD = range(8)
NETTED, CAPPED, SL_KEPT, LEVEL_DROPPED, CLOSED_BY_CHECK = 1, 2, 4, 8, 16
# of a deal, as the numbers of `Reason` and `Phase`; floats, because a deal is recorded as floats
BY_ACTION, BY_SL, BY_TP, BY_STOP_OUT, BY_END = 0.0, 1.0, 2.0, 3.0, 4.0
AT_OPEN, AT_ACTION, AT_INSIDE, AT_END = 1.0, 2.0, 3.0, 4.0
FAR = 1e18  # a level that is not set
GRID_NOISE = 1e-7


@register_jitable
def _profit(d, price, entry, money, rate_mode, rate, point):
    """Return the profit of a side closed at ``price``; ``money`` is that of one point."""
    if rate_mode == BASE_IS_ACCOUNT:
        rate = 1.0 / (price * point)
    return d * (price - entry) * money * rate


@register_jitable
def _stop_out_level(d, entry, money, rate_mode, rate, point, loss):
    """Return the grid price at which the profit first reaches ``loss`` (below 0), rounded away from profit."""
    if rate_mode == BASE_IS_ACCOUNT:
        k = money / point
        if k - d * loss <= 0.0:
            return -d * FAR
        level = entry * k / (k - d * loss)
    else:
        level = entry + d * loss / (money * rate)
    if d > 0:
        return math.floor(level + GRID_NOISE) * 1.0
    return math.ceil(level - GRID_NOISE) * 1.0


@register_jitable
def _record(log, counts, k, deal):
    """Append one deal of account ``k``; beyond the log's capacity it is only counted."""
    at = counts[k]
    if at < log.shape[1]:
        for column in range(DEAL_SIZE):
            log[k, at, column] = deal[column]
    counts[k] = at + 1


def step_accounts(rules, table, floats, ints, actions, outputs, marks, outcomes, log, log_counts):
    """Move every running account over its next bar.

    Args:
        rules: ``(23,)`` float64, see the R_ names.
        table: ``(bars, 11)`` float64, see `MarketTable`.
        floats, ints: ``(accounts, 9)`` float64 and ``(accounts, 6)`` int64: the state, changed in place.
        actions: ``(accounts, 6)`` float64.
        outputs: ``(accounts, 10)`` float64, written.
        marks: ``(accounts, 2)`` uint8: outcome and flags, written.
        outcomes: ``(accounts, 13)`` int64: counts of the eight outcomes and the five flags, added to.
        log, log_counts: ``(accounts, capacity, 17)`` float64 and ``(accounts,)`` int64; capacity 0 = no log.
    """
    step_money = rules[R_STEP_MONEY]
    lot_step = rules[R_LOT_STEP]
    min_steps = rules[R_MIN_STEPS]
    cap_steps = rules[R_CAP_STEPS]
    scale = rules[R_LEVEL_SCALE]
    min_distance = rules[R_MIN_DISTANCE]
    commission = rules[R_COMMISSION]
    slippage = rules[R_SLIPPAGE]
    margin_factor = rules[R_MARGIN_FACTOR]
    point = rules[R_POINT]
    stop_out = rules[R_STOP_OUT]
    floor = rules[R_FLOOR]
    intrabar = rules[R_INTRABAR]
    gap_fill = rules[R_GAP_FILL]
    zero_is_none = rules[R_ZERO_IS_NONE] > 0.0
    rate_mode = rules[R_RATE_MODE]
    has_log = log.shape[1] > 0

    for k in prange(floats.shape[0]):
        for column in range(OUTPUTS):
            outputs[k, column] = 0.0
        marks[k, 0] = HELD
        marks[k, 1] = 0
        if ints[k, STATUS] != 0:
            continue

        i = ints[k, BAR] + 1
        bid_open = table[i, OPEN]
        spread = table[i, SPREAD]
        bid_high = table[i, HIGH]
        bid_low = table[i, LOW]
        bid_close = table[i, CLOSE]
        rate = table[i, PROFIT_RATE]
        balance = floats[k, BALANCE]
        balance_before = balance
        equity_before = floats[k, EQUITY]
        entry = floats[k, ENTRY]
        sl = floats[k, SL]
        tp = floats[k, TP]
        swap = floats[k, SWAP]
        opened = floats[k, OPENED]
        margin = floats[k, MARGIN]
        held = ints[k, STEPS]
        ambiguous = 0.0
        deals = 0
        acted = False
        stopped_out = False
        outcome = HELD
        flags = 0
        d = 0.0
        if held > 0:
            d = 1.0
        elif held < 0:
            d = -1.0
        n = abs(held) * 1.0
        # quotes at which the held side closes are bid + ask_part
        ask_part = spread if d < 0 else 0.0

        # 1. Rollover
        if n > 0.0 and table[i, NIGHTS] != 0.0:
            swap_rate = rules[R_SWAP_LONG] if d > 0 else rules[R_SWAP_SHORT]
            quote = bid_open + ask_part
            per_step = swap_rate * step_money
            if rules[R_SWAP_PERCENT] > 0.0:
                per_step = swap_rate / 100.0 / 360.0 * quote * step_money
            conversion = 1.0 / (quote * point) if rate_mode == BASE_IS_ACCOUNT else rate
            swap += per_step * n * table[i, NIGHTS] * conversion

        # 2. Opening quote: levels that the open has already passed
        if n > 0.0:
            quote = bid_open + ask_part
            stop_level = sl if sl > 0.0 else -d * FAR
            ruin_level = _stop_out_level(
                d, entry, step_money * n, rate_mode, rate, point, stop_out * margin - balance - swap
            )
            reason = BY_SL
            level = stop_level
            if d * ruin_level > d * stop_level:
                reason = BY_STOP_OUT
                level = ruin_level
            price = 0.0
            slip = 0.0
            if d * quote <= d * level:
                price = level if gap_fill == LEVEL and reason == BY_SL else quote
                slip = slippage
                price -= d * slip
            elif tp > 0.0 and d * quote >= d * tp:
                reason = BY_TP
                price = quote if gap_fill == MARKET else tp
            if price != 0.0:
                gain = _profit(d, price, entry, step_money * n, rate_mode, rate, point)
                fee = commission * n
                balance += gain + swap - fee
                deals += 1
                if has_log:
                    _record(
                        log, log_counts, k,
                        (i * 1.0, AT_OPEN, d, 1.0, reason, n, price, entry, spread, slip, fee, swap, gain, balance, 0.0, sl, tp),
                    )  # fmt: skip
                stopped_out = reason == BY_STOP_OUT
                n = 0.0
                d = 0.0
                swap = 0.0
                margin = 0.0

        # 3. The action, at the open
        a0 = actions[k, 0]
        a1 = actions[k, 1]
        a2 = actions[k, 2]
        a3 = actions[k, 3]
        a4 = actions[k, 4]
        a5 = actions[k, 5]
        if stopped_out:
            outcome = STOPPED_OUT
        elif not (
            math.isfinite(a0)
            and math.isfinite(a1)
            and math.isfinite(a2)
            and math.isfinite(a3)
            and math.isfinite(a4)
            and math.isfinite(a5)
        ):
            outcome = NONFINITE
        else:
            buy = max(a0, 0.0)
            sell = max(a3, 0.0)
            if rules[R_PER_10K] > 0.0:
                buy = buy * equity_before / 10_000.0
                sell = sell * equity_before / 10_000.0
            if buy > 0.0 and sell > 0.0:
                flags |= NETTED
                smaller = min(buy, sell)
                buy -= smaller
                sell -= smaller
            e = 0.0
            volume = 0.0
            tp_fraction = a1
            sl_fraction = a2
            if buy > 0.0:
                e = 1.0
                volume = buy
            elif sell > 0.0:
                e = -1.0
                volume = sell
                tp_fraction = a4
                sl_fraction = a5
            target = 0.0
            refusal = HELD
            if volume > 0.0:
                wanted = volume / lot_step
                if wanted < min_steps - 1e-6:
                    refusal = BELOW_MIN_LOT
                else:
                    target = max(math.floor(wanted + 0.5 + 1e-6) * 1.0, min_steps)
                    if target > cap_steps:
                        target = cap_steps
                        flags |= CAPPED
            new_tp = 0.0
            new_sl = 0.0
            if target > 0.0:
                tp_points = math.floor(tp_fraction * scale + 0.5) * 1.0
                sl_points = math.floor(sl_fraction * scale + 0.5) * 1.0
                if tp_points <= min_distance and not (zero_is_none and tp_points == 0.0):
                    refusal = TP_TOO_CLOSE
                    target = 0.0
                elif sl_points <= min_distance + spread and not (zero_is_none and sl_points == 0.0):
                    refusal = SL_TOO_CLOSE
                    target = 0.0
                else:
                    quote = bid_open + spread if e > 0 else bid_open
                    if tp_points > 0.0:
                        new_tp = quote + e * tp_points
                    if sl_points > 0.0:
                        new_sl = quote - e * sl_points
                    if (tp_points > 0.0 and new_tp <= 0.0) or (sl_points > 0.0 and new_sl <= 0.0):
                        flags |= LEVEL_DROPPED
                        new_tp = max(new_tp, 0.0)
                        new_sl = max(new_sl, 0.0)
            if n > 0.0 and e == d and target > 0.0 and abs(target - n) <= rules[R_HOLD_BAND]:
                target = n

            # reductions first
            reduction = 0.0
            if n > 0.0:
                if target == 0.0 or e != d:
                    reduction = n
                    if target == 0.0 and refusal != HELD:
                        flags |= CLOSED_BY_CHECK
                elif target < n:
                    reduction = n - target
            if reduction > 0.0:
                price = bid_open + ask_part - d * slippage
                gain = _profit(d, price, entry, step_money * reduction, rate_mode, rate, point)
                fee = commission * reduction
                share = swap * reduction / n
                balance += gain + share - fee
                swap -= share
                deals += 1
                acted = True
                if has_log:
                    _record(
                        log, log_counts, k,
                        (i * 1.0, AT_ACTION, d, 1.0, BY_ACTION, reduction, price, entry, spread, slippage, fee, share, gain, balance, 0.0, sl, tp),
                    )  # fmt: skip
                n -= reduction
                if n == 0.0:
                    d = 0.0
                    swap = 0.0
            if n > 0.0 and target > 0.0:
                tp = new_tp
                if new_sl > 0.0 and (sl == 0.0 or d * new_sl > d * sl):
                    sl = new_sl
                elif new_sl != sl:
                    flags |= SL_KEPT

            # then the increase
            if target > n:
                increase = target - n
                price = (bid_open + spread if e > 0 else bid_open) + e * slippage
                new_entry = (entry * n + price * increase) / target
                if rate_mode == QUOTE_IS_ACCOUNT:
                    needed = margin_factor * target * new_entry * point
                else:
                    needed = margin_factor * target * table[i, MARGIN_RATE]
                fee = commission * increase
                quote = bid_open if e > 0 else bid_open + spread
                free = balance
                if n > 0.0:
                    free += swap + _profit(e, quote, entry, step_money * n, rate_mode, rate, point)
                if needed <= free - fee:
                    balance -= fee
                    entry = new_entry
                    opened = (opened * n + table[i, TIME] * increase) / target
                    if n == 0.0:
                        sl = new_sl
                        tp = new_tp
                    d = e
                    n = target
                    deals += 1
                    acted = True
                    if has_log:
                        _record(
                            log, log_counts, k,
                            (i * 1.0, AT_ACTION, d, 0.0, BY_ACTION, increase, price, price, spread, slippage, fee, 0.0, 0.0, balance, 0.0, sl, tp),
                        )  # fmt: skip
                else:
                    refusal = NO_MONEY
            outcome = FILLED if acted else refusal
            column = EXECUTED if e > 0.0 else EXECUTED + 3
            if target > 0.0:
                outputs[k, column] = (n if refusal == NO_MONEY else target) * lot_step
            outputs[k, EXECUTED + 1] = a1
            outputs[k, EXECUTED + 2] = a2
            outputs[k, EXECUTED + 4] = a4
            outputs[k, EXECUTED + 5] = a5

        is_flat = n == 0.0
        ask_part = spread if d < 0 else 0.0
        if is_flat:
            margin = 0.0
            sl = 0.0
            tp = 0.0
            entry = 0.0
        elif rate_mode == QUOTE_IS_ACCOUNT:
            margin = margin_factor * n * entry * point
        else:
            margin = margin_factor * n * table[i, MARGIN_RATE]
        worst = balance
        if not is_flat:
            worst += swap + _profit(d, bid_open + ask_part, entry, step_money * n, rate_mode, rate, point)

        # 4. Inside the bar
        if n > 0.0:
            quote = bid_open + ask_part
            adverse = bid_low if d > 0 else bid_high + spread
            favourable = bid_high if d > 0 else bid_low + spread
            stop_level = sl if sl > 0.0 else -d * FAR
            ruin_level = _stop_out_level(
                d, entry, step_money * n, rate_mode, rate, point, stop_out * margin - balance - swap
            )
            reason = BY_SL
            level = stop_level
            if d * ruin_level > d * stop_level:
                reason = BY_STOP_OUT
                level = ruin_level
            stop_touched = d * adverse <= d * level
            target_touched = tp > 0.0 and d * favourable >= d * tp
            worst_price = adverse
            price = 0.0
            slip = 0.0
            if stop_touched and target_touched:
                ambiguous = 1.0
                stop_wins = True
                if intrabar == TARGET_FIRST:
                    stop_wins = False
                elif intrabar == ADAPTIVE:
                    stop_wins = abs(adverse - quote) <= abs(favourable - quote)
                elif intrabar == MT5_OHLC:
                    stop_wins = d * table[i, COLOUR] > 0.0
                if stop_wins:
                    target_touched = False
                else:
                    stop_touched = False
                    worst_price = quote
            if stop_touched:
                slip = slippage
                price = (quote if d * quote <= d * level else level) - d * slip
                worst_price = price
            elif target_touched:
                reason = BY_TP
                price = tp
            worst = min(
                worst, balance + swap + _profit(d, worst_price, entry, step_money * n, rate_mode, rate, point)
            )
            if price != 0.0:
                gain = _profit(d, price, entry, step_money * n, rate_mode, rate, point)
                fee = commission * n
                balance += gain + swap - fee
                deals += 1
                if has_log:
                    _record(
                        log, log_counts, k,
                        (i * 1.0, AT_INSIDE, d, 1.0, reason, n, price, entry, spread, slip, fee, swap, gain, balance, ambiguous, sl, tp),
                    )  # fmt: skip
                if reason == BY_STOP_OUT:
                    stopped_out = True
                n = 0.0
                worst = min(worst, balance)

        # 5. End of the episode
        if n > 0.0 and i == ints[k, STOP] and rules[R_CLOSE_AT_END] > 0.0:
            price = bid_close + ask_part
            gain = _profit(d, price, entry, step_money * n, rate_mode, rate, point)
            fee = commission * n
            balance += gain + swap - fee
            deals += 1
            if has_log:
                _record(
                    log, log_counts, k,
                    (i * 1.0, AT_END, d, 1.0, BY_END, n, price, entry, spread, 0.0, fee, swap, gain, balance, 0.0, sl, tp),
                )  # fmt: skip
            n = 0.0

        # 6. Mark to the close
        equity = balance
        if n > 0.0:
            equity += swap + _profit(d, bid_close + ask_part, entry, step_money * n, rate_mode, rate, point)
        else:
            margin = 0.0
            entry = 0.0
            sl = 0.0
            tp = 0.0
            swap = 0.0
            opened = 0.0
            d = 0.0
        worst = min(worst, equity)

        # 7. Status, reward, state
        status = 0
        if stopped_out or equity <= floor:
            status = 1
        elif i == ints[k, STOP]:
            status = 2
        idle = 0.0
        if is_flat:
            conversion = 1.0 / (bid_close * point) if rate_mode == BASE_IS_ACCOUNT else rate
            idle = table[i - 1, ATR] * rules[R_IDLE_MONEY] * conversion
        outputs[k, REWARD] = math.log(max(equity, floor) / max(equity_before, floor))
        outputs[k, COMPONENTS] = balance - balance_before
        outputs[k, COMPONENTS + 1] = equity - equity_before
        outputs[k, COMPONENTS + 2] = -idle
        marks[k, 0] = outcome
        marks[k, 1] = flags
        outcomes[k, outcome] += 1
        for bit in range(5):
            outcomes[k, 8 + bit] += (flags >> bit) & 1
        floats[k, BALANCE] = balance
        floats[k, EQUITY] = equity
        floats[k, EQUITY_WORST] = worst
        floats[k, MARGIN] = margin
        floats[k, ENTRY] = entry
        floats[k, SL] = sl
        floats[k, TP] = tp
        floats[k, SWAP] = swap
        floats[k, OPENED] = opened
        ints[k, STEPS] = int(d * n)
        ints[k, BAR] = i
        ints[k, STATUS] = status
        ints[k, AMBIGUOUS] += int(ambiguous)
        ints[k, DEALS] += deals
