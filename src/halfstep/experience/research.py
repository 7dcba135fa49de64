"""Collecting trajectories: many passes over the training span in lockstep, each with its own exploration.

A *pass* is one account over the span; a *group* is as many passes as move together and are written as one shard. All
paths of a group stand at the same bar, so what a policy computes of the bar alone is computed once for all of them.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.errors import CoverageError
from halfstep.experience.episode import Group
from halfstep.experience.exploration import Explorers
from halfstep.experience.policy import NoisePolicy, Policy
from halfstep.experience.record import Recorder
from halfstep.experience.seeds import generator
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore
from halfstep.experience.tally import Tally
from halfstep.progress import SILENT, Progress

CHUNK = 256  # bars for which a policy prepares at once


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
        dropped: episodes that the bound of the store removed.
    """

    tally: Tally
    seconds: float
    collected: int
    dropped: int

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
    progress: Progress = SILENT,
) -> ResearchReport:
    """Collect one round of trajectories, group by group; finished shards of an interrupted round are kept.

    Args:
        table, rules, policy, settings, round_number, span, seed: see `ResearchTask`.
        store: takes the episodes.
    """
    task = ResearchTask(
        table=table, rules=rules, policy=policy, settings=settings, round_number=round_number, span=span, seed=seed
    )  # fmt: skip
    todo = unfinished(task, store)
    progress.start(
        f"research round {round_number}", sum(len(task.groups[k]) for k in todo) * task.steps, "decisions"
    )
    started = time.perf_counter()
    for number in todo:
        collect_group(number, task, store, progress)
    progress.finish()
    return report_round(task, store, todo, time.perf_counter() - started)


def unfinished(task: ResearchTask, store: EpisodeStore) -> list[int]:
    """Return the groups of a round that are not in the store."""
    return [
        k
        for k in range(len(task.groups))
        if not (store.finished(task.shard(k)) and tally_file(store, task.shard(k)).exists())
    ]


def report_round(
    task: ResearchTask, store: EpisodeStore, collected: list[int], seconds: float
) -> ResearchReport:
    """Apply the bound of the store to a finished round and return what the round did.

    Args:
        collected: groups that were played in the ``seconds``.
    """
    tallies = [Tally.read(tally_file(store, task.shard(k))) for k in range(len(task.groups))]
    new = sum(tallies[k].decisions for k in collected)
    settings = task.settings
    everything = EpisodeStore.open(store.folder)  # groups may have been written by other processes
    dropped = everything.bound(keep=settings.keep, max_episodes=settings.max_episodes)
    return ResearchReport(
        tally=Tally.total(tallies), seconds=seconds if collected else 0.0, collected=new, dropped=dropped
    )


def collect_group(number: int, task: ResearchTask, store: EpisodeStore, progress: Progress) -> None:
    """Play one group and write its shard; the counts come first, so that a shard always has them.

    Groups do not depend on each other and may be collected side by side, in processes of their own.
    """
    group, tally = play(task, number, progress)
    tally.write(tally_file(store, task.shard(number)))
    store.write(task.shard(number), group)


def play(task: ResearchTask, number: int, progress: Progress = SILENT) -> tuple[Group, Tally]:
    """Play one group of passes in lockstep, and count what they did."""
    passes, first, steps = task.groups[number], task.first_bar(number), task.steps
    explorers = Explorers(
        task.settings, seed=task.seed, round_number=task.round_number, passes=passes, steps=steps,
        lot_cap=task.rules.lot_cap, lot_min=task.table.instrument.lot_min,
    )  # fmt: skip
    record = Recorder(task.table, task.rules, first=first, steps=steps, seeds=explorers.seeds)
    for begin in range(0, steps, CHUNK):
        size = min(CHUNK, steps - begin)
        if record.is_running:
            noise = explorers.noise(size)
            prepared = task.policy.prepare(first + begin, first + begin + size)
            for row in range(size):
                actions = task.policy.act(record.vectors, prepared, row, noise[row])
                actions[explorers.is_scripted] = explorers.script(begin + row)
                record.step(actions)
        progress.advance(size * len(passes))
    played = "noise" if isinstance(task.policy, NoisePolicy) else "policy"
    return record.finish(
        source=tuple("scripted" if script else played for script in explorers.scripts),
        policy=tuple(script or task.policy.hash for script in explorers.scripts),
    )


def tally_file(store: EpisodeStore, shard: str) -> Path:
    """Return where the counts of a shard are kept."""
    return store.folder / f"tally-{shard}.json"
