"""Accounts that move bar by bar, many at once, in the compiled or the plain form of one transition function."""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from halfstep.broker import _kernel
from halfstep.broker.deals import DealLog
from halfstep.broker.outcomes import Flag, Outcome
from halfstep.broker.rules import GAP_FILL, INTRABAR, AccountRules
from halfstep.broker.table import CLOSE, SPREAD, MarketTable
from halfstep.errors import ActionError, CoverageError
from halfstep.market.instruments import Instrument

Money = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Backend = Literal["auto", "python", "single", "batch"]

PARALLEL_FROM = 500  # accounts; below, starting the threads costs more than it saves
ACTION_SIZE = 6
RUNNING, TERMINATED, TRUNCATED = 0, 1, 2
DISCOUNT_SECONDS = 36_000.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did to each account. The arrays are reused by the next step; copy what is to be kept.

    Attributes:
        reward: ln(max(equity, floor) / max(equity before, floor)), ``(accounts,)``.
        components: change of balance, change of equity, minus the idle charge; account currency, ``(accounts, 3)``.
        executed: the netted action on the lot grid, 0 lots where refused, levels as asked, ``(accounts, 6)``.
        outcome: an `Outcome` for each account, ``(accounts,)``.
        flags: a set of `Flag` for each account, ``(accounts,)``.
        status: 0 running, 1 terminated (ruin), 2 truncated (end of the span), ``(accounts,)``.
    """

    reward: Money
    components: Money
    executed: Money
    outcome: Bytes
    flags: Bytes
    status: Counts


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
        self._vector = rules_vector(rules, table.instrument)
        self._step = (
            _form("batch" if n >= PARALLEL_FROM else "single") if backend == "auto" else _form(backend)
        )
        self._outputs = np.zeros((n, _kernel.OUTPUTS))
        self._marks = np.zeros((n, 2), np.uint8)
        self.log = DealLog(n, log_capacity)
        self.floats = np.zeros((n, _kernel.FLOATS))
        self.ints = np.zeros((n, _kernel.INTS), np.int64)
        self.outcomes = np.zeros((n, len(Outcome) + len(Flag)), np.int64)
        """Counts of the eight outcomes and the five flags since the reset, ``(accounts, 13)``."""

    def reset(self, *, first: int | Counts, stop: int | Counts) -> None:
        """Begin new episodes with the deposit.

        Args:
            first: newest closed bar at the first decision, per account or for all; at least 1.
            stop: the episode's last bar, on which the last action is executed; after ``first``.
        """
        firsts, stops = np.broadcast_to(first, self.n), np.broadcast_to(stop, self.n)
        if (firsts < 0).any() or (firsts >= stops).any() or (stops >= len(self.table)).any():
            raise CoverageError(
                f"an episode from bar {int(firsts.min())} to {int(stops.max())}, "
                f"but the market has bars 0 to {len(self.table) - 1}",
                hint="First must lie before stop, and both inside the bars.",
            )
        self.floats[:] = 0.0
        self.floats[:, : _kernel.EQUITY_WORST + 1] = self.rules.deposit
        self.ints[:] = 0
        self.ints[:, _kernel.BAR] = firsts
        self.ints[:, _kernel.STOP] = stops
        self.outcomes[:] = 0
        self.log.clear()

    def step(self, actions: Money) -> StepResult:
        """Execute one action per account, ``(accounts, 6)``, at the open of its next bar."""
        if actions.shape != (self.n, ACTION_SIZE):
            raise ActionError(f"actions: shape {actions.shape}, must be {(self.n, ACTION_SIZE)}.")
        self._step(
            self._vector,
            self.table.values,
            self.floats,
            self.ints,
            np.ascontiguousarray(actions, np.float64),
            self._outputs,
            self._marks,
            self.outcomes,
            self.log.records,
            self.log.counts,
        )
        return StepResult(
            reward=self._outputs[:, 0],
            components=self._outputs[:, 1:4],
            executed=self._outputs[:, 4:10],
            outcome=self._marks[:, 0],
            flags=self._marks[:, 1],
            status=self.ints[:, _kernel.STATUS],
        )

    @property
    def is_running(self) -> bool:
        """Whether any account still trades."""
        return bool((self.ints[:, _kernel.STATUS] == RUNNING).any())

    def numbers(self) -> Money:
        """Return balance, equity, buy lots, sell lots, buy profit, sell profit, discount, server seconds.

        ``(accounts, 8)``, at the close of each account's newest bar; profits at closing quotes, swap included;
        discount = profit - (age / 10 hours) |profit|, so that a gain counts nothing after ten hours.
        """
        floats, bar, steps = self.floats, self.ints[:, _kernel.BAR], self.ints[:, _kernel.STEPS]
        out = np.zeros((self.n, 8))
        out[:, 0] = floats[:, _kernel.BALANCE]
        out[:, 1] = floats[:, _kernel.EQUITY]
        lots = steps * self._vector[_kernel.R_LOT_STEP]
        out[:, 2], out[:, 3] = np.maximum(lots, 0.0), np.maximum(-lots, 0.0)
        profit = np.where(steps != 0, floats[:, _kernel.EQUITY] - floats[:, _kernel.BALANCE], 0.0)
        out[:, 4], out[:, 5] = np.where(steps > 0, profit, 0.0), np.where(steps < 0, profit, 0.0)
        age = self.table.bars.close_time[bar] - floats[:, _kernel.OPENED]
        out[:, 6] = np.where(steps != 0, profit - age / DISCOUNT_SECONDS * np.abs(profit), 0.0)
        out[:, 7] = self.table.server_time[bar]
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One account's path under a list of actions, per executed bar.

    Attributes:
        bar: index of each bar, ``(bars,)``.
        balance, equity, equity_worst, margin: account currency after each bar, ``(bars,)``.
        lots: signed, ``(bars,)``.
        reward, components, executed, outcome, flags: see `StepResult`.
        status: at the end.
        log: the deals.
        ambiguous: positions decided by the intrabar rule.
    """

    bar: Counts
    balance: Money
    equity: Money
    equity_worst: Money
    margin: Money
    lots: Money
    reward: Money
    components: Money
    executed: Money
    outcome: Bytes
    flags: Bytes
    status: int
    log: DealLog
    ambiguous: int


