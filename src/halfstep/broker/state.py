"""What the engine remembers of accounts: a structure of arrays with names for its columns."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from halfstep.broker import _layout as c
from halfstep.broker.outcomes import Flag, Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.errors import CoverageError

Money = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

ACTION_SIZE = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """One side of every account; zeros where it is not held.

    Attributes:
        steps: lot steps, not negative, ``(accounts,)`` int64.
        entry, sl, tp: average entry, stop and target in points, 0 = none, ``(accounts,)``.
        swap: accrued and not yet in the balance, account currency.
        opened: volume-weighted UTC second of the openings.
    """

    steps: Counts
    entry: Money
    sl: Money
    tp: Money
    swap: Money
    opened: Money


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AccountState:
    """Any number of accounts. `broker.step` returns a new one; `BatchedAccounts` changes its own in place.

    Attributes:
        floats, ints, counts: ``(accounts, 18)`` float64, ``(accounts, 5)`` and ``(accounts, 16)`` int64, read
            through the properties.
        pending: actions held back by ``delay_bars``, oldest first, ``(delay_bars, accounts, 6)``.
    """

    floats: Money
    ints: Counts
    counts: Counts
    pending: Money

    def __len__(self) -> int:
        return len(self.floats)

    def copy(self) -> Self:
        """Return the same accounts in arrays of their own."""
        return type(self)(
            floats=self.floats.copy(),
            ints=self.ints.copy(),
            counts=self.counts.copy(),
            pending=self.pending.copy(),
        )

    @property
    def balance(self) -> Money:
        """Money of closed deals, account currency."""
        return self.floats[:, c.BALANCE]

    @property
    def equity(self) -> Money:
        """Balance + swap + profit at the close, account currency."""
        return self.floats[:, c.EQUITY]

    @property
    def equity_worst(self) -> Money:
        """Least equity inside the newest bar."""
        return self.floats[:, c.EQUITY_WORST]

    @property
    def margin(self) -> Money:
        """Money bound by what is held."""
        return self.floats[:, c.MARGIN]

    @property
    def margin_level(self) -> Money:
        """Equity / margin as a fraction; infinite where nothing is held."""
        level = np.full(len(self), np.inf)
        np.divide(self.equity, self.margin, out=level, where=self.margin > 0)
        return level

    @property
    def bar(self) -> Counts:
        """Newest closed bar."""
        return self.ints[:, c.BAR]

    @property
    def stop(self) -> Counts:
        """Last bar of the episode."""
        return self.ints[:, c.STOP]

    @property
    def status(self) -> Counts:
        """0 running, 1 terminated (ruin), 2 truncated (end of the episode)."""
        return self.ints[:, c.STATUS]

    @property
    def episode(self) -> Counts:
        """Number of the episode, from 0."""
        return self.ints[:, c.EPISODE]

    @property
    def seed(self) -> npt.NDArray[np.uint32]:
        """What random slippage is drawn from."""
        return self.ints[:, c.SEED].astype(np.uint32)

    @property
    def outcomes(self) -> Counts:
        """How often each `Outcome` came, ``(accounts, 8)``; a row adds up to the account's decisions."""
        return self.counts[:, : len(Outcome)]

    @property
    def flags(self) -> Counts:
        """How often each `Flag` was set, ``(accounts, 5)``."""
        return self.counts[:, len(Outcome) : len(Outcome) + len(Flag)]

    @property
    def ambiguous(self) -> Counts:
        """Positions of which one bar touched both stop and target."""
        return self.counts[:, c.AMBIGUOUS]

    @property
    def deals(self) -> Counts:
        """Deals made."""
        return self.counts[:, c.DEALS]

    @property
    def detail_missing(self) -> Counts:
        """Bars that were held through without detail to be asked, under ``intrabar="m1"``."""
        return self.counts[:, c.DETAIL_MISSING]

    @property
    def long_(self) -> Position:
        """The buy side."""
        return self._side(1.0)

    @property
    def short_(self) -> Position:
        """The sell side."""
        return self._side(-1.0)

    def _side(self, sign: float) -> Position:
        slots = self.floats[:, c.STEPS : c.STEPS + 2 * c.POSITION_SIZE].reshape(len(self), 2, c.POSITION_SIZE)
        mine = (slots[:, :, 0] * sign > 0)[:, :, None]
        steps, *others = np.where(mine, slots, 0.0).sum(axis=1).T
        entry, sl, tp, swap, opened = others
        return Position(
            steps=np.abs(steps).astype(np.int64), entry=entry, sl=sl, tp=tp, swap=swap, opened=opened
        )


def reset_accounts(
    table: MarketTable,
    rules: AccountRules,
    n: int,
    *,
    first: int | Counts,
    stop: int | Counts,
    seed: int | Counts = 0,
) -> AccountState:
    """Return n accounts that hold the deposit and nothing else.

    Args:
        first: newest closed bar at the first decision, per account or for all.
        stop: the episode's last bar, on which the last action is executed; after ``first``.
        seed: of random slippage, per account or for all; its lowest 32 bits count.

    Raises:
        CoverageError: an episode does not lie inside the table.
    """
    state = AccountState(
        floats=np.zeros((n, c.FLOATS)),
        ints=np.zeros((n, c.INTS), np.int64),
        counts=np.zeros((n, c.COUNTS), np.int64),
        pending=np.zeros((rules.delay_bars, n, ACTION_SIZE)),
    )
    begin_episodes(state, np.ones(n, np.bool_), table, rules, first=first, stop=stop, seed=seed)
    return state


def begin_episodes(
    state: AccountState,
    mask: npt.NDArray[np.bool_],
    table: MarketTable,
    rules: AccountRules,
    *,
    first: int | Counts,
    stop: int | Counts,
    seed: int | npt.NDArray[np.integer],
    episode: int | Counts = 0,
) -> None:
    """Put the accounts of ``mask`` back to the deposit, in place; arguments as `reset_accounts`, per masked account."""
    n = int(mask.sum())
    firsts, stops = np.broadcast_to(first, n), np.broadcast_to(stop, n)
    if (firsts < 0).any() or (firsts >= stops).any() or (stops >= len(table)).any():
        raise CoverageError(
            f"an episode from bar {int(firsts.min())} to {int(stops.max())}, "
            f"but the market has bars 0 to {len(table) - 1}",
            hint="First must lie before stop, and both inside the bars.",
        )
    fresh = np.zeros((n, c.FLOATS))
    fresh[:, [c.BALANCE, c.EQUITY, c.EQUITY_WORST, c.PREVIOUS_BALANCE, c.PREVIOUS_EQUITY]] = rules.deposit
    state.floats[mask] = fresh
    state.ints[mask, c.BAR] = firsts
    state.ints[mask, c.STOP] = stops
    state.ints[mask, c.STATUS] = c.RUNNING
    state.ints[mask, c.EPISODE] = episode
    state.ints[mask, c.SEED] = np.asarray(seed, np.int64) & 0xFFFFFFFF
    state.counts[mask] = 0
    state.pending[:, mask] = 0.0
