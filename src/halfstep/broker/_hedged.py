"""The transition of accounts that may hold both sides at once (``net_opposite=False``).

The rules and the arguments are those of `_kernel.step_accounts`; the phases have the same numbers. Two positions
are worked on in place, each in its own columns, and every close goes through one helper: shorter than the straight
form for one side, and slower.
"""

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from halfstep.broker._kernel import (
    ROUNDING,
    distance,
    is_finite_action,
    point_slack,
    profit,
    record,
    slipped,
    stop_out_level,
    swap_of_a_night,
)  # fmt: skip
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
    POSITION_SIZE,
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
    R_HEDGED_SHARE,
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
    SLIP_LOCKED,
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


@register_jitable
def held(floats, k, side):
    """Return the steps held on a side (0 long, 1 short), not negative."""
    return abs(floats[k, STEPS + side * POSITION_SIZE])


@register_jitable
def margin_of(rules, long, long_entry, short, short_entry, margin_rate):
    """Return the margin of both sides: what is uncovered at its own entry, what is covered at the mean of both."""
    if rules[R_RATE_MODE] == QUOTE_IS_ACCOUNT:
        long_price, short_price = long_entry * rules[R_POINT], short_entry * rules[R_POINT]
    else:
        long_price, short_price = margin_rate, margin_rate
    factor = rules[R_MARGIN_FACTOR]
    covered = min(long, short)
    margin = factor * (long - covered) * long_price + factor * (short - covered) * short_price
    if covered > 0.0:
        mean = (long * long_price + short * short_price) / (long + short)
        margin += factor * rules[R_HEDGED_SHARE] * covered * mean
    return margin


@register_jitable
def margin_now(rules, floats, k, margin_rate):
    """Return the margin of what an account holds."""
    return margin_of(
        rules,
        held(floats, k, 0),
        floats[k, ENTRY],
        held(floats, k, 1),
        floats[k, ENTRY + POSITION_SIZE],
        margin_rate,
    )


@register_jitable
def floating(floats, k, side, bid, spread, unit, base_point):
    """Return swap and profit of a side at a bid; 0 where it is not held."""
    at = side * POSITION_SIZE
    n = held(floats, k, side)
    if n == 0.0:
        return 0.0
    d = 1.0 - 2.0 * side
    quote = bid + spread if d < 0.0 else bid
    return floats[k, SWAP + at] + profit(d, quote, floats[k, ENTRY + at], unit * n, base_point)


@register_jitable
def equity_at(floats, k, bid, spread, unit, base_point):
    """Return the equity of an account at a bid."""
    return (
        floats[k, BALANCE]
        + floating(floats, k, 0, bid, spread, unit, base_point)
        + floating(floats, k, 1, bid, spread, unit, base_point)
    )


@register_jitable
def slip_of(rules, seed, i, event, side):
    """Return the adverse points of an event on a side."""
    return slipped(rules[R_SLIPPAGE], rules[R_SLIPPAGE_RANDOM], rules[R_COST_SCALE], seed, i, event + side)


@register_jitable
def close_steps(
    rules, base_point, floats, counts, log, log_counts, k, i, row, phase, side, reason, steps, price, spread, slip, unit,
    ambiguous,
):  # fmt: skip
    """Close steps of a side at a price, slippage included: balance, swap and log; a side at 0 steps is cleared."""
    at = side * POSITION_SIZE
    d = 1.0 - 2.0 * side
    n = held(floats, k, side)
    gain = profit(d, price, floats[k, ENTRY + at], unit * steps, base_point)
    fee = rules[R_COMMISSION] * steps
    share = floats[k, SWAP + at]
    if steps < n:
        share *= steps / n
    floats[k, BALANCE] += gain + share - fee
    counts[k, DEALS] += 1
    if log is not None:
        record(
            log, log_counts, k,
            (i * 1.0, row, phase, d, 1.0, reason, steps, price, floats[k, ENTRY + at], spread, slip, fee, share, gain, floats[k, BALANCE], ambiguous, floats[k, SL + at], floats[k, TP + at]),
        )  # fmt: skip
    if steps == n:
        for column in range(POSITION_SIZE):
            floats[k, STEPS + at + column] = 0.0
    else:
        floats[k, STEPS + at] = d * (n - steps)
        floats[k, SWAP + at] -= share


