"""Accounts that move bar by bar, many at once, in the compiled or the plain form of one transition function."""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from halfstep.broker import _hedged, _kernel, _layout, _observe
from halfstep.broker import _layout as c
from halfstep.broker.deals import DealLog
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import GAP_FILL, INTRABAR, AccountRules
from halfstep.broker.state import ACTION_SIZE, AccountState, Counts, Money, begin_episodes, reset_accounts
from halfstep.broker.table import MarketTable
from halfstep.errors import ActionError, ConfigError
from halfstep.market.instruments import Instrument

Bytes = npt.NDArray[np.uint8]
Backend = Literal["auto", "python", "single", "batch"]

PARALLEL_FROM = 500  # accounts; below, starting the threads costs more than it saves
RUNNING, TERMINATED, TRUNCATED = c.RUNNING, c.TERMINATED, c.TRUNCATED
_SOURCES: dict[str, Callable[..., None]] = {
    "netted": _kernel.step_accounts,
    "hedged": _hedged.step_hedged,
    "observe": _observe.observe_accounts,
}


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did to each account, or with a leading axis what many steps did.

    Attributes:
        reward: ln(max(equity, floor) / max(equity before, floor)), ``(accounts,)``.
        components: change of balance, change of equity, minus the idle charge; account currency, ``(accounts, 3)``.
        executed: lots held after the action, and the levels it asked for, ``(accounts, 6)``; levels are 0 where
            the action was not looked at.
        outcome: an `Outcome` for each account, ``(accounts,)``.
        flags: a set of `Flag` for each account, ``(accounts,)``.
        status: 0 running, 1 terminated (ruin), 2 truncated (end of the span), ``(accounts,)``.
    """

    outputs: Money
    marks: Bytes
    actions: Money
    status: Counts

    @property
    def reward(self) -> Money:  # noqa: D102  described above
        return self.outputs[..., c.REWARD]

    @property
    def components(self) -> Money:  # noqa: D102
        return self.outputs[..., c.COMPONENTS : c.COMPONENTS + 3]

    @property
    def executed(self) -> Money:  # noqa: D102
        outcome = self.outcome[..., None]
        is_read = (outcome != Outcome.NONFINITE) & (outcome != Outcome.STOPPED_OUT)
        executed = np.where(is_read, self.actions, 0.0)
        executed[..., 0] = self.outputs[..., c.EXECUTED]
        executed[..., 3] = self.outputs[..., c.EXECUTED + 1]
        return executed

    @property
    def outcome(self) -> Bytes:  # noqa: D102
        return self.marks[..., 0]

    @property
    def flags(self) -> Bytes:  # noqa: D102
        return self.marks[..., 1]


def step(
    state: AccountState,
    actions: Money,
    table: MarketTable,
    rules: AccountRules,
    *,
    backend: Backend = "auto",
) -> tuple[AccountState, StepResult]:
    """Return the accounts one bar later, and what happened; nothing given is changed.

    Args:
        state: one account or many, from `reset_accounts`; each moves to the bar after its ``state.bar``.
        actions: ``(accounts, 6)``, or ``(6,)`` for one account: buy lots, buy TP, buy SL, sell lots, sell TP, sell
            SL; levels as fractions of the instrument's ``level_scale_points``.

    Example:
        >>> from halfstep.broker import AccountRules, market_table, reset_accounts, step
        >>> from halfstep.market.instruments import instrument
        >>> from halfstep.market.synthetic import random_bars
        >>> rules = AccountRules()
        >>> table = market_table(random_bars(100, seed=1), instrument("EURUSD"), rules)
        >>> state = reset_accounts(table, rules, 1, first=10, stop=99)
        >>> after, result = step(state, np.array([0.1, 0.5, 0.5, 0, 0, 0]), table, rules, backend="python")
        >>> int(state.bar[0]), int(after.bar[0]), int(after.long_.steps[0])
        (10, 11, 10)
    """
    engine = Engine(table, rules, len(state), backend)
    after = state.copy()
    outputs, marks = np.zeros((1, len(state), c.OUTPUTS)), np.zeros((1, len(state), 2), np.uint8)
    executed = engine.advance(after, np.reshape(actions, (1, len(state), ACTION_SIZE)), outputs, marks)
    return after, StepResult(outputs[0], marks[0], executed[0], after.status)


class Engine:
    """The transition for one table and one set of rules, in the form that fits a number of accounts."""

    def __init__(self, table: MarketTable, rules: AccountRules, n: int, backend: Backend = "auto") -> None:
        if table.pricing != rules.pricing:
            raise ConfigError(
                f"rules: currency, cost_scale, spread_floor_points {rules.pricing}, must be {table.pricing} as "
                "of the market table. Make the table anew with market_table(bars, instrument, rules)."
            )
        if rules.intrabar == "m1" and table.detail is None:
            raise ConfigError(
                "intrabar: 'm1', needs finer bars. Give market_table(..., detail=bars), or use stop_first."
            )
        self.table, self.rules = table, rules
        self._backend: Backend = backend if backend != "auto" else "batch" if n >= PARALLEL_FROM else "single"
        self.vector = rules_vector(rules, table.instrument)
        self.base_point = table.instrument.point if rules.currency == table.instrument.base else None
        detail = table.detail if rules.intrabar == "m1" else None
        self._detail = (None, None) if detail is None else (detail.values, detail.rows)
        self._step = form("netted" if rules.net_opposite else "hedged", self._backend)
        self._observe = form("observe", self._backend)

    def advance(
        self,
        state: AccountState,
        actions: Money,
        outputs: Money,
        marks: Bytes,
        log: DealLog | None = None,
        path: Money | None = None,
    ) -> Money:
        """Move accounts in place by one bar per row of actions, ``(steps, accounts, 6)``; return what was executed."""
        actions = np.ascontiguousarray(actions, np.float64)
        if len(state.pending):
            waiting = np.concatenate([state.pending, actions])
            actions = np.ascontiguousarray(waiting[: len(actions)])
            state.pending[:] = waiting[len(actions) :]
        self._step(
            self.vector,
            self.base_point,
            self.table.values,
            *self._detail,
            state.floats,
            state.ints,
            state.counts,
            actions,
            outputs,
            marks,
            None if log is None else log.records,
            None if log is None else log.counts,
            path,
        )
        return actions

    def observe(self, state: AccountState, numbers: Money, vectors: npt.NDArray[np.float32] | None) -> None:
        """Write the eight numbers and the vector of every account, see `BatchedAccounts.numbers`."""
        table = self.table
        self._observe(
            self.vector,
            self.base_point,
            table.values,
            table.server_time,
            table.harmonics if vectors is not None else None,
            table.bars.timeframe.seconds,
            state.floats,
            state.ints,
            numbers,
            vectors,
        )


class BatchedAccounts:
    """Any number of accounts on one market, moved in lockstep or each at its own bar.

    Args:
        table: the market; the last usable bar is its last one.
        rules: of every account.
        n: number of accounts.
        log_capacity: most deals recorded per account; 0 = no log.
        backend: ``"python"`` is the plain reference, ``"single"`` the compiled form, ``"batch"`` the compiled form
            on all threads, ``"auto"`` the faster of the last two. All give equal bits.
    """

    def __init__(
        self,
        table: MarketTable,
        rules: AccountRules,
        n: int,
        *,
        log_capacity: int = 0,
        backend: Backend = "auto",
    ) -> None:
        self.table, self.rules, self.n = table, rules, n
        self.engine = Engine(table, rules, n, backend)
        self.state = reset_accounts(table, rules, n, first=0, stop=len(table) - 1)
        self.log = DealLog(n, log_capacity)
        self._outputs = np.zeros((1, n, c.OUTPUTS))
        self._marks = np.zeros((1, n, 2), np.uint8)

    def reset(
        self,
        *,
        first: int | Counts,
        stop: int | Counts,
        seed: int | Counts = 0,
        episode: int | Counts = 0,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Begin new episodes with the deposit.

        Args:
            first: newest closed bar at the first decision, per account or for all.
            stop: the episode's last bar, on which the last action is executed; after ``first``.
            seed: of random slippage.
            episode: number that the state carries.
            mask: accounts to reset, ``(n,)``; the other arguments are then per masked account. Default: all,
                which also clears the log.
        """
        chosen = np.ones(self.n, np.bool_) if mask is None else mask
        begin_episodes(
            self.state, chosen, self.table, self.rules, first=first, stop=stop, seed=seed, episode=episode
        )
        if mask is None:
            self.log.clear()

    def step(self, actions: Money) -> StepResult:
        """Execute one action per account, ``(accounts, 6)``, at the open of its next bar.

        The arrays of the result are reused by the next step; copy what is to be kept.
        """
        if actions.shape != (self.n, ACTION_SIZE):
            raise ActionError(f"actions: shape {actions.shape}, must be {(self.n, ACTION_SIZE)}.")
        executed = self.engine.advance(
            self.state, actions[None], self._outputs, self._marks, self.log.recording
        )
        return StepResult(self._outputs[0], self._marks[0], executed[0], self.state.status)

    def play(self, actions: Money) -> StepResult:
        """Execute many actions in one compiled call, ``(steps, accounts, 6)``; accounts that end stay as they are."""
        if actions.ndim != 3 or actions.shape[1:] != (self.n, ACTION_SIZE):
            raise ActionError(f"actions: shape {actions.shape}, must be (steps, {self.n}, {ACTION_SIZE}).")
        outputs = np.zeros((len(actions), self.n, c.OUTPUTS))
        marks = np.zeros((len(actions), self.n, 2), np.uint8)
        executed = self.engine.advance(self.state, actions, outputs, marks, self.log.recording)
        return StepResult(outputs, marks, executed, self.state.status)

    @property
    def is_running(self) -> bool:
        """Whether any account still trades."""
        return bool((self.state.status == RUNNING).any())

    def numbers(self) -> Money:
        """Return balance, equity, buy lots, sell lots, buy profit, sell profit, discount, server seconds.

        ``(accounts, 8)``, at the close of each account's newest bar; profits at closing quotes, swap included;
        discount = sum over sides of profit - (age / 10 hours) |profit|, so that a gain counts nothing after ten
        hours.
        """
        numbers = np.empty((self.n, 8))
        self.engine.observe(self.state, numbers, None)
        return numbers

    def vectors(self) -> npt.NDArray[np.float32]:
        """Return what a network reads of each account, ``(accounts, 12)``: `halfstep.market.state.account_vector`."""
        return self.observe()[1]

    def observe(self) -> tuple[Money, npt.NDArray[np.float32]]:
        """Return `numbers` and `vectors` from one pass over the accounts."""
        numbers, vectors = np.empty((self.n, 8)), np.empty((self.n, _observe.VECTOR_SIZE), np.float32)
        self.engine.observe(self.state, numbers, vectors)
        return numbers, vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One account's path under a list of actions, per executed bar.

    Attributes:
        bar: index of each bar, ``(bars,)``.
        balance, equity, equity_worst, margin: account currency after each bar, ``(bars,)``.
        buy_lots, sell_lots: held after each bar, ``(bars,)``.
        reward, components, executed, outcome, flags: see `StepResult`.
        status: at the end.
        log: the deals.
        ambiguous: positions decided by the intrabar rule.
        detail_missing: bars held through without finer bars to ask, under ``intrabar="m1"``.
        state: the account at the end.
    """

    bar: Counts
    balance: Money
    equity: Money
    equity_worst: Money
    margin: Money
    buy_lots: Money
    sell_lots: Money
    reward: Money
    components: Money
    executed: Money
    outcome: Bytes
    flags: Bytes
    status: int
    log: DealLog
    ambiguous: int
    detail_missing: int
    state: AccountState

    @property
    def lots(self) -> Money:
        """Bought minus sold lots, ``(bars,)``."""
        return self.buy_lots - self.sell_lots


def run_actions(
    table: MarketTable,
    rules: AccountRules,
    actions: Money,
    first: int,
    *,
    seed: int = 0,
    backend: Backend = "auto",
) -> Run:
    """Replay a list of actions, ``(bars, 6)``, on one account; the first is decided at the close of bar ``first``.

    The tool of replay, baselines and sensitivity. Ends early where the account is ruined.
    """
    n = len(actions)
    accounts = BatchedAccounts(
        table, rules, 1, log_capacity=n * (4 if rules.net_opposite else 8), backend=backend
    )
    accounts.reset(first=first, stop=first + n, seed=seed)
    outputs, marks = np.zeros((n, 1, c.OUTPUTS)), np.zeros((n, 1, 2), np.uint8)
    path = np.zeros((n, 1, c.PATH))
    given = np.asarray(actions, np.float64)[:, None]
    executed = accounts.engine.advance(accounts.state, given, outputs, marks, accounts.log, path)
    done = int(accounts.state.bar[0]) - first
    result = StepResult(outputs[:done, 0], marks[:done, 0], executed[:done, 0], accounts.state.status)
    lot_step = table.instrument.lot_step
    return Run(
        bar=np.arange(first + 1, first + 1 + done),
        balance=path[:done, 0, c.P_BALANCE],
        equity=path[:done, 0, c.P_EQUITY],
        equity_worst=path[:done, 0, c.P_WORST],
        margin=path[:done, 0, c.P_MARGIN],
        buy_lots=np.asarray(path[:done, 0, c.P_LONG_STEPS] * lot_step, np.float64),
        sell_lots=np.asarray(path[:done, 0, c.P_SHORT_STEPS] * lot_step, np.float64),
        reward=result.reward,
        components=result.components,
        executed=result.executed,
        outcome=result.outcome,
        flags=result.flags,
        status=int(accounts.state.status[0]),
        log=accounts.log,
        ambiguous=int(accounts.state.ambiguous[0]),
        detail_missing=int(accounts.state.detail_missing[0]),
        state=accounts.state,
    )


def action_from_fractions(fractions: Money, rules: AccountRules) -> Money:
    """Return an action from six numbers in [0, 1]: volumes are multiplied by the lot cap."""
    scale = np.array([rules.lot_cap, 1, 1, rules.lot_cap, 1, 1])
    return np.asarray(fractions * scale, np.float64)


def rules_vector(rules: AccountRules, instrument: Instrument) -> Money:
    """Return the numbers that the kernel reads of rules and instrument, see the R_ names of `_layout`."""
    costs = rules.cost_scale
    commission = instrument.commission if rules.commission is None else rules.commission
    hedged = (
        instrument.contract_size
        if instrument.hedged_contract_size is None
        else instrument.hedged_contract_size
    )
    mode = {instrument.quote: c.QUOTE_IS_ACCOUNT, instrument.base: c.BASE_IS_ACCOUNT}
    swaps = [swap * costs if swap < 0 else swap for swap in (instrument.swap_long, instrument.swap_short)]
    steps_per_lot = 1 / instrument.lot_step
    vector = np.zeros(c.RULES_SIZE)
    vector[c.R_STEP_MONEY] = instrument.point_value * instrument.lot_step
    vector[c.R_LOT_STEP] = instrument.lot_step
    vector[c.R_MIN_STEPS] = round(instrument.lot_min * steps_per_lot)
    vector[c.R_CAP_STEPS] = np.floor(min(rules.lot_cap, instrument.lot_max) * steps_per_lot + 1e-6)
    vector[c.R_LEVEL_SCALE] = instrument.level_scale_points
    vector[c.R_MIN_DISTANCE] = max(instrument.stops_level_points, 1)
    vector[c.R_COMMISSION] = commission * instrument.lot_step * costs
    vector[c.R_SLIPPAGE] = np.floor(rules.slippage_points * costs + 0.5)
    vector[c.R_SLIPPAGE_RANDOM] = rules.slippage_random_points
    vector[c.R_COST_SCALE] = costs
    vector[c.R_MARGIN_FACTOR] = (
        instrument.lot_step * instrument.contract_size * instrument.margin_rate / rules.leverage
    )
    vector[c.R_HEDGED_SHARE] = hedged / instrument.contract_size
    vector[c.R_POINT] = instrument.point
    vector[c.R_STOP_OUT] = rules.stop_out
    vector[c.R_FLOOR] = rules.floor
    vector[c.R_INTRABAR] = INTRABAR.index(rules.intrabar)
    vector[c.R_GAP_FILL] = GAP_FILL.index(rules.gap_fill)
    vector[c.R_ZERO_IS_NONE] = rules.zero_level == "none"
    vector[c.R_CLOSE_AT_END] = rules.close_at_end
    vector[c.R_RATE_MODE] = mode.get(rules.currency, c.RATES_GIVEN)
    vector[c.R_SWAP_LONG], vector[c.R_SWAP_SHORT] = swaps
    vector[c.R_SWAP_PERCENT] = instrument.swap_mode == "percent"
    vector[c.R_IDLE_MONEY] = instrument.point_value * rules.idle_lots
    vector[c.R_PER_10K] = rules.volume_unit == "lots_per_10k"
    vector[c.R_HOLD_BAND] = rules.hold_band_steps
    return vector


@functools.cache
def form(kind: Literal["netted", "hedged", "observe"], backend: Backend) -> Callable[..., None]:
    """Return a function of the engine in the form asked for.

    The compiler's disk cache tells functions apart by file and name only, so the compiled forms get names of
    their own that also hold a hash of all the sources they are made of.
    """
    source = _SOURCES[kind]
    if backend == "python":
        return source
    name = f"{source.__name__}_{backend}_{_sources_hash()}"
    code = source.__code__.replace(co_name=name, co_qualname=name)
    renamed = types.FunctionType(code, source.__globals__, name)
    renamed.__qualname__ = name
    options: dict[str, Any] = {"error_model": "numpy", "parallel": backend == "batch"}
    try:
        return njit(cache=True, **options)(renamed)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder to write the cache to
        return njit(**options)(renamed)  # type: ignore[no-any-return]


@functools.cache
def _sources_hash() -> str:
    text = "".join(inspect.getsource(module) for module in (_layout, _kernel, _hedged, _observe))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
