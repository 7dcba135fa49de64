"""Collecting trajectories: many passes over the training span in lockstep, each with its own exploration."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halfstep.broker.engine import RUNNING, TERMINATED, BatchedAccounts
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.episode import ACCOUNT_SIZE, Group
from halfstep.experience.policy import ACTION_SIZE, SCRIPTS, NoisePolicy, Policy, scripted_actions
from halfstep.experience.seeds import generator
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore
from halfstep.market.state import account_vector, time_harmonics
from halfstep.progress import SILENT, Progress

CHUNK = 256  # bars for which a policy prepares at once
DEGENERATE_SHARE = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchReport:
    """What a store holds after a round of trajectories.

    Attributes:
        decisions: steps in the store.
        outcomes: count of each outcome by name; they add up to ``decisions``.
        in_position: share of steps after which a position was held.
        histograms: ten bins of each action element, ``(6, 10)``.
        warnings: sentences about degenerate behaviour.
    """

    decisions: int
    outcomes: dict[str, int]
    in_position: float
    histograms: npt.NDArray[np.int64]
    warnings: tuple[str, ...]


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
    """Collect one round of trajectories; finished shards of an interrupted round are kept.

    The noise and script of a pass depend on (seed, round, pass) only, not on the grouping.

    Args:
        span: decisions are made at the close of bars ``span[0]`` to ``span[1] - 2``; the last bar executes the last.
    """
    progress.start(f"research round {round_number}", settings.passes * (span[1] - span[0] - 1), "decisions")
    for number, begin in enumerate(range(0, settings.passes, settings.group)):
        passes = range(begin, min(begin + settings.group, settings.passes))
        name = f"r{round_number}-g{number}"
        if store.finished(name):
            progress.advance(len(passes) * (span[1] - span[0] - 1))
            continue
        group = _play(table, rules, policy, settings, passes, round_number, span, seed, progress)
        store.write(name, group)
    progress.finish()
    return describe(store.up_to(round_number + 1), rules.lot_cap)


def describe(store: EpisodeStore, lot_cap: float) -> ResearchReport:
    """Count what the episodes of a store hold."""
    outcomes, histograms, held = np.zeros(len(Outcome), np.int64), np.zeros((ACTION_SIZE, 10), np.int64), 0
    bounds = np.array([lot_cap, 1, 1, lot_cap, 1, 1])
    for episode in store.episodes():
        outcomes += np.bincount(episode.mark & 7, minlength=len(Outcome))
        bins = np.clip((episode.action.astype(np.float64) / bounds * 10).astype(int), 0, 9)
        histograms += np.stack([np.bincount(column, minlength=10) for column in bins.T])
        held += int(((episode.action[:, 0] > 0) | (episode.action[:, 3] > 0)).sum())
    counts = {outcome.name: int(outcomes[outcome]) for outcome in Outcome}
    decisions = store.steps
    warnings = [
        f"{count / decisions:.1%} of decisions ended as {name}: the policy is degenerate"
        for name, count in counts.items()
        if decisions and count > DEGENERATE_SHARE * decisions and name != "HELD"
    ]
    return ResearchReport(
        decisions=decisions,
        outcomes=counts,
        in_position=held / max(decisions, 1),
        histograms=histograms,
        warnings=tuple(warnings),
    )


def _play(
    table: MarketTable,
    rules: AccountRules,
    policy: Policy,
    settings: ResearchSettings,
    passes: range,
    round_number: int,
    span: tuple[int, int],
    seed: int,
    progress: Progress,
) -> Group:
    """Play a group of passes over the span in lockstep."""
    n, steps = len(passes), span[1] - span[0] - 1
    explorers = [_Explorer(settings, seed, round_number, number) for number in passes]
    scripts = np.array([explorer.script for explorer in explorers])
    scripted = {
        k: scripted_actions(scripts[k], steps, rules.lot_cap, table.instrument.lot_min, explorers[k].random)
        for k in range(n)
        if scripts[k]
    }
    accounts = BatchedAccounts(table, rules, n, log_capacity=1)  # the log counts deals beyond its capacity
    accounts.reset(first=span[0], stop=span[1] - 1)
    account = np.zeros((n, steps + 1, ACCOUNT_SIZE), np.float32)
    action = np.zeros((n, steps, 6), np.float32)
    reward = np.zeros((n, steps, 3), np.float32)
    mark = np.zeros((n, steps), np.uint8)
    length = np.zeros(n, np.int64)
    harmonics = time_harmonics(table.server_time)
    now = previous = accounts.numbers()
    account[:, 0] = now[:, :ACCOUNT_SIZE]
    for begin in range(0, steps, CHUNK):
        size = min(CHUNK, steps - begin)
        noise = np.stack([explorer.noise(size) for explorer in explorers], axis=1)  # (bar, path, action)
        prepared = policy.prepare(span[0] + begin, span[0] + begin + size)
        for row in range(size):
            step = begin + row
            vector = account_vector(now, previous, floor=rules.floor, harmonics=harmonics[span[0] + step])
            actions = policy.act(vector, prepared, row, noise[row])
            for k, script in scripted.items():
                actions[k] = script[step]
            running = accounts.state.status == RUNNING
            previous, balance = now, np.maximum(now[:, :1], rules.floor)
            result = accounts.step(actions)
            now = accounts.numbers()
            account[:, step + 1] = now[:, :ACCOUNT_SIZE]
            action[:, step] = result.executed
            reward[:, step] = result.components / balance
            mark[:, step] = result.outcome | (result.flags << 3)
            length += running
        progress.advance(size * n)
    played = "noise" if isinstance(policy, NoisePolicy) else "policy"
    return Group(
        first_bar=np.full(n, span[0]), account=account, action=action, reward=reward, mark=mark, length=length,
        terminated=accounts.state.status == TERMINATED, source=tuple("scripted" if s else played for s in scripts),
        seed=np.full(n, seed), policy=tuple(s or policy.hash for s in scripts),
        initial_balance=np.full(n, rules.deposit), final_equity=now[:, 1], trades=accounts.log.counts.copy(),
        zero_level=rules.zero_level,
    )  # fmt: skip


class _Explorer:
    """The noise or script of one pass: e_t = rho e_{t-1} + sqrt(1 - rho^2) xi_t, times a factor in [0.5, 1.5]."""

    def __init__(self, settings: ResearchSettings, seed: int, round_number: int, number: int) -> None:
        self.random = generator(seed, "pass", round_number, number)
        is_scripted = self.random.random() < settings.scripted_share
        self.script = str(SCRIPTS[int(self.random.integers(len(SCRIPTS)))]) if is_scripted else ""
        self._rho = settings.rho[int(self.random.integers(len(settings.rho)))]
        self._factor = float(np.exp(self.random.uniform(np.log(0.5), np.log(1.5))))
        self._last = self.random.standard_normal(6)

    def noise(self, bars: int) -> npt.NDArray[np.float32]:
        """Return the next bars' noise, ``(bars, 6)``."""
        fresh = np.sqrt(1 - self._rho**2) * self.random.standard_normal((bars, 6))
        out = np.empty((bars, 6))
        for bar in range(bars):
            self._last = self._rho * self._last + fresh[bar]
            out[bar] = self._last
        return (self._factor * out).astype(np.float32)