@register_jitable
def ruin_level(rules, base_point, floats, k, side, unit, margin, near):
    """Return the price at which a lone side is stopped out; infinitely far unless the account is near it."""
    d = 1.0 - 2.0 * side
    if not near:
        return -d * FAR
    at = side * POSITION_SIZE
    loss = rules[R_STOP_OUT] * margin - floats[k, BALANCE] - floats[k, SWAP + at]
    return stop_out_level(d, floats[k, ENTRY + at], unit * held(floats, k, side), base_point, loss)


@register_jitable
def force_close(
    rules, base_point, floats, counts, log, log_counts, k, i, row, phase, seed, low, high, spread, unit, margin_rate
):  # fmt: skip
    """Close the worse side while the lesser equity of two prices is at the stop-out."""
    while held(floats, k, 0) + held(floats, k, 1) > 0.0:
        at_low = equity_at(floats, k, low, spread, unit, base_point)
        at_high = equity_at(floats, k, high, spread, unit, base_point)
        if min(at_low, at_high) > rules[R_STOP_OUT] * margin_now(rules, floats, k, margin_rate):
            break
        bid = low if at_low <= at_high else high
        side = 0
        if held(floats, k, 0) == 0.0 or (
            held(floats, k, 1) > 0.0
            and floating(floats, k, 1, bid, spread, unit, base_point)
            < floating(floats, k, 0, bid, spread, unit, base_point)
        ):
            side = 1
        d = 1.0 - 2.0 * side
        slip = slip_of(rules, seed, i, SLIP_LOCKED, side)
        price = bid + (spread if side == 1 else 0.0) - d * slip
        close_steps(
            rules, base_point, floats, counts, log, log_counts, k, i, row, phase, side, BY_STOP_OUT,
            held(floats, k, side), price, spread, slip, unit, 0.0,
        )  # fmt: skip


@register_jitable
def at_quote(
    rules, base_point, floats, counts, log, log_counts, k, i, row, phase, seed, bid, spread, unit, margin_rate
):
    """Close what an opening quote has already passed, phase 2; return whether the stop-out did."""
    both = held(floats, k, 0) > 0.0 and held(floats, k, 1) > 0.0
    margin = 0.0 if both else margin_now(rules, floats, k, margin_rate)  # for the lone side's stop-out
    is_forced = False
    for side in range(2):
        n = held(floats, k, side)
        if n == 0.0:
            continue
        at = side * POSITION_SIZE
        d = 1.0 - 2.0 * side
        quote = bid + spread if side == 1 else bid
        near = not both and equity_at(floats, k, bid, spread, unit, base_point) <= rules[
            R_STOP_OUT
        ] * margin + point_slack(quote, unit * n, base_point)
        level = floats[k, SL + at] if floats[k, SL + at] > 0.0 else -d * FAR
        target_level = floats[k, TP + at] if floats[k, TP + at] > 0.0 else d * FAR
        reason = BY_SL
        ruin = ruin_level(rules, base_point, floats, k, side, unit, margin, near)
        if d * ruin > d * level:
            reason = BY_STOP_OUT
            level = ruin
        slip = 0.0
        if d * quote <= d * level:
            slip = slip_of(rules, seed, i, SLIP_GAP, side)
            price = (level if rules[R_GAP_FILL] == LEVEL and reason == BY_SL else quote) - d * slip
        elif d * quote >= d * target_level:
            reason = BY_TP
            price = quote if rules[R_GAP_FILL] == MARKET else target_level
        else:
            continue
        close_steps(
            rules, base_point, floats, counts, log, log_counts, k, i, row, phase, side, reason, n, price, spread, slip,
            unit, 0.0,
        )  # fmt: skip
        is_forced = is_forced or reason == BY_STOP_OUT
    if both and equity_at(floats, k, bid, spread, unit, base_point) <= rules[R_STOP_OUT] * margin_now(
        rules, floats, k, margin_rate
    ):
        force_close(
            rules, base_point, floats, counts, log, log_counts, k, i, row, phase, seed, bid, bid, spread, unit,
            margin_rate,
        )  # fmt: skip
        is_forced = True
    return is_forced


