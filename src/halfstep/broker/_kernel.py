"""The transition of accounts that hold one side at most: plain Python, compiled by `halfstep.broker.engine`.

One long straight function, because the compiler unpacks arguments at every call: rules cut into helpers that pass
tuples of state run at a third of the speed. Un-jitted it is the reference; compiled for one account and for a
batch it gives equal bits: float64, no fast-math, no reduction across accounts. Where a branch would depend on
chance (which side, larger or smaller) the arithmetic runs for both cases with a volume of zero in one of them, or
a rare condition is asked first: a wrongly foreseen branch costs as much as twenty additions.
The numbered phases are those of `docs/broker.md`. Accounts that may hold both sides are in `_hedged`.

Units: prices in whole points (only an average entry price may be fractional), volumes in lot steps, money in
account currency. For a position of side d (+1 long, -1 short), closing quote q (long: bid, short: ask) and n steps:
profit = d (q - entry) u, u = money of one point = point value * lot step * n * rate.
"""

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from halfstep.broker._layout import (
    ADAPTIVE,
    AMBIGUOUS,
    AT_ACTION,
    AT_END,
    AT_INSIDE,
    AT_OPEN,
    ATR,
    BALANCE,
    BAR,
    BELOW_MIN_LOT,
    BY_ACTION,
    BY_END,
    BY_SL,
    BY_STOP_OUT,
    BY_TP,
    CAPPED,
    CLOSE,
    CLOSED_BY_CHECK,
    COLOUR,
    COMPONENTS,
    DEAL_SIZE,
    DEALS,
    DETAIL_MISSING,
    ENTRY,
    EQUITY,
    EQUITY_WORST,
    EXECUTED,
    FAR,
    FILLED,
    HELD,
    HIGH,
    LEVEL,
    LEVEL_DROPPED,
    LOW,
    MARGIN,
    MARGIN_RATE,
    MARKET,
    MT5_OHLC,
    NETTED,
    NIGHTS,
    NO_MONEY,
    NONFINITE,
    OPEN,
    OPENED,
    OUTPUTS,
    P_BALANCE,
    P_EQUITY,
    P_LONG_STEPS,
    P_MARGIN,
    P_SHORT_STEPS,
    P_WORST,
    PREVIOUS_BALANCE,
    PREVIOUS_EQUITY,
    PROFIT_RATE,
    QUOTE_IS_ACCOUNT,
    R_CAP_STEPS,
    R_CLOSE_AT_END,
    R_COMMISSION,
    R_COST_SCALE,
    R_FLOOR,
    R_GAP_FILL,
    R_HOLD_BAND,
    R_IDLE_MONEY,
    R_INTRABAR,
    R_LEVEL_SCALE,
    R_LOT_STEP,
    R_MARGIN_FACTOR,
    R_MIN_DISTANCE,
    R_MIN_STEPS,
    R_PER_10K,
    R_POINT,
    R_RATE_MODE,
    R_SLIPPAGE,
    R_SLIPPAGE_RANDOM,
    R_STEP_MONEY,
    R_STOP_OUT,
    R_SWAP_LONG,
    R_SWAP_PERCENT,
    R_SWAP_SHORT,
    R_ZERO_IS_NONE,
    REWARD,
    SEED,
    SL,
    SL_KEPT,
    SL_TOO_CLOSE,
    SLIP_GAP,
    SLIP_MARKET,
    SLIP_STOP,
    SPREAD,
    STATUS,
    STEPS,
    STOP,
    STOPPED_OUT,
    SWAP,
    TARGET_FIRST,
    TIME,
    TP,
    TP_TOO_CLOSE,
)  # fmt: skip

GRID_NOISE = 1e-7
ROUNDING = 1e-6  # of a lot step: noise of float32 volumes
MASK = 0xFFFFFFFF


@register_jitable
def hash32(x):
    """Return 32 mixed bits of x, 0 <= x < 2^32; products stay below 2^63, so every integer type agrees."""
    x = (((x >> 16) ^ x) * 0x45D9F3B) & MASK
    x = (((x >> 16) ^ x) * 0x45D9F3B) & MASK
    return (x >> 16) ^ x


@register_jitable
def slipped(fixed, random, scale, seed, bar, event):
    """Return adverse points: ``fixed`` (scaled already) + floor(scale * (hash mod (random + 1)) + 0.5)."""
    if random > 0.0:
        drawn = hash32(seed ^ hash32(8 * bar + event)) % (int(random) + 1)
        return fixed + math.floor(drawn * scale + 0.5)
    return fixed


