"""Columns of the arrays that the compiled transition reads and writes: names for numbers, nothing else."""

# Rules vector, float64
(
    R_STEP_MONEY,  # quote currency per point and lot step
    R_LOT_STEP,
    R_MIN_STEPS,
    R_CAP_STEPS,
    R_LEVEL_SCALE,
    R_MIN_DISTANCE,
    R_COMMISSION,  # account currency per lot step and side, scaled
    R_SLIPPAGE,  # points, scaled
    R_SLIPPAGE_RANDOM,  # points, not scaled
    R_COST_SCALE,
    R_MARGIN_FACTOR,  # base currency per lot step
    R_HEDGED_SHARE,  # hedged contract / contract
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
    R_DEPOSIT,
) = range(27)
RULES_SIZE = 27

QUOTE_IS_ACCOUNT, BASE_IS_ACCOUNT, RATES_GIVEN = 0, 1, 2
STOP_FIRST, TARGET_FIRST, ADAPTIVE, MT5_OHLC, M1 = range(5)
CONSERVATIVE, MARKET, LEVEL = range(3)

# Market table and detail table, float64
OPEN, HIGH, LOW, CLOSE, SPREAD, NIGHTS, PROFIT_RATE, MARGIN_RATE, ATR, TIME, COLOUR = range(11)
TABLE_SIZE = 11
DETAIL_SIZE = 5  # the first five

# Account, float64. A position takes six columns; where opposite volumes are netted only the first is used, for
# either side; otherwise the first is the long and the second the short one.
BALANCE, EQUITY, EQUITY_WORST, MARGIN, PREVIOUS_BALANCE, PREVIOUS_EQUITY = range(6)
STEPS, ENTRY, SL, TP, SWAP, OPENED = range(6, 12)  # steps are signed: positive long, negative short
POSITION_SIZE = 6
FLOATS = 18

# Account, int64
BAR, STOP, STATUS, EPISODE, SEED = range(5)
INTS = 5

# Counters, int64: eight outcomes, five flags, then
AMBIGUOUS, DEALS, DETAIL_MISSING = 13, 14, 15
COUNTS = 16

# Output of a step, float64: reward, three components, lots held after the action on the buy and on the sell side
REWARD, COMPONENTS, EXECUTED = 0, 1, 4
OUTPUTS = 6

# Path, float64
P_BALANCE, P_EQUITY, P_WORST, P_MARGIN, P_LONG_STEPS, P_SHORT_STEPS = range(6)
PATH = 6

# Deal, float64
(
    D_BAR,
    D_DETAIL,  # row of the detail bar that decided it, or -1
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
) = range(18)
DEAL_SIZE = 18

RUNNING, TERMINATED, TRUNCATED = 0, 1, 2

# The members of `Outcome`, `Flag`, `Reason` and `Phase` as plain numbers; the last two as floats, because a deal
# is recorded as floats.
FILLED, NONFINITE, STOPPED_OUT, BELOW_MIN_LOT, TP_TOO_CLOSE, SL_TOO_CLOSE, NO_MONEY, HELD = range(8)
NETTED, CAPPED, SL_KEPT, LEVEL_DROPPED, CLOSED_BY_CHECK = 1, 2, 4, 8, 16
BY_ACTION, BY_SL, BY_TP, BY_STOP_OUT, BY_END = 0.0, 1.0, 2.0, 3.0, 4.0
AT_OPEN, AT_ACTION, AT_INSIDE, AT_END = 1.0, 2.0, 3.0, 4.0

# Events that slip; the short side's is one more
SLIP_GAP, SLIP_STOP, SLIP_LOCKED, SLIP_MARKET = 0, 2, 4, 6

FAR = 1e18  # a level that is not set