@register_jitable
def inside(
    rules, base_point, floats, counts, log, log_counts, k, i, row, seed, bid_open, low, high, spread, colour, mode,
    unit, margin_rate,
):  # fmt: skip
    """Close what a bar's extremes reach, phase 4; return whether the stop-out did, and the least equity."""
    both = held(floats, k, 0) > 0.0 and held(floats, k, 1) > 0.0
    margin = 0.0 if both else margin_now(rules, floats, k, margin_rate)  # for the lone side's stop-out
    is_forced = False
    worst = FAR
    for side in range(2):
        n = held(floats, k, side)
        if n == 0.0:
            continue
        at = side * POSITION_SIZE
        d = 1.0 - 2.0 * side
        side_spread = spread if side == 1 else 0.0
        start = bid_open + side_spread
        adverse = (low if side == 0 else high) + side_spread
        favourable = (high if side == 0 else low) + side_spread
        near = not both and equity_at(floats, k, adverse - side_spread, spread, unit, base_point) <= rules[
            R_STOP_OUT
        ] * margin + point_slack(adverse, unit * n, base_point)
        level = floats[k, SL + at] if floats[k, SL + at] > 0.0 else -d * FAR
        target_level = floats[k, TP + at] if floats[k, TP + at] > 0.0 else d * FAR
        reason = BY_SL
        ruin = ruin_level(rules, base_point, floats, k, side, unit, margin, near)
        if d * ruin > d * level:
            reason = BY_STOP_OUT
            level = ruin
        is_stop = d * adverse <= d * level
        is_target = d * favourable >= d * target_level
        ambiguous = 0.0
        worst_bid = low if side == 0 else high
        if is_stop and is_target:
            ambiguous = 1.0
            counts[k, AMBIGUOUS] += 1
            stop_wins = True
            if mode == TARGET_FIRST:
                stop_wins = False
            elif mode == ADAPTIVE:
                stop_wins = abs(adverse - start) <= abs(favourable - start)
            elif mode == MT5_OHLC:
                stop_wins = d * colour > 0.0
            is_stop = stop_wins
            is_target = not stop_wins
            if is_target:
                worst_bid = bid_open
        slip = 0.0
        price = 0.0
        if is_stop:
            slip = slip_of(rules, seed, i, SLIP_STOP, side)
            price = (start if d * start <= d * level else level) - d * slip
            worst_bid = price - side_spread
        elif is_target:
            reason = BY_TP
            price = target_level
        if not both:
            worst = min(worst, equity_at(floats, k, worst_bid, spread, unit, base_point))
        if price != 0.0:
            close_steps(
                rules, base_point, floats, counts, log, log_counts, k, i, row, AT_INSIDE, side, reason, n, price,
                spread, slip, unit, ambiguous,
            )  # fmt: skip
            is_forced = is_forced or reason == BY_STOP_OUT
    if both and held(floats, k, 0) + held(floats, k, 1) > 0.0:
        worst = min(
            equity_at(floats, k, low, spread, unit, base_point),
            equity_at(floats, k, high, spread, unit, base_point),
        )
        if worst <= rules[R_STOP_OUT] * margin_now(rules, floats, k, margin_rate):
            force_close(
                rules, base_point, floats, counts, log, log_counts, k, i, row, AT_INSIDE, seed, low, high, spread,
                unit, margin_rate,
            )  # fmt: skip
            is_forced = True
    if held(floats, k, 0) + held(floats, k, 1) == 0.0:
        worst = min(worst, floats[k, BALANCE])
    return is_forced, worst