@register_jitable
def profit(d, price, entry, money, base_point):
    """Return the profit of a side closed at ``price``; ``money`` is that of one point (of the quote currency)."""
    gain = d * (price - entry) * money
    if base_point is not None:
        gain /= price * base_point
    return gain


@register_jitable
def stop_out_level(d, entry, money, base_point, loss):
    """Return the grid price at which the profit first reaches ``loss`` (below 0), rounded away from profit."""
    if base_point is not None:
        k = money / base_point
        if k - d * loss <= 0.0:
            return -d * FAR
        level = entry * k / (k - d * loss)
    else:
        level = entry + d * loss / money
    if d > 0:
        return math.floor(level + GRID_NOISE) * 1.0
    return math.ceil(level - GRID_NOISE) * 1.0


@register_jitable
def point_slack(quote, money, base_point):
    """Return a little more than the money of one point: nearer to ruin than this, the exact level is worked out."""
    if base_point is not None:
        return 4.0 * money / (quote * base_point)
    return 4.0 * money


@register_jitable
def swap_of_a_night(rate, quote, step_money, is_percent):
    """Return the swap of one lot step and night, quote currency: points, or percent a year of the price."""
    if is_percent:
        return rate / 100.0 / 360.0 * quote * step_money
    return rate * step_money


@register_jitable
def distance(fraction, scale):
    """Return a level's distance in points; the bounds keep absurd requests inside the whole numbers."""
    return np.floor(min(max(fraction * scale, -1.0), 1e15) + 0.5)


@register_jitable
def is_finite_action(a0, a1, a2, a3, a4, a5):
    """Return whether no number is NaN or infinite."""
    return (
        math.isfinite(a0)
        and math.isfinite(a1)
        and math.isfinite(a2)
        and math.isfinite(a3)
        and math.isfinite(a4)
        and math.isfinite(a5)
    )


@register_jitable
def record(log, log_counts, k, deal):
    """Append one deal of account ``k``; beyond the log's capacity it is only counted."""
    at = log_counts[k]
    if at < log.shape[1]:
        for column in range(DEAL_SIZE):
            log[k, at, column] = deal[column]
    log_counts[k] = at + 1


