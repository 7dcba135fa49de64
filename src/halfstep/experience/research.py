"""Collecting trajectories: many passes over the training span in lockstep, each with its own exploration.

A *pass* is one account over the span; a *group* is as many passes as move together and are written as one shard. All
paths of a group stand at the same bar, so what a policy computes of the bar alone is computed once for all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfstep.broker.deals import results_by_side
from halfstep.broker.engine import TERMINATED, BatchedAccounts, StepResult
from halfstep.broker.rewards import relative_components
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.errors import CoverageError
from halfstep.experience.exploration import Explorers
from halfstep.experience.policy import ACTION_SIZE, NoisePolicy, Policy
from halfstep.experience.seeds import generator
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import ACCOUNT_SIZE, SOURCES, EpisodeStore, Group
from halfstep.experience.tally import Tally, histogram
from halfstep.processes import side_by_side
from halfstep.progress import SILENT, Progress

CHUNK = 256  # bars for which a policy prepares, and after which a group's steps are filed
DEALS_PER_BAR = 8


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ResearchTask:
    """Everything that decides the episodes of a round.

    Attributes:
        table, rules: the market and the accounts.
        policy: what acts, besides noise and scripts.
        settings: how many passes, how they differ.
        round_number, seed: with the number of a pass they name its random numbers.
        span: decisions are made at the close of bars ``span[0]`` to ``span[1] - 2``; the last bar executes the last.
    """

    table: MarketTable
    rules: AccountRules
    policy: Policy
    settings: ResearchSettings
    round_number: int
    span: tuple[int, int]
    seed: int

    def __post_init__(self) -> None:
        available = self.span[1] - self.span[0] - 1
        if self.steps < 1 or self.steps > available:
            raise CoverageError(
                f"research.length: {self.steps} decisions asked of a span with room for {available}",
                hint="Lower research.length, or give more bars.",
            )

    @property
    def steps(self) -> int:
        """Decisions of a pass that is not ruined."""
        return self.settings.length or self.span[1] - self.span[0] - 1

    @property
    def groups(self) -> list[range]:
        """Passes of each group."""
        n, size = self.settings.passes, self.settings.group
        return [range(begin, min(begin + size, n)) for begin in range(0, n, size)]

    def shard(self, number: int) -> str:
        """Return the name of a group's shard."""
        return f"r{self.round_number}-g{number}"

    def first_bar(self, number: int) -> int:
        """Return the bar of the first decision of a group."""
        if self.settings.start == "first":
            return self.span[0]
        stream = generator(self.seed, "first bar", self.round_number, number)
        return int(stream.integers(self.span[0], self.span[1] - self.steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchReport:
    """A round of trajectories.

    Attributes:
        tally: what its passes did.
        seconds: time that collecting took; 0 where every group stood in the store already.
        collected: decisions made in that time.
    """

    tally: Tally
    seconds: float
    collected: int

    @property
    def rate(self) -> float:
        """Decisions per second."""
        return self.collected / self.seconds if self.seconds else 0.0


def research(
    *,
    table: MarketTable,
    rules: AccountRules,
    policy: Policy,
    settings: ResearchSettings,
    store: EpisodeStore,
    round_number: int,
    span: tuple[int, int],
    seed: int,
    jobs: int = 1,
    begin: Callable[[], object] | None = None,
    progress: Progress = SILENT,
) -> ResearchReport:
    """Collect one round of trajectories; finished shards of an interrupted round are kept.

    The noise and script of a pass depend on (seed, round, pass) only, not on grouping or ``jobs``.

    Args:
        table, rules, policy, settings, round_number, span, seed: see `ResearchTask`.
        store: takes the episodes.
        jobs: groups played side by side, each in a process of its own.
        begin: called first in every such process, for example to limit its threads.
    """
    task = ResearchTask(
        table=table, rules=rules, policy=policy, settings=settings, round_number=round_number, span=span, seed=seed
    )  # fmt: skip
    todo = [k for k in range(len(task.groups)) if not _is_finished(store, task.shard(k))]
    paths = [len(passes) for passes in task.groups]
    progress.start(f"research round {task.round_number}", sum(paths) * task.steps, "decisions")
    progress.advance((sum(paths) - sum(paths[k] for k in todo)) * task.steps)
    started = time.perf_counter()
    side_by_side(collect_group, todo, jobs=jobs, shared=(task, store), begin=begin, progress=progress)
    seconds = time.perf_counter() - started if todo else 0.0
    progress.finish()
    tallies = [Tally.read(_tally_file(store, task.shard(k))) for k in range(len(paths))]
    return ResearchReport(
        tally=Tally.total(tallies), seconds=seconds, collected=sum(tallies[k].decisions for k in todo)
    )


def collect_group(number: int, task: ResearchTask, store: EpisodeStore, progress: Progress) -> None:
    """Play one group and write its shard; the counts are written first, so that a shard always has them."""
    group, tally = play(task, number, progress)
    tally.write(_tally_file(store, task.shard(number)))
    store.write(task.shard(number), group)


def play(task: ResearchTask, number: int, progress: Progress = SILENT) -> tuple[Group, Tally]:
    """Play one group of passes in lockstep, and count what they did."""
    passes, first, steps, rules = task.groups[number], task.first_bar(number), task.steps, task.rules
    explorers = Explorers(
        task.settings, seed=task.seed, round_number=task.round_number, passes=passes, steps=steps,
        lot_cap=rules.lot_cap, lot_min=task.table.instrument.lot_min,
    )  # fmt: skip
    accounts = BatchedAccounts(task.table, rules, len(passes), log_capacity=CHUNK * DEALS_PER_BAR)
    accounts.reset(first=first, stop=first + steps, seed=explorers.seeds)
    record = _Record(accounts, steps)
    for begin in range(0, steps, CHUNK):
        if not accounts.is_running:
            break
        size = min(CHUNK, steps - begin)
        noise = explorers.noise(size)
        prepared = task.policy.prepare(first + begin, first + begin + size)
        for row in range(size):
            actions = task.policy.act(record.vectors, prepared, row, noise[row])
            actions[explorers.is_scripted] = explorers.script(begin + row)
            record.step(row, actions)
        record.file(begin, size)
        progress.advance(size * len(passes))
    source = np.where(
        explorers.is_scripted,
        SOURCES.index("scripted"),
        SOURCES.index("noise" if isinstance(task.policy, NoisePolicy) else "policy"),
    )
    return record.group(first, source.astype(np.uint8)), record.tally()


class _Record:
    """What happens to a group of accounts: kept bar by bar, filed path by path after every chunk of bars."""

    def __init__(self, accounts: BatchedAccounts, steps: int) -> None:
        n = accounts.n
        self._accounts, self._first = accounts, accounts.state.bar.copy()
        self._account = np.zeros((n, steps + 1, ACCOUNT_SIZE), np.float32)
        self._action = np.zeros((n, steps, ACTION_SIZE), np.float32)
        self._reward = np.zeros((n, steps, 3), np.float32)
        self._mark = np.zeros((n, steps), np.uint8)
        numbers, self.vectors = accounts.observe()
        self._numbers = np.empty((CHUNK + 1, *numbers.shape))  # row 0 is the account before the chunk
        self._numbers[0] = numbers
        self._account[:, 0] = numbers[:, :ACCOUNT_SIZE]
        self._chunk: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8], npt.NDArray[np.float64]]] = []
        self._trades, self._results = np.zeros(2, np.int64), np.zeros(2)

    def step(self, row: int, actions: npt.NDArray[np.float64]) -> None:
        """Execute one action per account."""
        result = self._accounts.step(actions)
        self._chunk.append((result.outputs.copy(), result.marks.copy(), result.actions))
        self._numbers[row + 1], self.vectors = self._accounts.observe()

    def file(self, begin: int, size: int) -> None:
        """Move the bars of a chunk to where their steps belong."""
        outputs, marks, actions = (np.stack(parts) for parts in zip(*self._chunk, strict=True))
        result = StepResult(outputs, marks, actions, self._accounts.state.status)
        rows, numbers, floor = slice(begin, begin + size), self._numbers, self._accounts.rules.floor
        reward = relative_components(result.components, numbers[:size, :, 0], floor)
        self._account[:, begin + 1 : begin + size + 1] = numbers[1 : size + 1, :, :ACCOUNT_SIZE].transpose(1, 0, 2)
        self._action[:, rows] = result.executed.transpose(1, 0, 2)
        self._reward[:, rows] = reward.transpose(1, 0, 2)
        self._mark[:, rows] = (result.outcome | (result.flags << 3)).T
        numbers[0] = numbers[size]
        trades, results = results_by_side(self._accounts.log)
        self._trades += trades
        self._results += results
        self._accounts.log.clear()
        self._chunk.clear()

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """Decisions of each path before its end."""
        return self._accounts.state.bar - self._first

    def group(self, first_bar: int, source: npt.NDArray[np.uint8]) -> Group:
        """Return the episodes."""
        return Group(
            first_bar=first_bar, account=self._account, action=self._action, reward=self._reward, mark=self._mark,
            length=self.length, terminated=self._accounts.state.status == TERMINATED, source=source,
        )  # fmt: skip

    def tally(self) -> Tally:
        """Return what the accounts did."""
        counted = np.arange(self._mark.shape[1]) < self.length[:, None]
        is_held = (self._action[..., 0] > 0) | (self._action[..., 3] > 0)
        return Tally(
            episodes=len(self.length),
            terminated=int((self._accounts.state.status == TERMINATED).sum()),
            outcomes=np.bincount(self._mark[counted] & 7, minlength=8),
            held=int((is_held & counted).sum()),
            histograms=histogram(self._action, counted, self._accounts.rules.lot_cap),
            trades=self._trades,
            results=self._results,
        )


def _tally_file(store: EpisodeStore, shard: str) -> Path:
    return store.folder / f"tally-{shard}.json"


def _is_finished(store: EpisodeStore, shard: str) -> bool:
    return store.finished(shard) and _tally_file(store, shard).exists()