def step_hedged(
    rules, base_point, table, detail, detail_rows, floats, ints, counts, actions, outputs, marks, log, log_counts, path
):  # fmt: skip
    """Move every running account over its next bars, one per row of actions; see `_kernel.step_accounts`."""
    steps_per_lot = 1.0 / rules[R_LOT_STEP]
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
            unit = rules[R_STEP_MONEY] * table[i, PROFIT_RATE]
            seed = ints[k, SEED]
            balance_before = floats[k, BALANCE]
            equity_before = floats[k, EQUITY]
            flags = 0
            deals_before = counts[k, DEALS]

            # 1. Rollover
            nights = table[i, NIGHTS]
            if nights != 0.0:
                for side in range(2):
                    n = held(floats, k, side)
                    quote = bid_open + spread if side == 1 else bid_open
                    rate = rules[R_SWAP_SHORT] if side == 1 else rules[R_SWAP_LONG]
                    night = swap_of_a_night(rate, quote, unit, rules[R_SWAP_PERCENT] > 0.0)
                    if base_point is not None:
                        night /= quote * base_point
                    floats[k, SWAP + side * POSITION_SIZE] += night * n * nights

            # 2. Opening quote
            stopped_out = at_quote(
                rules, base_point, floats, counts, log, log_counts, k, i, -1.0, AT_OPEN, seed, bid_open, spread, unit,
                margin_rate,
            )  # fmt: skip

            # 3. The action, at the open
            outcome = HELD
            refusal = HELD
            if stopped_out:
                outcome = STOPPED_OUT
            elif not is_finite_action(
                actions[s, k, 0], actions[s, k, 1], actions[s, k, 2], actions[s, k, 3], actions[s, k, 4], actions[s, k, 5]
            ):  # fmt: skip
                outcome = NONFINITE
            else:
                deals_before = counts[k, DEALS]
                long_target = 0.0
                short_target = 0.0
                # 3a, 3b, 3c. Steps, distances; then what is too much of either side
                for side in range(2):
                    n = held(floats, k, side)
                    volume = max(actions[s, k, 3 * side], 0.0)
                    if rules[R_PER_10K] > 0.0:
                        volume = volume * equity_before / 10_000.0
                    wanted = min(volume * steps_per_lot, 1e15)
                    target = max(np.floor(wanted + (0.5 + ROUNDING)), rules[R_MIN_STEPS])
                    refused = HELD
                    if wanted < rules[R_MIN_STEPS] - ROUNDING:
                        target = 0.0
                        if volume > 0.0:
                            refused = BELOW_MIN_LOT
                    if target > rules[R_CAP_STEPS]:
                        target = rules[R_CAP_STEPS]
                        flags |= CAPPED
                    if target > 0.0:
                        zero_is_none = rules[R_ZERO_IS_NONE] > 0.0
                        tp_points = distance(actions[s, k, 3 * side + 1], rules[R_LEVEL_SCALE])
                        sl_points = distance(actions[s, k, 3 * side + 2], rules[R_LEVEL_SCALE])
                        least = rules[R_MIN_DISTANCE]
                        if tp_points <= least and not (zero_is_none and tp_points == 0.0):
                            refused = TP_TOO_CLOSE
                            target = 0.0
                        elif sl_points <= least + spread and not (zero_is_none and sl_points == 0.0):
                            refused = SL_TOO_CLOSE
                            target = 0.0
                    if n > 0.0 and target > 0.0 and abs(target - n) <= rules[R_HOLD_BAND]:
                        target = n
                    if n > 0.0 and refused != HELD:
                        flags |= CLOSED_BY_CHECK
                    refusal = min(refusal, refused)
                    if target < n:
                        slip = slip_of(rules, seed, i, SLIP_MARKET, side)
                        price = (bid_open + spread + slip) if side == 1 else (bid_open - slip)
                        close_steps(
                            rules, base_point, floats, counts, log, log_counts, k, i, -1.0, AT_ACTION, side, BY_ACTION,
                            n - target, price, spread, slip, unit, 0.0,
                        )  # fmt: skip
                    if side == 0:
                        long_target = target
                    else:
                        short_target = target
                # 3d, 3e. Levels and increases, long before short
                for side in range(2):
                    target = short_target if side == 1 else long_target
                    if target == 0.0:
                        continue
                    at = side * POSITION_SIZE
                    e = 1.0 - 2.0 * side
                    n = held(floats, k, side)
                    quote = bid_open if side == 1 else bid_open + spread
                    tp_points = distance(actions[s, k, 3 * side + 1], rules[R_LEVEL_SCALE])
                    sl_points = distance(actions[s, k, 3 * side + 2], rules[R_LEVEL_SCALE])
                    new_tp = quote + e * tp_points if tp_points > 0.0 else 0.0
                    new_sl = quote - e * sl_points if sl_points > 0.0 else 0.0
                    if (tp_points > 0.0 and new_tp <= 0.0) or (sl_points > 0.0 and new_sl <= 0.0):
                        flags |= LEVEL_DROPPED
                        new_tp = max(new_tp, 0.0)
                        new_sl = max(new_sl, 0.0)
                    if n > 0.0:
                        sl = floats[k, SL + at]
                        floats[k, TP + at] = new_tp
                        if new_sl > 0.0 and (sl == 0.0 or e * new_sl > e * sl):
                            floats[k, SL + at] = new_sl
                        elif new_sl != sl:
                            flags |= SL_KEPT
                    increase = target - n
                    if increase <= 0.0:
                        continue
                    slip = slip_of(rules, seed, i, SLIP_MARKET, side)
                    price = quote + e * slip
                    whole_entry = (floats[k, ENTRY + at] * n + price * increase) / target
                    other = held(floats, k, 1 - side)
                    other_entry = floats[k, ENTRY + (1 - side) * POSITION_SIZE]
                    if side == 0:
                        needed = margin_of(rules, target, whole_entry, other, other_entry, margin_rate)
                    else:
                        needed = margin_of(rules, other, other_entry, target, whole_entry, margin_rate)
                    fee = rules[R_COMMISSION] * increase
                    if needed > equity_at(floats, k, bid_open, spread, unit, base_point) - fee:
                        refusal = min(refusal, NO_MONEY)
                        continue
                    floats[k, BALANCE] -= fee
                    floats[k, STEPS + at] = e * target
                    floats[k, ENTRY + at] = whole_entry
                    floats[k, OPENED + at] = (floats[k, OPENED + at] * n + table[i, TIME] * increase) / target
                    if n == 0.0:
                        floats[k, SL + at] = new_sl
                        floats[k, TP + at] = new_tp
                    counts[k, DEALS] += 1
                    if log is not None:
                        record(
                            log, log_counts, k,
                            (i * 1.0, -1.0, AT_ACTION, e, 0.0, BY_ACTION, increase, price, price, spread, slip, fee, 0.0, 0.0, floats[k, BALANCE], 0.0, floats[k, SL + at], floats[k, TP + at]),
                        )  # fmt: skip
                outcome = FILLED if counts[k, DEALS] > deals_before else refusal
            outputs[s, k, EXECUTED] = held(floats, k, 0) * rules[R_LOT_STEP]
            outputs[s, k, EXECUTED + 1] = held(floats, k, 1) * rules[R_LOT_STEP]
            is_flat = held(floats, k, 0) + held(floats, k, 1) == 0.0
            worst = equity_at(floats, k, bid_open, spread, unit, base_point)

            # 4. Inside the bar, or inside each of its detail bars
            if not is_flat:
                first = 0
                last = 1
                has_detail = False
                if detail is not None:
                    first = detail_rows[i, 0]
                    last = detail_rows[i, 1]
                    has_detail = last > first
                    if not has_detail:
                        first = 0
                        last = 1
                        counts[k, DETAIL_MISSING] += 1
                row = -1.0
                quote = bid_open
                low = table[i, LOW]
                high = table[i, HIGH]
                inside_spread = spread
                for j in range(first, last):
                    if detail is not None:
                        if has_detail:
                            row = j * 1.0
                            quote = detail[j, OPEN]
                            low = detail[j, LOW]
                            high = detail[j, HIGH]
                            inside_spread = detail[j, SPREAD]
                            if j > first and at_quote(
                                rules, base_point, floats, counts, log, log_counts, k, i, row, AT_INSIDE, seed, quote,
                                inside_spread, unit, margin_rate,
                            ):  # fmt: skip
                                stopped_out = True
                    if held(floats, k, 0) + held(floats, k, 1) == 0.0:
                        worst = min(worst, floats[k, BALANCE])
                        break
                    forced, least = inside(
                        rules, base_point, floats, counts, log, log_counts, k, i, row, seed, quote, low, high,
                        inside_spread, table[i, COLOUR], rules[R_INTRABAR], unit, margin_rate,
                    )  # fmt: skip
                    stopped_out = stopped_out or forced
                    worst = min(worst, least)

            # 5. End of the episode
            if rules[R_CLOSE_AT_END] > 0.0 and i == ints[k, STOP]:
                for side in range(2):
                    n = held(floats, k, side)
                    if n > 0.0:
                        price = table[i, CLOSE] + (spread if side == 1 else 0.0)
                        close_steps(
                            rules, base_point, floats, counts, log, log_counts, k, i, -1.0, AT_END, side, BY_END, n,
                            price, spread, 0.0, unit, 0.0,
                        )  # fmt: skip

            # 6. Mark to the close
            equity = equity_at(floats, k, table[i, CLOSE], spread, unit, base_point)
            worst = min(worst, equity)
            floats[k, MARGIN] = margin_now(rules, floats, k, margin_rate)

            # 7. Status, reward, state
            status = 0
            if stopped_out or equity <= rules[R_FLOOR]:
                status = 1
            elif i == ints[k, STOP]:
                status = 2
            idle = 0.0
            if is_flat and rules[R_IDLE_MONEY] > 0.0:
                idle = table[i - 1, ATR] * rules[R_IDLE_MONEY] * table[i, PROFIT_RATE]
                if base_point is not None:
                    idle /= table[i, CLOSE] * base_point
            floor = rules[R_FLOOR]
            outputs[s, k, REWARD] = math.log(max(equity, floor) / max(equity_before, floor))
            outputs[s, k, COMPONENTS] = floats[k, BALANCE] - balance_before
            outputs[s, k, COMPONENTS + 1] = equity - equity_before
            outputs[s, k, COMPONENTS + 2] = 0.0 - idle
            marks[s, k, 0] = outcome
            marks[s, k, 1] = flags
            counts[k, outcome] += 1
            for bit in range(5):
                counts[k, 8 + bit] += (flags >> bit) & 1
            floats[k, EQUITY] = equity
            floats[k, EQUITY_WORST] = worst
            floats[k, PREVIOUS_BALANCE] = balance_before
            floats[k, PREVIOUS_EQUITY] = equity_before
            ints[k, BAR] = i
            ints[k, STATUS] = status
            if path is not None:
                path[s, k, P_BALANCE] = floats[k, BALANCE]
                path[s, k, P_EQUITY] = equity
                path[s, k, P_WORST] = worst
                path[s, k, P_MARGIN] = floats[k, MARGIN]
                path[s, k, P_LONG_STEPS] = held(floats, k, 0)
                path[s, k, P_SHORT_STEPS] = held(floats, k, 1)