def run_actions(
    table: MarketTable, rules: AccountRules, actions: Money, first: int, *, backend: Backend = "auto"
) -> Run:
    """Replay a list of actions, ``(bars, 6)``, on one account; the first is decided at the close of bar ``first``.

    The tool of replay, baselines and sensitivity. Ends early where the account is ruined.
    """
    n = len(actions)
    accounts = BatchedAccounts(table, rules, 1, log_capacity=4 * n, backend=backend)
    accounts.reset(first=first, stop=first + n)
    floats = np.zeros((n, _kernel.FLOATS))
    steps = np.zeros(n, np.int64)
    outputs = np.zeros((n, _kernel.OUTPUTS))
    marks = np.zeros((n, 2), np.uint8)
    replay = _replay_form(backend)
    done = replay(
        accounts._vector,
        table.values,
        accounts.floats,
        accounts.ints,
        np.ascontiguousarray(actions, np.float64),
        outputs,
        marks,
        accounts.outcomes,
        accounts.log.records,
        accounts.log.counts,
        floats,
        steps,
    )
    return Run(
        bar=np.arange(first + 1, first + 1 + done),
        balance=floats[:done, _kernel.BALANCE],
        equity=floats[:done, _kernel.EQUITY],
        equity_worst=floats[:done, _kernel.EQUITY_WORST],
        margin=floats[:done, _kernel.MARGIN],
        lots=np.asarray(steps[:done] * table.instrument.lot_step, np.float64),
        reward=outputs[:done, 0],
        components=outputs[:done, 1:4],
        executed=outputs[:done, 4:10],
        outcome=marks[:done, 0],
        flags=marks[:done, 1],
        status=int(accounts.ints[0, _kernel.STATUS]),
        log=accounts.log,
        ambiguous=int(accounts.ints[0, _kernel.AMBIGUOUS]),
    )


def action_from_fractions(fractions: Money, rules: AccountRules) -> Money:
    """Return an action from six numbers in [0, 1]: volumes are multiplied by the lot cap."""
    scale = np.array([rules.lot_cap, 1, 1, rules.lot_cap, 1, 1])
    return np.asarray(fractions * scale, np.float64)


