"""Batches of stored steps as networks read them; which steps a batch holds depends on (seed, number) only."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.episode import SOURCES, Steps
from halfstep.experience.sampling import (
    episode_returns,
    return_weights,
    uniform_rows,
    usable_origins,
    weighted_rows,
)
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore
from halfstep.market.state import account_vector
from halfstep.training.oracle import oracle_labels, oracle_table
from halfstep.training.policy import Contexts
from halfstep.training.ranks import ALONE, WHOLE, Ranks, Share
from halfstep.training.settings import StudySettings
from halfstep.training.targets import discounted_sum, reward_bars

LEAST_SCALE = 1e-8
SCALE_STEPS = 200_000
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """What a study reads.

    Attributes:
        store: trajectories over the training span.
        contexts: of every bar from the training span on.
        table, rules: the market and the account, for trading the validation span.
        train, validation: half-open pairs of bar indices.
    """

    store: EpisodeStore
    contexts: Contexts
    table: MarketTable
    rules: AccountRules
    train: tuple[int, int]
    validation: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What networks see at a decision.

    Attributes:
        account: ``(batch, 1, 12)``.
        context: of the newest closed bar, ``(batch, token, width)``.
    """

    account: Tensor
    context: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Steps, and what followed them; where several processes train, those of this rank.

    Attributes:
        now: state at the decision.
        action: executed, netted, ``(batch, 1, 6)``.
        reward_sum: discounted sum of what the target reads, in its scale, ``(batch, 3)``.
        steps: rewards in that sum, ``(batch,)``.
        terminated: whether ruin ended the episode with the last of them, ``(batch,)``.
        after: state after them; None where no target asks for it.
        is_profitable: whether the step's episode gained balance, ``(batch,)``.
        label: the oracle's action, ``(batch, 1, 6)``; None without that objective.
        share: what these steps are of the batch of all ranks.
    """

    now: State
    action: Tensor
    reward_sum: Tensor
    steps: Tensor
    terminated: Tensor
    after: State | None
    is_profitable: Tensor
    label: Tensor | None
    share: Share = WHOLE


class Batches:
    """Batches by number.

    Args:
        data: the store, and what its steps are joined with.
        settings: which steps and targets.
        seed: of the order.
        ranks: each gets its share of every batch.

    Attributes:
        size: steps of a batch, over all ranks.
        scale: rewards are divided by it: the deviation of their weighted sum over the store.
        warnings: sentences about a store that cannot teach what is asked of it.
    """

    def __init__(self, data: StudyData, settings: StudySettings, seed: int, ranks: Ranks = ALONE) -> None:
        self._data, self._settings, self._seed = data, settings, seed
        store = data.store
        self._bars = reward_bars(settings, int(store.length.max(initial=1)))
        # without a bootstrap an n-step sum must be whole; every other target takes what is there
        whole = settings.target == "n_step" and not settings.bootstrap
        self._origins = usable_origins(store, self._bars, data.train, bootstrap=not whole)
        self.size = min(settings.batch, len(self._origins))
        self._share = ranks.share(self.size)
        self.scale = reward_scale(store, settings.reward_weights, data.rules.floor)
        returns = episode_returns(store, settings.discount)
        self._profitable = (returns[:, 0] > 0).astype(np.float32)
        self._odds = return_weights(returns.sum(axis=1))
        self._oracle = None
        if settings.objective == "oracle":
            self._oracle = oracle_table(
                data.table, data.rules, stop=data.train[1], horizon=settings.horizon,
                min_edge_points=settings.min_edge_points,
            )  # fmt: skip
        self.warnings = self._find_warnings()

    def at(self, number: int) -> Batch:
        """Return this rank's rows of a batch."""
        episode, step = (places[self._share.rows] for places in self.places(number))
        steps = self._data.store.gather(episode, step, horizon=self._bars)
        floor = self._data.rules.floor
        balance, equity = accounts_ahead(steps.now, steps.reward, floor)
        reward = torch.from_numpy(learning_reward(steps.reward, balance, equity, floor)) / self.scale
        after = None
        if self._settings.bootstraps:
            bar = steps.bar + steps.count
            after = self._state(replace(steps, bar=bar, now=steps.after, previous=steps.after_previous))
        return Batch(
            now=self._state(steps),
            action=torch.from_numpy(steps.action)[:, None],
            reward_sum=discounted_sum(reward, self._settings.discount),
            steps=torch.from_numpy(steps.count),
            terminated=torch.from_numpy(steps.terminated),
            after=after,
            is_profitable=torch.from_numpy(self._profitable[episode]),
            label=self._labels(steps),
            share=self._share,
        )

    def places(self, number: int) -> tuple[Indices, Indices]:
        """Return episode and step of each row of a batch, over all ranks."""
        if self._settings.sampling == "uniform":
            return self._origins.at(uniform_rows(len(self._origins), number, self.size, seed=self._seed))
        random = generator(self._seed, "weighted batch", number)
        return self._origins.at(weighted_rows(self._origins, self._odds, self.size, random))

    def _state(self, steps: Steps) -> State:
        vectors = account_vectors(steps, self._data.table.server_time, self._data.rules.floor)
        return State(account=torch.from_numpy(vectors)[:, None], context=self._data.contexts.at(steps.bar))

    def _labels(self, steps: Steps) -> Tensor | None:
        if self._oracle is None:
            return None
        account = steps.now.astype(np.float64)
        labels = oracle_labels(self._oracle, steps.bar, account[:, 1], account[:, 2] - account[:, 3])
        return torch.from_numpy(labels)[:, None]

    def _find_warnings(self) -> tuple[str, ...]:
        if self._settings.objective != "guided" or not self._settings.cloning or self._profitable.any():
            return ()
        counts = np.bincount(self._data.store.source, minlength=len(SOURCES))
        found = ", ".join(f"{count} {name}" for name, count in zip(SOURCES, counts, strict=True) if count)
        return (f"no episode gained balance ({found}): there is nothing to imitate",)


