"""What the report contains: one frozen value that the page, its charts and all its twins are made of.

The fields stand in the order of the page. Whoever draws reads only this value, so a stored one gives the same page
without trading again: the rows and words are `Report.as_dict`, the tables are frames.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import polars as pl

from halfstep.backtest.figures import Column, Row, Table, TableKind

SCHEMA = "halfstep.report/1"


@dataclass(frozen=True, slots=True)
class Banner:
    """A warning above everything else: its key and its sentences."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """Every number, table and curve of the page.

    Attributes:
        title: symbol, period and span.
        verdict: the one generated sentence.
        currency: of all money.
        representative: whose single run the rows, lists and curves belong to, in words.
        banners: warnings, gravest first.
        settings: of the test; words only.
        summary: what to know first.
        tester: MetaTrader's rows, in its order.
        ours: the rows it does not have.
        uncertainty: intervals, seeds, deflated Sharpe ratio, overfitting.
        remarks: sentences under a table, ``(key of the table, sentence)``: verdicts of optimizers, words on skill.
        assumptions: of data, costs and fills.
        limits: what the page cannot tell.
        versions: of everything that computed; name and version.
        tables: see `TABLES`; one that does not apply is absent.
    """

    title: str
    verdict: str
    currency: str
    representative: str
    banners: tuple[Banner, ...]
    settings: tuple[Row, ...]
    summary: tuple[Row, ...]
    tester: tuple[Row, ...]
    ours: tuple[Row, ...]
    uncertainty: tuple[Row, ...]
    remarks: tuple[tuple[str, str], ...]
    assumptions: tuple[str, ...]
    limits: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]

    def table(self, key: str) -> Table | None:
        """Return the table of a key, or None where it does not apply to this report."""
        return next((table for table in self.tables if table.kind.key == key), None)

    def rows(self) -> Iterator[Row]:
        """Yield every row in the order of the page; keys are unique."""
        for group in ROW_GROUPS:
            yield from getattr(self, group)

    def row(self, key: str) -> Row:
        """Return the row of a key."""
        return next(row for row in self.rows() if row.key == key)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the tables, for JSON: no value is NaN or infinite."""
        return {"schema": SCHEMA} | {
            field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name != "tables"
        }

    @classmethod
    def of(cls, words: dict[str, Any], frames: dict[str, pl.DataFrame]) -> "Report":
        """Return the report whose `as_dict` and frames by key these are.

        Raises:
            ValueError: another schema, or a table with other columns than its kind has.
        """
        if words.get("schema") != SCHEMA:
            raise ValueError(f"schema: {words.get('schema')!r}, must be {SCHEMA!r}.")
        values = {field.name: words[field.name] for field in fields(cls) if field.name != "tables"}
        for group in ROW_GROUPS:
            values[group] = tuple(_row(record) for record in words[group])
        values["banners"] = tuple(Banner(**record) for record in words["banners"])
        for name in ("remarks", "versions"):
            values[name] = tuple((str(a), str(b)) for a, b in words[name])
        for name in ("assumptions", "limits"):
            values[name] = tuple(words[name])
        tables = tuple(Table(kind, frames[kind.key]) for kind in TABLES if kind.key in frames)
        return cls(**values, tables=tables)


ROW_GROUPS = ("settings", "summary", "tester", "ours", "uncertainty")


