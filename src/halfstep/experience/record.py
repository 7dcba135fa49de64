"""Accounts that move in lockstep, and what happens to them in the form of episodes and of counts."""

import numpy as np
import numpy.typing as npt

from halfstep.broker.deals import results_by_side
from halfstep.broker.engine import TERMINATED, BatchedAccounts, StepResult
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rewards import relative_components
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.episode import ACCOUNT_SIZE, ACTION_SIZE, Group
from halfstep.experience.tally import Tally, histogram

CHUNK = 256  # bars after which steps are moved from bar order to path order
DEALS_PER_BAR = 8


class Recorder:
    """Accounts from the deposit on, recorded bar by bar.

    Args:
        table, rules: the market and the accounts.
        first: newest closed bar at the first decision.
        steps: most decisions.
        seeds: of random slippage, one for each account.

    Attributes:
        vectors: what a network reads of each account now, ``(path, 12)``.
    """

    def __init__(
        self, table: MarketTable, rules: AccountRules, *, first: int, steps: int, seeds: npt.NDArray[np.int64]
    ) -> None:
        n = len(seeds)
        self._first, self._seeds, self._done = first, seeds, 0
        self._accounts = BatchedAccounts(table, rules, n, log_capacity=CHUNK * DEALS_PER_BAR)
        self._accounts.reset(first=first, stop=first + steps, seed=seeds)
        self._account = np.zeros((n, steps + 1, ACCOUNT_SIZE), np.float32)
        self._action = np.zeros((n, steps, ACTION_SIZE), np.float32)
        self._reward = np.zeros((n, steps, 3), np.float32)
        self._mark = np.zeros((n, steps), np.uint8)
        numbers, self.vectors = self._accounts.observe()
        self._numbers = np.empty((CHUNK + 1, *numbers.shape))  # row 0 is the account before the chunk
        self._numbers[0] = numbers
        self._account[:, 0] = numbers[:, :ACCOUNT_SIZE]
        self._chunk: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8], npt.NDArray[np.float64]]] = []
        self._trades, self._results = np.zeros(2, np.int64), np.zeros(2)
        self._deals = np.zeros(n, np.int64)

    @property
    def is_running(self) -> bool:
        """Whether any account still trades."""
        return self._accounts.is_running

    def step(self, actions: npt.NDArray[np.float64]) -> None:
        """Execute one action per account, ``(path, 6)``."""
        result = self._accounts.step(actions)
        self._chunk.append((result.outputs.copy(), result.marks.copy(), result.actions.copy()))
        self._numbers[len(self._chunk)], self.vectors = self._accounts.observe()
        if len(self._chunk) == CHUNK:
            self._file()

    def finish(self, *, source: tuple[str, ...], policy: tuple[str, ...]) -> tuple[Group, Tally]:
        """Return the episodes and their counts; no step may follow.

        Args:
            source: of each path, a name among `halfstep.experience.episode.SOURCES`.
            policy: what acted on each path: the hash of a policy, the name of a script or of a history.
        """
        if self._chunk:
            self._file()
        state = self._accounts.state
        length, terminated = state.bar - self._first, state.status == TERMINATED
        counted = np.arange(self._mark.shape[1]) < length[:, None]
        is_held = (self._action[..., 0] > 0) | (self._action[..., 3] > 0)
        tally = Tally(
            episodes=len(length),
            terminated=int(terminated.sum()),
            outcomes=np.bincount(self._mark[counted] & 7, minlength=len(Outcome)),
            held=int((is_held & counted).sum()),
            histograms=histogram(self._action, counted, self._accounts.rules.lot_cap),
            trades=self._trades,
            results=self._results,
        )
        group = Group(
            first_bar=np.full(len(length), self._first), account=self._account, action=self._action,
            reward=self._reward, mark=self._mark, length=length, terminated=terminated, source=source,
            seed=self._seeds, policy=policy, initial_balance=np.full(len(length), self._accounts.rules.deposit),
            final_equity=self._numbers[0, :, 1].copy(), trades=self._deals,
            zero_level=self._accounts.rules.zero_level,
        )  # fmt: skip
        return group, tally

    def _file(self) -> None:
        """Move the bars of a chunk to where their steps belong."""
        outputs, marks, actions = (np.stack(parts) for parts in zip(*self._chunk, strict=True))
        result = StepResult(outputs, marks, actions, self._accounts.state.status)
        size, numbers = len(self._chunk), self._numbers
        reward = relative_components(result.components, numbers[:size, :, 0], self._accounts.rules.floor)
        rows = slice(self._done, self._done + size)
        after = slice(self._done + 1, self._done + size + 1)
        self._account[:, after] = numbers[1 : size + 1, :, :ACCOUNT_SIZE].transpose(1, 0, 2)
        self._action[:, rows] = result.executed.transpose(1, 0, 2)
        self._reward[:, rows] = reward.transpose(1, 0, 2)
        self._mark[:, rows] = (result.outcome | (result.flags << 3)).T
        trades, results = results_by_side(self._accounts.log)
        self._trades += trades
        self._results += results
        self._deals += self._accounts.log.counts
        self._accounts.log.clear()
        self._chunk.clear()
        self._done += size
        numbers[0] = numbers[size]