def step_accounts(
    rules, base_point, table, detail, detail_rows, floats, ints, counts, actions, outputs, marks, log, log_counts, path
):  # fmt: skip
    """Move every running account over its next bars, one per row of actions.

    Args (columns: see `_layout`):
        rules: float64 vector, the R_ columns.
        base_point: size of a point where the account's currency is the base currency, so that profits are divided
            by the price; else None. Like every argument that may be None it decides what is compiled.
        table: ``(bars, 11)`` float64.
        detail, detail_rows: ``(rows, 5)`` float64 finer bars and ``(bars, 2)`` int64 first and last-plus-one row of
            each bar (equal where there are none to be used); both None unless the rules ask for them.
        floats, ints, counts: ``(accounts, 16)`` float64, ``(accounts, 8)`` and ``(accounts, 16)`` int64: the state,
            changed in place.
        actions: ``(steps, accounts, 6)`` float64.
        outputs, marks: ``(steps, accounts, 10)`` float64 and ``(steps, accounts, 2)`` uint8: written.
        log, log_counts: ``(accounts, capacity, 18)`` float64 and ``(accounts,)`` int64, or None.
        path: ``(steps, accounts, 6)`` float64, written for the steps an account was running, or None.
    """
    step_money = rules[R_STEP_MONEY]
    lot_step = rules[R_LOT_STEP]
    steps_per_lot = 1.0 / lot_step
    min_steps = rules[R_MIN_STEPS]
    cap_steps = rules[R_CAP_STEPS]
    scale = rules[R_LEVEL_SCALE]
    min_distance = rules[R_MIN_DISTANCE]
    commission = rules[R_COMMISSION]
    slip_fixed = rules[R_SLIPPAGE]
    slip_random = rules[R_SLIPPAGE_RANDOM]
    cost_scale = rules[R_COST_SCALE]
    margin_factor = rules[R_MARGIN_FACTOR]
    point = rules[R_POINT]
    stop_out = rules[R_STOP_OUT]
    floor = rules[R_FLOOR]
    intrabar = rules[R_INTRABAR]
    gap_fill = rules[R_GAP_FILL]
    zero_is_none = rules[R_ZERO_IS_NONE] > 0.0
    close_at_end = rules[R_CLOSE_AT_END] > 0.0
    margin_at_entry = rules[R_RATE_MODE] == QUOTE_IS_ACCOUNT
    swap_long = rules[R_SWAP_LONG]
    swap_short = rules[R_SWAP_SHORT]
    swap_percent = rules[R_SWAP_PERCENT] > 0.0
    idle_money = rules[R_IDLE_MONEY]
    per_10k = rules[R_PER_10K] > 0.0
    hold_band = rules[R_HOLD_BAND]

    for k in prange(floats.shape[0]):
        for s in range(actions.shape[0]):
            if ints[k, STATUS] != 0:
                for column in range(OUTPUTS):
                    outputs[s, k, column] = 0.0
                marks[s, k, 0] = HELD
                marks[s, k, 1] = 0
                continue

            i = ints[k, BAR] + 1
            bid_open = table[i, OPEN]
            spread = table[i, SPREAD]
            margin_rate = table[i, MARGIN_RATE]
            unit = step_money * table[i, PROFIT_RATE]  # money of one point and step
            seed = ints[k, SEED]
            balance = floats[k, BALANCE]
            balance_before = balance
            equity_before = floats[k, EQUITY]
            entry = floats[k, ENTRY]
            sl = floats[k, SL]
            tp = floats[k, TP]
            swap = floats[k, SWAP]
            opened = floats[k, OPENED]
            held = floats[k, STEPS]
            d = 1.0 - 2.0 * (held < 0.0)  # of no meaning while n = 0
            n = abs(held)
            ask_part = spread if d < 0.0 else 0.0  # closing quotes of the held side are bid + ask_part
            ambiguous = 0.0
            deals = 0
            stopped_out = False
            outcome = HELD
            flags = 0

            if n > 0.0:
                quote = bid_open + ask_part
                # 1. Rollover
                nights = table[i, NIGHTS]
                if nights != 0.0:
                    rate = swap_long if d > 0.0 else swap_short
                    night = swap_of_a_night(rate, quote, unit, swap_percent)
                    if base_point is not None:
                        night /= quote * base_point
                    swap += night * n * nights

                # 2. Opening quote: levels and stop-out that the open has already passed
                money = unit * n
                stop_level = sl if sl > 0.0 else -d * FAR
                target_level = tp if tp > 0.0 else d * FAR
                margin = margin_factor * n * (entry * point if margin_at_entry else margin_rate)
                equity_there = balance + swap + profit(d, quote, entry, money, base_point)
                is_near_ruin = equity_there <= stop_out * margin + point_slack(quote, money, base_point)
                if is_near_ruin or d * quote <= d * stop_level or d * quote >= d * target_level:
                    reason = BY_SL
                    level = stop_level
                    if is_near_ruin:
                        ruin_level = stop_out_level(
                            d, entry, money, base_point, stop_out * margin - balance - swap
                        )
                        if d * ruin_level > d * level:
                            reason = BY_STOP_OUT
                            level = ruin_level
                    price = 0.0
                    slip = 0.0
                    if d * quote <= d * level:
                        slip = slipped(
                            slip_fixed, slip_random, cost_scale, seed, i, SLIP_GAP + (1 if d < 0.0 else 0)
                        )
                        price = (level if gap_fill == LEVEL and reason == BY_SL else quote) - d * slip
                    elif d * quote >= d * target_level:
                        reason = BY_TP
                        price = quote if gap_fill == MARKET else target_level
                    if price != 0.0:
                        gain = profit(d, price, entry, money, base_point)
                        fee = commission * n
                        balance += gain + swap - fee
                        deals += 1
                        if log is not None:
                            record(
                                log, log_counts, k,
                                (i * 1.0, -1.0, AT_OPEN, d, 1.0, reason, n, price, entry, spread, slip, fee, swap, gain, balance, 0.0, sl, tp),
                            )  # fmt: skip
                        stopped_out = reason == BY_STOP_OUT
                        n = 0.0
                        swap = 0.0

            # 3. The action, at the open
            a0 = actions[s, k, 0]
            a1 = actions[s, k, 1]
            a2 = actions[s, k, 2]
            a3 = actions[s, k, 3]
            a4 = actions[s, k, 4]
            a5 = actions[s, k, 5]
            buy_executed = n * lot_step if d > 0.0 else 0.0
            sell_executed = n * lot_step if d < 0.0 else 0.0
            if stopped_out or not is_finite_action(a0, a1, a2, a3, a4, a5):
                outcome = STOPPED_OUT if stopped_out else NONFINITE
            else:
                # 3a. Which side, how many steps
                buy = max(a0, 0.0)
                sell = max(a3, 0.0)
                if buy > 0.0 and sell > 0.0:
                    flags = NETTED
                e = 1.0 if buy >= sell else -1.0
                volume = abs(buy - sell)
                if per_10k:
                    volume = volume * equity_before / 10_000.0
                wanted = min(volume * steps_per_lot, 1e15)
                target = max(np.floor(wanted + (0.5 + ROUNDING)), min_steps)
                refusal = HELD
                if wanted < min_steps - ROUNDING:
                    target = 0.0
                    if volume > 0.0:
                        refusal = BELOW_MIN_LOT
                if target > cap_steps:
                    target = cap_steps
                    flags |= CAPPED

                # 3b. Distances and levels
                tp_points = distance(a1 if e > 0.0 else a4, scale)
                sl_points = distance(a2 if e > 0.0 else a5, scale)
                if target > 0.0:
                    if tp_points <= min_distance and not (zero_is_none and tp_points == 0.0):
                        refusal = TP_TOO_CLOSE
                        target = 0.0
                    elif sl_points <= min_distance + spread and not (zero_is_none and sl_points == 0.0):
                        refusal = SL_TOO_CLOSE
                        target = 0.0
                open_quote = bid_open + (spread if e > 0.0 else 0.0)
                close_quote = bid_open + (0.0 if e > 0.0 else spread)
                new_tp = open_quote + e * tp_points if tp_points > 0.0 else 0.0
                new_sl = open_quote - e * sl_points if sl_points > 0.0 else 0.0
                if target > 0.0 and (
                    (tp_points > 0.0 and new_tp <= 0.0) or (sl_points > 0.0 and new_sl <= 0.0)
                ):
                    flags |= LEVEL_DROPPED
                    new_tp = max(new_tp, 0.0)
                    new_sl = max(new_sl, 0.0)
                is_same = e == d
                if hold_band > 0.0 and is_same and n > 0.0 and target > 0.0 and abs(target - n) <= hold_band:
                    target = n
                if refusal != HELD:  # rare, so asked first: the side and the volume are of chance
                    flags |= CLOSED_BY_CHECK * int(is_same & (n > 0.0) & (target == 0.0))

                # 3c. Reduction: everything of the other side, what is too much of the same
                keep = min(n, target) if is_same else 0.0
                reduction = n - keep
                is_reduced = reduction > 0.0
                slip = slipped(
                    slip_fixed, slip_random, cost_scale, seed, i, SLIP_MARKET + (1 if d < 0.0 else 0)
                )
                price = bid_open + ask_part - d * slip
                gain = profit(d, price, entry, unit * reduction, base_point)
                fee = commission * reduction
                share = swap * (reduction / max(n, 1.0))
                balance += gain + share - fee
                swap -= share
                deals += int(is_reduced)
                if log is not None:
                    if is_reduced:
                        record(
                            log, log_counts, k,
                            (i * 1.0, -1.0, AT_ACTION, d, 1.0, BY_ACTION, reduction, price, entry, spread, slip, fee, share, gain, balance, 0.0, sl, tp),
                        )  # fmt: skip

                # 3d. Levels: of what is still held the stop never retreats; a new position takes the action's
                is_kept = keep > 0.0
                old_stop = d * sl if sl > 0.0 else -FAR
                new_stop = d * new_sl if new_sl > 0.0 else -FAR
                stop_stays = is_kept & (new_stop <= old_stop)
                flags |= SL_KEPT * int(stop_stays & (new_sl != sl))
                sl = sl if stop_stays else new_sl
                tp = new_tp

                # 3e. Increase, if the margin of the whole is there
                increase = target - keep
                is_increased = increase > 0.0
                whole = max(target, 1.0)
                slip = slipped(
                    slip_fixed, slip_random, cost_scale, seed, i, SLIP_MARKET + (1 if e < 0.0 else 0)
                )
                price = open_quote + e * slip
                whole_entry = (entry * keep + price * increase) / whole
                needed = margin_factor * whole * (whole_entry * point if margin_at_entry else margin_rate)
                fee = commission * increase
                free = balance + swap + profit(e, close_quote, entry, unit * keep, base_point) - fee
                n = target
                # as a product: whether there is an increase is of chance, that it lacks the money is rare
                if increase * (needed - free) > 0.0:
                    n = keep
                    is_increased = False
                    refusal = NO_MONEY
                else:
                    balance -= fee
                    entry = whole_entry if is_increased else entry
                    whole_opened = (opened * keep + table[i, TIME] * increase) / whole
                    opened = whole_opened if is_increased else opened
                    deals += int(is_increased)
                    if log is not None:
                        if is_increased:
                            record(
                                log, log_counts, k,
                                (i * 1.0, -1.0, AT_ACTION, e, 0.0, BY_ACTION, increase, price, price, spread, slip, fee, 0.0, 0.0, balance, 0.0, sl, tp),
                            )  # fmt: skip
                d = e
                outcome = FILLED if is_reduced | is_increased else refusal
                is_short = 0.5 - 0.5 * e
                sell_executed = n * lot_step * is_short
                buy_executed = n * lot_step - sell_executed
                ask_part = spread * is_short

            is_flat = n == 0.0
            margin = 0.0
            worst = balance
            if n > 0.0:
                money = unit * n
                margin = margin_factor * n * (entry * point if margin_at_entry else margin_rate)
                worst += swap + profit(d, bid_open + ask_part, entry, money, base_point)

                # 4. Inside the bar, or inside each of its detail bars
                first = 0
                last = 1
                row = -1.0
                quote = bid_open
                high = table[i, HIGH]
                low = table[i, LOW]
                inside_spread = spread
                mode = intrabar
                has_detail = False
                if detail is not None:
                    first = detail_rows[i, 0]
                    last = detail_rows[i, 1]
                    has_detail = last > first
                    if not has_detail:
                        first = 0
                        last = 1
                        counts[k, DETAIL_MISSING] += 1
                stop_level = sl if sl > 0.0 else -d * FAR
                target_level = tp if tp > 0.0 else d * FAR
                for j in range(first, last):
                    if detail is not None:
                        if has_detail:
                            row = j * 1.0
                            quote = detail[j, OPEN]
                            high = detail[j, HIGH]
                            low = detail[j, LOW]
                            inside_spread = detail[j, SPREAD]
                    side_spread = inside_spread if d < 0.0 else 0.0
                    start = quote + side_spread
                    adverse = (low if d > 0.0 else high) + side_spread
                    favourable = (high if d > 0.0 else low) + side_spread
                    equity_there = balance + swap + profit(d, adverse, entry, money, base_point)
                    is_near_ruin = equity_there <= stop_out * margin + point_slack(adverse, money, base_point)
                    if not (
                        is_near_ruin or d * adverse <= d * stop_level or d * favourable >= d * target_level
                    ):
                        worst = min(worst, equity_there)
                        continue
                    reason = BY_SL
                    level = stop_level
                    if is_near_ruin:
                        ruin_level = stop_out_level(
                            d, entry, money, base_point, stop_out * margin - balance - swap
                        )
                        if d * ruin_level > d * level:
                            reason = BY_STOP_OUT
                            level = ruin_level
                    is_stop = d * adverse <= d * level
                    is_target = d * favourable >= d * target_level
                    is_gap = j > first and (d * start <= d * level or d * start >= d * target_level)
                    worst_price = adverse
                    slip = 0.0
                    price = 0.0
                    if is_gap:
                        # between two detail bars: an opening quote, as in 2
                        worst_price = start
                        if d * start <= d * level:
                            slip = slipped(
                                slip_fixed, slip_random, cost_scale, seed, i, SLIP_GAP + (1 if d < 0.0 else 0)
                            )
                            price = (level if gap_fill == LEVEL and reason == BY_SL else start) - d * slip
                            worst_price = price
                        else:
                            reason = BY_TP
                            price = start if gap_fill == MARKET else target_level
                    else:
                        if is_stop and is_target:
                            ambiguous = 1.0
                            stop_wins = True
                            if mode == TARGET_FIRST:
                                stop_wins = False
                            elif mode == ADAPTIVE:
                                stop_wins = abs(adverse - start) <= abs(favourable - start)
                            elif mode == MT5_OHLC:
                                stop_wins = d * table[i, COLOUR] > 0.0
                            is_stop = stop_wins
                            is_target = not stop_wins
                        if is_stop:
                            slip = slipped(
                                slip_fixed,
                                slip_random,
                                cost_scale,
                                seed,
                                i,
                                SLIP_STOP + (1 if d < 0.0 else 0),
                            )
                            price = (start if d * start <= d * level else level) - d * slip
                            worst_price = price
                        elif is_target:
                            reason = BY_TP
                            price = target_level
                            if ambiguous > 0.0:
                                worst_price = start
                    worst = min(worst, balance + swap + profit(d, worst_price, entry, money, base_point))
                    if price != 0.0:
                        gain = profit(d, price, entry, money, base_point)
                        fee = commission * n
                        balance += gain + swap - fee
                        worst = min(worst, balance)
                        deals += 1
                        if log is not None:
                            record(
                                log, log_counts, k,
                                (i * 1.0, row, AT_INSIDE, d, 1.0, reason, n, price, entry, inside_spread, slip, fee, swap, gain, balance, ambiguous, sl, tp),
                            )  # fmt: skip
                        stopped_out = reason == BY_STOP_OUT
                        n = 0.0
                        break

            # 5. End of the episode
            if close_at_end and n > 0.0 and i == ints[k, STOP]:
                price = table[i, CLOSE] + ask_part
                gain = profit(d, price, entry, unit * n, base_point)
                fee = commission * n
                balance += gain + swap - fee
                deals += 1
                if log is not None:
                    record(
                        log, log_counts, k,
                        (i * 1.0, -1.0, AT_END, d, 1.0, BY_END, n, price, entry, spread, 0.0, fee, swap, gain, balance, 0.0, sl, tp),
                    )  # fmt: skip
                n = 0.0

            # 6. Mark to the close
            equity = balance
            if n > 0.0:
                equity += swap + profit(d, table[i, CLOSE] + ask_part, entry, unit * n, base_point)
            else:
                margin = 0.0
                entry = 0.0
                sl = 0.0
                tp = 0.0
                swap = 0.0
                opened = 0.0

            # 7. Status, reward, state
            status = 0
            if stopped_out or equity <= floor:
                status = 1
            elif i == ints[k, STOP]:
                status = 2
            idle = 0.0
            if is_flat and idle_money > 0.0:
                idle = table[i - 1, ATR] * idle_money * table[i, PROFIT_RATE]
                if base_point is not None:
                    idle /= table[i, CLOSE] * base_point
            outputs[s, k, COMPONENTS] = balance - balance_before
            outputs[s, k, COMPONENTS + 1] = equity - equity_before
            outputs[s, k, COMPONENTS + 2] = 0.0 - idle
            outputs[s, k, EXECUTED] = buy_executed
            outputs[s, k, EXECUTED + 1] = sell_executed
            marks[s, k, 0] = outcome
            marks[s, k, 1] = flags
            counts[k, outcome] += 1
            for bit in range(5):
                counts[k, 8 + bit] += (flags >> bit) & 1
            counts[k, AMBIGUOUS] += int(ambiguous)
            counts[k, DEALS] += deals
            floats[k, BALANCE] = balance
            floats[k, EQUITY] = equity
            floats[k, EQUITY_WORST] = min(worst, equity)
            floats[k, MARGIN] = margin
            floats[k, PREVIOUS_BALANCE] = balance_before
            floats[k, PREVIOUS_EQUITY] = equity_before
            floats[k, ENTRY] = entry
            floats[k, SL] = sl
            floats[k, TP] = tp
            floats[k, SWAP] = swap
            floats[k, OPENED] = opened
            floats[k, STEPS] = d * n
            ints[k, BAR] = i
            ints[k, STATUS] = status
            # last, because the call would spill whatever is still to be stored
            outputs[s, k, REWARD] = math.log(max(equity, floor) / max(equity_before, floor))
            if path is not None:
                path[s, k, P_BALANCE] = balance
                path[s, k, P_EQUITY] = equity
                path[s, k, P_WORST] = min(worst, equity)
                path[s, k, P_MARGIN] = margin
                path[s, k, P_LONG_STEPS] = n if d > 0.0 else 0.0
                path[s, k, P_SHORT_STEPS] = n if d < 0.0 else 0.0