def _plain(value: Any) -> Any:
    """Return tuples as lists and rows as dictionaries."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return asdict(value) if isinstance(value, Row | Banner) else value


def _row(record: dict[str, Any]) -> Row:
    interval = record["interval"]
    return Row(**record | {"interval": None if interval is None else (interval[0], interval[1])})


def _columns(text: str) -> tuple[Column, ...]:
    """Return columns of ``name: label: unit`` lines."""
    parts = [[part.strip() for part in line.split(":")] for line in text.strip().splitlines()]
    return tuple(Column(name, label, unit) for name, label, unit in parts)  # type: ignore[arg-type]


_BUY_SELL = ("buy_lots", "buy_tp", "buy_sl", "sell_lots", "sell_tp", "sell_sl")
ELEMENTS = ("Buy lots", "Buy target", "Buy stop", "Sell lots", "Sell target", "Sell stop")
_ACTIONS = "\n".join(
    f"{kind}_{name}: {label}, {kind}: {'lots' if name.endswith('lots') else 'growth'}"
    for kind in ("raw", "executed")
    for name, label in zip(_BUY_SELL, ELEMENTS, strict=True)
)

MONTHLY = TableKind(key="monthly", caption="Month by month", form="page", columns=_columns("""
    month: Month: text
    net: Net profit: money
    percent: of the equity at its start: share
    trades: Trades: count
    won: Won: share
    drawdown: Maximal equity drawdown: money
    """))  # fmt: skip
WALK_FORWARD = TableKind(key="walk_forward", caption="Walk-forward: each month from the deposit, by networks that never saw it", form="page", columns=_columns("""
    month: Month: text
    growth: Growth over seeds: share
    low: 95 % from: share
    high: to: share
    worst: Worst seed: share
    best: Best seed: share
    log_growth: Log growth: error
    trades: Trades: mean
    stopped: Stopped out: count
    drawdown: Drawdown, worst: money
    price_change: Price: share
    """))  # fmt: skip
FOLDS = TableKind(key="folds", caption="Each month from the deposit: the seed that is shown, simple rules, and forecasts", form="page", columns=_columns("""
    month: Month: text
    net: Net profit of the seed: money
    always_long: always long: money
    always_short: always short: money
    buy_and_hold: buy and hold: money
    skill: Forecast skill, mean over features: skill
    above: Features forecast better than naively: count
    features: of: count
    """))  # fmt: skip
BASELINES = TableKind(key="baselines", caption="The same bars, deposit, rules and costs", form="page", columns=_columns("""
    name: Rule: text
    net: Net profit: money
    percent: of the deposit: share
    drawdown: Maximal equity drawdown: money
    profit_factor: Profit factor: ratio
    trades: Trades: mean
    note: Note: text
    """))  # fmt: skip
SENSITIVITY = TableKind(key="sensitivity", caption="The same actions under other assumptions", form="page", columns=_columns("""
    key: Key: text
    name: Assumption: text
    net: Net profit: money
    difference: Difference to the test: money
    profit_factor: Profit factor: ratio
    trades: Trades: count
    drawdown: Maximal equity drawdown: money
    ambiguous: Positions decided by the rule inside a bar: count
    ambiguous_share: of the trades: share
    """))  # fmt: skip
SIDES = TableKind(key="sides", caption="Long and short", form="page", is_transposed=True, columns=_columns("""
    side: Side: text
    trades: Trades: count
    won: Won: share
    net: Net profit: money
    profit_factor: Profit factor: ratio
    mean_net: Mean net: money
    holding: Mean holding time: seconds
    action: Closed by an action: count
    sl: by the stop: count
    tp: by the target: count
    stop_out: by a stop-out: count
    end: by the end of the test: count
    """))  # fmt: skip
OUTCOMES = TableKind(key="outcomes", caption="What became of the decisions", form="page", columns=_columns("""
    name: Outcome: text
    kind: Kind: text
    count: Decisions: count
    share: Share: share
    """))  # fmt: skip
COSTS = TableKind(key="costs", caption="From the mid price to the net result", form="page", columns=_columns("""
    part: Part: text
    money: Money: money
    """))  # fmt: skip
AMBIGUOUS = TableKind(key="ambiguous", caption="Positions decided by the rule inside a bar", form="page", columns=_columns("""
    rule: Rule: text
    positions: Positions: count
    net: Their net: money
    """))  # fmt: skip
SEEDS = TableKind(key="seeds", caption="Each seed on the test span", form="page", columns=_columns("""
    seed: Seed: count
    net: Net profit: money
    percent: of the deposit: share
    log_growth: Log growth: skill
    drawdown: Maximal equity drawdown: money
    trades: Trades: count
    won: Won: share
    profit_factor: Profit factor: ratio
    """))  # fmt: skip
SEED_ROWS = TableKind(key="seed_rows", caption="Each row over the seeds", form="page", columns=_columns("""
    key: Key: text
    label: Row: text
    unit: Unit: text
    seeds: Seeds with a value: count
    mean: Interquartile mean: row
    low: 95 % from: row
    high: to: row
    least: Least: row
    greatest: Greatest: row
    """))  # fmt: skip
OPTIMIZERS = TableKind(key="optimizers", caption="Same seeds, batches, schedule and trajectories; only the optimizer differs", form="page", is_transposed=True, columns=_columns("""
    optimizer: Optimizer: text
    parameters: Parameters: count
    predicted_bytes: State bytes, predicted from the partition: bytes
    state_bytes: State bytes, measured: bytes
    bytes_per_parameter: State bytes per parameter: ratio
    share_of_adamw: State, share of AdamW's: share
    peak_bytes: Peak memory, bytes: bytes
    memory_method: Peak memory, how measured: text
    step_ms: Step, median ms: ms
    step_low_ms: Step, lower quartile ms: ms
    step_high_ms: Step, upper quartile ms: ms
    seconds: Total time, mean: seconds
    updates_to_best: Updates to the best validation loss, mean: mean
    loss: Validation loss, interquartile mean: error
    loss_low: Validation loss, 95 % from: error
    loss_high: Validation loss, 95 % to: error
    loss_difference: Loss, paired difference to AdamW: error
    loss_difference_low: Loss difference, 95 % from: error
    loss_difference_high: Loss difference, 95 % to: error
    loss_margin: Loss, equivalence margin: error
    loss_verdict: Verdict on the loss: text
    net: Test net profit, interquartile mean: money
    net_low: Test net profit, 95 % from: money
    net_high: Test net profit, 95 % to: money
    growth: Test log growth, interquartile mean: skill
    growth_low: Test log growth, 95 % from: skill
    growth_high: Test log growth, 95 % to: skill
    growth_difference: Log growth, paired difference to AdamW: skill
    growth_difference_low: Log growth difference, 95 % from: skill
    growth_difference_high: Log growth difference, 95 % to: skill
    growth_margin: Log growth, equivalence margin: skill
    growth_verdict: Verdict on the log growth: text
    seeds: Seeds: count
    """))  # fmt: skip
FORECAST = TableKind(key="forecast", caption="Forecasts of the encoder on the test bars", form="page", columns=_columns("""
    feature: Feature: text
    mse: Mean squared error: error
    last_value: of the last value: error
    window_mean: of the window's mean: error
    same_hour: of the same hour yesterday: error
    skill: Skill: skill
    low: 95 % from: skill
    high: to: skill
    signs: Right signs of the 24-bar sum: share
    signs_low: 95 % from: share
    signs_high: to: share
    origins: Origins: count
    """))  # fmt: skip
TRADES = TableKind(key="trades", caption="Trades", form="list", columns=_columns("""
    number: No.: count
    time: Time: time
    side: Side: text
    reason: Reason: text
    lots: Lots: lots
    price: Price: price
    entry_price: Entry price: price
    commission: Commission: money
    swap: Swap: money
    profit: Profit: money
    net: Net: money
    balance: Balance: money
    """))  # fmt: skip
POSITIONS = TableKind(key="positions", caption="Positions", form="list", columns=_columns("""
    number: No.: count
    side: Side: text
    open_time: Opened: time
    close_time: Closed: time
    lots: Lots: lots
    open_price: Open price: price
    close_price: Close price: price
    sl: Stop: price
    tp: Target: price
    reason: Closed by: text
    commission: Commission: money
    swap: Swap: money
    profit: Profit: money
    net: Net: money
    mfe: MFE: money
    mae: MAE: money
    held_seconds: Held: seconds
    ambiguous: Decided by the rule inside a bar: flag
    """))  # fmt: skip
DEALS = TableKind(key="deals", caption="Deals", form="long", columns=_columns("""
    number: No.: count
    time: Time: time
    side: Side: text
    entry: Entry: text
    reason: Reason: text
    lots: Lots: lots
    price: Price: price
    spread_points: Spread: points
    slippage_points: Slippage: points
    commission: Commission: money
    swap: Swap: money
    profit: Profit: money
    balance: Balance: money
    """))  # fmt: skip
EQUITY = TableKind(key="equity", caption="After each bar", form="long", columns=_columns("""
    time: Close of the bar: time
    balance: Balance: money
    equity: Equity: money
    equity_worst: Worst equity inside the bar: money
    margin_level: Equity / margin: share
    lots: Bought minus sold lots: lots
    """))  # fmt: skip
ORDERS = TableKind(key="orders", caption="Decisions", form="long", columns=_columns(f"""
    time: Executed at the open of: time
    {_ACTIONS}
    outcome: Outcome: text
    flags: Flags: text
    """))  # fmt: skip
BY_TIME = TableKind(key="by_time", caption="Positions by the time they were opened, trades by the time they closed", form="curve", columns=_columns("""
    by: By: text
    group: Group: count
    entries: Entries: count
    profit: Profit: money
    loss: Loss: money
    """))  # fmt: skip
ACTIONS = TableKind(key="actions", caption="What was asked and what was executed", form="curve", columns=_columns("""
    element: Element: text
    kind: Kind: text
    low: From: growth
    high: to: growth
    count: Decisions: count
    """))  # fmt: skip
BAND = TableKind(key="band", caption="Buy and hold, and the middle nine tenths of random trading", form="curve", columns=_columns("""
    time: Close of the bar: time
    buy_and_hold: Buy and hold: money
    random_low: Random, 5 %: money
    random_high: Random, 95 %: money
    """))  # fmt: skip
RANDOM = TableKind(key="random", caption="Net profit of each random policy", form="curve", columns=_columns("""
    net: Net profit: money
    trades: Trades: count
    """))  # fmt: skip
SEED_CURVES = TableKind(key="seed_curves", caption="Equity of each seed", form="curve", columns=_columns("""
    seed: Seed: count
    time: Close of the bar: time
    equity: Equity: money
    """))  # fmt: skip
PROFILE = TableKind(key="profile", caption="Share of seeds that earn at least so much", form="curve", columns=_columns("""
    net: Net profit: money
    share: Share of seeds: share
    low: 95 % from: share
    high: to: share
    """))  # fmt: skip
LOSS = TableKind(key="loss", caption="Loss by epoch", form="curve", columns=_columns("""
    optimizer: Optimizer: text
    seed: Seed: count
    epoch: Epoch: count
    train: Training loss: error
    validation: Validation loss: error
    is_chosen: Chosen: flag
    """))  # fmt: skip
PBO = TableKind(key="pbo", caption="Logit of the in-sample winner's rank out of sample", form="curve", columns=_columns("""
    logit: Logit: ratio
    """))  # fmt: skip
FORECAST_WINDOWS = TableKind(key="forecast_windows", caption="Forecasts on unseen bars", form="curve", columns=_columns("""
    window: Window: count
    time: Newest known bar: time
    feature: Feature: text
    step: Bars from the newest known bar: count
    known: Known: error
    truth: What came: error
    forecast: Forecast: error
    """))  # fmt: skip
FORECAST_HORIZONS = TableKind(key="forecast_horizons", caption="Skill by horizon", form="curve", columns=_columns("""
    feature: Feature: text
    horizon: Bars ahead: count
    mse: Mean squared error: error
    naive_mse: of the best naive forecast: error
    skill: Skill: skill
    low: 95 % from: skill
    high: to: skill
    """))  # fmt: skip
QUALITY = TableKind(key="quality", caption="History quality", form="curve", columns=_columns("""
    part: Part of the span: count
    share: Quality: share
    """))  # fmt: skip

TABLES = (
    BASELINES, SEEDS, SEED_ROWS, MONTHLY, WALK_FORWARD, FOLDS, SIDES, OUTCOMES, COSTS, AMBIGUOUS, SENSITIVITY, OPTIMIZERS, FORECAST,
    TRADES, POSITIONS, DEALS, EQUITY, ORDERS, BY_TIME, ACTIONS, BAND, RANDOM, SEED_CURVES, PROFILE, LOSS, PBO,
    FORECAST_WINDOWS, FORECAST_HORIZONS, QUALITY,
)  # fmt: skip
"""Every table in the order of the page; charts read those of the form ``curve``, ``equity``, ``positions`` and others."""