def rules_vector(rules: AccountRules, instrument: Instrument) -> Money:
    """Return the numbers that the kernel reads of rules and instrument, see the R_ names of `_kernel`."""
    costs = rules.cost_scale
    commission = instrument.commission if rules.commission is None else rules.commission
    margin = instrument.lot_step * instrument.contract_size * instrument.margin_rate / rules.leverage
    mode = {instrument.quote: _kernel.QUOTE_IS_ACCOUNT, instrument.base: _kernel.BASE_IS_ACCOUNT}
    swaps = [swap * costs if swap < 0 else swap for swap in (instrument.swap_long, instrument.swap_short)]
    vector = np.zeros(_kernel.RULES_SIZE)
    vector[_kernel.R_STEP_MONEY] = instrument.point_value * instrument.lot_step
    vector[_kernel.R_LOT_STEP] = instrument.lot_step
    vector[_kernel.R_MIN_STEPS] = round(instrument.lot_min / instrument.lot_step)
    vector[_kernel.R_CAP_STEPS] = np.floor(
        min(rules.lot_cap, instrument.lot_max) / instrument.lot_step + 1e-6
    )
    vector[_kernel.R_LEVEL_SCALE] = instrument.level_scale_points
    vector[_kernel.R_MIN_DISTANCE] = max(instrument.stops_level_points, 1)
    vector[_kernel.R_COMMISSION] = commission * instrument.lot_step * costs
    vector[_kernel.R_SLIPPAGE] = np.floor(rules.slippage_points * costs + 0.5)
    vector[_kernel.R_MARGIN_FACTOR] = margin
    vector[_kernel.R_POINT] = instrument.point
    vector[_kernel.R_STOP_OUT] = rules.stop_out
    vector[_kernel.R_FLOOR] = rules.floor
    vector[_kernel.R_INTRABAR] = INTRABAR.index(rules.intrabar)
    vector[_kernel.R_GAP_FILL] = GAP_FILL.index(rules.gap_fill)
    vector[_kernel.R_ZERO_IS_NONE] = rules.zero_level == "none"
    vector[_kernel.R_CLOSE_AT_END] = rules.close_at_end
    vector[_kernel.R_RATE_MODE] = mode.get(rules.currency, _kernel.RATES_GIVEN)
    vector[_kernel.R_SWAP_LONG], vector[_kernel.R_SWAP_SHORT] = swaps
    vector[_kernel.R_SWAP_PERCENT] = instrument.swap_mode == "percent"
    vector[_kernel.R_IDLE_MONEY] = instrument.point_value * rules.idle_lots
    vector[_kernel.R_PER_10K] = rules.volume_unit == "lots_per_10k"
    vector[_kernel.R_HOLD_BAND] = rules.hold_band_steps
    return vector


@functools.cache
def _form(backend: Backend) -> Callable[..., None]:
    """Return the transition function in the form asked for."""
    source: Callable[..., None] = _kernel.step_accounts
    if backend == "python":
        return source
    if backend == "batch":
        # A name of its own: the compiler's disk cache tells functions apart by name, not by options.
        code = source.__code__.replace(co_name="step_accounts_batch", co_qualname="step_accounts_batch")
        source = types.FunctionType(code, source.__globals__, "step_accounts_batch")
        source.__qualname__ = "step_accounts_batch"
        return njit(cache=True, parallel=True)(source)
    return njit(cache=True)(source)


@functools.cache
def _replay_form(backend: Backend) -> Callable[..., int]:
    step: Any = _form("python" if backend == "python" else "single")

    def replay(  # type: ignore[no-untyped-def]
        rules, table, floats, ints, actions, outputs, marks, outcomes, log, log_counts, float_path, step_path
    ):
        for i in range(len(actions)):
            if ints[0, 3] != 0:
                return i
            step(
                rules,
                table,
                floats,
                ints,
                actions[i : i + 1],
                outputs[i : i + 1],
                marks[i : i + 1],
                outcomes,
                log,
                log_counts,
            )
            float_path[i] = floats[0]
            step_path[i] = ints[0, 0]
        return len(actions)

    return replay if backend == "python" else njit(replay)


def closing_quote(table: MarketTable, bar: Counts, side: Money) -> Money:
    """Return the price in points at which a side closes at each bar's close: bid for longs, ask for shorts."""
    return np.asarray(
        table.values[bar, CLOSE] + np.where(side < 0, table.values[bar, SPREAD], 0.0), np.float64
    )