def learning_reward(
    reward: Float32[np.ndarray, "*steps 3"],
    balance: Float64[np.ndarray, "*steps"],
    equity: Float64[np.ndarray, "*steps"],
    floor: float,
) -> Float32[np.ndarray, "*steps 3"]:
    """Return the components a critic learns: relative change of balance, log growth of equity, relative idle charge.

    With c_E the stored change of equity relative to the balance B, and f the floor, the log growth is
    ln(max(E + c_E max(B, f), f) / max(E, f)); its sum over an episode is the growth of the account.

    Args:
        reward: as stored.
        balance, equity: of the account before each step.
        floor: of the account's rules, account currency.
    """
    base = np.maximum(equity, floor)
    gain = reward[..., 1] * np.maximum(balance, floor)
    out = reward.copy()
    out[..., 1] = np.log1p(np.maximum(gain, floor - base) / base)
    return out


def accounts_ahead(
    now: Float32[np.ndarray, "batch 7"], reward: Float32[np.ndarray, "batch horizon 3"], floor: float
) -> tuple[Float64[np.ndarray, "batch horizon"], Float64[np.ndarray, "batch horizon"]]:
    """Return balance and equity before each of the next steps, which rewards tell.

    B' = B + c_B max(B, f) and E' = E + c_E max(B, f).
    """
    balance, equity = (np.empty(reward.shape[:2]) for _ in range(2))
    b, e = now[:, 0].astype(np.float64), now[:, 1].astype(np.float64)
    for k in range(reward.shape[1]):
        balance[:, k], equity[:, k] = b, e
        base = np.maximum(b, floor)
        b, e = b + reward[:, k, 0] * base, e + reward[:, k, 1] * base
    return balance, equity


def reward_scale(
    store: EpisodeStore, weights: tuple[float, float, float], floor: float, *, most: int = SCALE_STEPS
) -> float:
    """Return the deviation of the weighted learning reward over a store.

    Args:
        most: a larger store is read at this many evenly spaced steps, so that memory does not grow with it.
    """
    total = int(store.length.sum())
    steps = store.gather(*at_rows(store, np.arange(min(most, total)) * total // min(most, total)))
    balance, equity = steps.now[:, 0].astype(np.float64), steps.now[:, 1].astype(np.float64)
    rewards = learning_reward(steps.reward[:, 0], balance, equity, floor)
    return max(float((rewards @ np.array(weights, np.float32)).std()), LEAST_SCALE)


def at_rows(store: EpisodeStore, rows: Indices) -> tuple[Indices, Indices]:
    """Return episode and step of steps that are counted through all episodes."""
    ends = np.cumsum(store.length)
    episode = np.searchsorted(ends, rows, side="right")
    return episode, rows - (ends - store.length)[episode]


def account_vectors(
    steps: Steps, server_time: np.ndarray[Any, np.dtype[np.int64]], floor: float
) -> Float32[np.ndarray, "batch 12"]:
    """Return what the networks see of stored accounts."""
    seconds = server_time[steps.bar][:, None].astype(np.float64)
    now: Float64[np.ndarray, "batch 8"] = np.concatenate([steps.now, seconds], axis=1)
    previous: Float64[np.ndarray, "batch 8"] = np.concatenate([steps.previous, seconds], axis=1)
    return account_vector(now, previous, floor=floor)
