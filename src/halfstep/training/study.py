"""Training of critic and actor on stored trajectories; the validation span decides which weights are kept.

The critic learns, for each component of the reward, the discounted sum of the next n bars (n_step without
bootstrap: y = sum_{k<n} gamma^k r_{t+k}; ruin ends the sum). The actor minimises

    c_bc BC - c_q mean(w Q(s, pi(s))) / nu + c_kl KL

with pi(s) one netted sample, nu the mean |w Q(s, a)| of the batch, and BC the squared error between the squashed mean
action and the actions of profitable episodes, both relative to their bounds. The critic is fixed in the actor's step.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.rollout import trade
from halfstep.experience.sampling import (
    episode_returns,
    epoch_order,
    return_weights,
    usable_origins,
    weighted_rows,
)
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore, Steps
from halfstep.market.state import account_vector
from halfstep.nn.build import build_actor, build_critic
from halfstep.nn.checkpoint import save_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.gaussian import kl_to_standard_normal
from halfstep.nn.policy import Actor, Critic
from halfstep.progress import SILENT, Progress
from halfstep.training.checkpoint import Checkpoint
from halfstep.training.loop import Learner, Point, write_metric_lines
from halfstep.training.optimizers import measured_state_bytes
from halfstep.training.policy import Contexts, NeuralPolicy
from halfstep.training.settings import OptimizerSettings, StudySettings

LOG_EVERY = 20
LEAST_SCALE = 1e-8


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


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Trained networks and their figures.

    Attributes:
        actor, critic: with the kept weights.
        curve: one record per twenty updates: update, critic and actor loss.
        validation: one record per evaluation: update, log growth, deals.
        log_growth: of the kept weights on the validation span.
        state_bytes: of both optimizers, measured.
        seconds: of training, wall clock.
    """

    actor: Actor
    critic: Critic
    curve: list[Point]
    validation: list[Point]
    log_growth: float
    state_bytes: int
    seconds: float


def study(
    config: ModelConfig,
    data: StudyData,
    settings: StudySettings,
    *,
    optimizer: str,
    optimizer_settings: OptimizerSettings,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
) -> StudyResult:
    """Train critic and actor; continues where an interrupted training of the same folder stopped."""
    began = time.perf_counter()
    actor, critic = build_actor(config, seed=seed), build_critic(config, seed=seed + 1)
    learners = {
        "critic": Learner(critic, optimizer, optimizer_settings, settings.updates),
        "actor": Learner(actor, optimizer, optimizer_settings, settings.updates),
    }
    batches = _Batches(data, settings, seed)
    checkpoint = Checkpoint(folder / "checkpoints" / "study")
    state: dict[str, Any] = checkpoint.load() or {
        "update": 0, "curve": [], "validation": [], "best": None, "best_growth": -math.inf, "bytes": 0,
    }  # fmt: skip
    for name, learner in learners.items():
        if name in state:
            learner.load_state_dict(state[name])
    progress.start(f"study {optimizer} seed {seed}", settings.updates, "updates")
    progress.advance(state["update"])
    with checkpoint:  # an interrupt waits for a whole update
        for update in range(state["update"], settings.updates):
            with checkpoint.named_on_divergence():
                losses = _update(batches.at(update), actor, critic, learners, settings, seed, update)
            if update % LOG_EVERY == LOG_EVERY - 1:
                state["curve"].append({"update": update + 1, **losses})
            progress.advance(1, **losses)
            state["update"] = update + 1
            is_evaluated = (update + 1) % settings.eval_every == 0 or update + 1 == settings.updates
            if is_evaluated:
                _validate(actor, critic, data, state, update + 1)
                state["bytes"] = sum(measured_state_bytes(learner.optimizer) for learner in learners.values())
                write_metric_lines(folder, "study", [*state["curve"], *state["validation"]], seed=seed)
            if is_evaluated or checkpoint.is_due:
                checkpoint.save(
                    state | {name: learner.state_dict() for name, learner in learners.items()},
                    step=update + 1,
                )
    progress.finish()
    actor.load_state_dict(state["best"]["actor"])
    critic.load_state_dict(state["best"]["critic"])
    facts = {"encoder": data.contexts.encoder_hash}
    save_weights(actor, folder / "models" / "actor.safetensors", kind="actor", facts=facts)
    save_weights(critic, folder / "models" / "critic.safetensors", kind="critic", facts=facts)
    return StudyResult(
        actor=actor, critic=critic, curve=state["curve"], validation=state["validation"],
        log_growth=state["best_growth"], state_bytes=state["bytes"], seconds=time.perf_counter() - began,
    )  # fmt: skip


def n_step_target(
    reward: Float[Tensor, "batch horizon component"], discount: float
) -> Float[Tensor, "batch component"]:
    """Return sum_k discount^k reward_k over the horizon; rewards after an episode's end are 0."""
    weights = discount ** torch.arange(reward.shape[1], dtype=reward.dtype)
    return torch.einsum("bhc,h->bc", reward, weights)


def learning_reward(reward: Float32[np.ndarray, "*steps 3"]) -> Float32[np.ndarray, "*steps 3"]:
    """Return the components a critic learns: balance change, log growth of equity, idle charge, all relative."""
    out = reward.copy()
    out[..., 1] = np.log1p(np.maximum(reward[..., 1], -0.99))
    return out


def cloning_error(
    squashed: Float[Tensor, "batch action"],
    action: Float[Tensor, "batch action"],
    high: Float[Tensor, " action"],
    is_profitable: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the squared error to stored actions of profitable episodes; levels count only where that side traded."""
    buys, sells = (action[:, :1] > 0).to(action.dtype), (action[:, 3:4] > 0).to(action.dtype)
    ones = torch.ones_like(buys)
    mask = torch.cat([ones, buys, buys, ones, sells, sells], dim=1) * is_profitable[:, None]
    error = ((squashed - action) / high).square() * mask
    return error.sum() / mask.sum().clamp_min(1.0)


@dataclass(frozen=True, slots=True)
class _Batch:
    account: Tensor  # (batch, 1, 12)
    context: Tensor  # (batch, token, width)
    action: Tensor  # (batch, 1, 6)
    target: Tensor  # (batch, component), scaled
    weights: Tensor  # (component,)
    is_profitable: Tensor  # (batch,)


class _Batches:
    """Batches by number: which steps they hold depends on (seed, number) only."""

    def __init__(self, data: StudyData, settings: StudySettings, seed: int) -> None:
        self._data, self._settings, self._seed = data, settings, seed
        self._episode, self._step = usable_origins(data.store, settings.horizon, data.train)
        self._size = min(settings.batch, len(self._episode))
        self._per_epoch = len(self._episode) // self._size
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        rewards = learning_reward(np.asarray(data.store.column("reward"), np.float32))
        weights = np.array(settings.reward_weights, np.float32)
        scale = float((rewards @ weights).std())
        self._scale = max(scale, LEAST_SCALE)
        self._weights = torch.from_numpy(weights)
        returns = episode_returns(data.store, settings.discount)
        self._profitable = (returns[:, 0] > 0).astype(np.float32)
        self._odds = return_weights(returns.sum(axis=1))

    def at(self, number: int) -> _Batch:
        rows = self._uniform(number) if self._settings.sampling == "uniform" else self._weighted(number)
        episode = self._episode[rows]
        steps = self._data.store.gather(episode, self._step[rows], horizon=self._settings.horizon)
        reward = torch.from_numpy(learning_reward(steps.reward)) / self._scale
        return _Batch(
            account=torch.from_numpy(
                account_vectors(steps, self._data.table.server_time, self._data.rules.floor)
            )[:, None],
            context=self._data.contexts.at(steps.bar),
            action=torch.from_numpy(steps.action)[:, None],
            target=n_step_target(reward, self._settings.discount),
            weights=self._weights,
            is_profitable=torch.from_numpy(self._profitable[episode]),
        )

    def _uniform(self, number: int) -> npt.NDArray[np.int64]:
        epoch, position = divmod(number, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(len(self._episode), seed=self._seed, epoch=epoch)
        return self._order[position * self._size : (position + 1) * self._size]

    def _weighted(self, number: int) -> npt.NDArray[np.int64]:
        random = generator(self._seed, "weighted batch", number)
        return weighted_rows(self._episode, self._odds, self._size, random)


def account_vectors(
    steps: Steps, server_time: np.ndarray[Any, np.dtype[np.int64]], floor: float
) -> Float32[np.ndarray, "batch 12"]:
    """Return what the networks see of stored accounts."""
    seconds = server_time[steps.bar][:, None].astype(np.float64)
    now: Float64[np.ndarray, "batch 8"] = np.concatenate([steps.now, seconds], axis=1)
    previous: Float64[np.ndarray, "batch 8"] = np.concatenate([steps.previous, seconds], axis=1)
    return account_vector(now, previous, floor=floor)


def _update(
    batch: _Batch,
    actor: Actor,
    critic: Critic,
    learners: dict[str, Learner],
    settings: StudySettings,
    seed: int,
    update: int,
) -> dict[str, float]:
    """Step the critic, then the actor; neither step touches the other network."""
    value = critic(batch.account, batch.action, critic.prepare(batch.context))[:, 0]
    critic_loss = (value - batch.target).square().mean()
    learners["critic"].update(critic_loss)
    noise = generator(seed, "actor noise", update).standard_normal(batch.action.shape, np.float32)
    output = actor(batch.account, actor.prepare(batch.context), torch.from_numpy(noise))
    with _frozen(critic):
        q = critic(batch.account, output.action, critic.prepare(batch.context))[:, 0] @ batch.weights
    scale = (value.detach() @ batch.weights).abs().mean().clamp_min(LEAST_SCALE)
    mean_action = actor.head.squash(output.mean)
    bc = cloning_error(mean_action[:, 0], batch.action[:, 0], actor.head.high, batch.is_profitable)
    kl = kl_to_standard_normal(output.mean, output.logvar).mean()
    loss = settings.cloning * bc - settings.guidance * q.mean() / scale + settings.kl * kl
    learners["actor"].update(loss)
    return {"critic": critic_loss.item(), "actor": loss.item()}


class _frozen:  # noqa: N801  # reads as a statement: with _frozen(critic)
    """A module whose parameters take no gradient for a while; its inputs still do."""

    def __init__(self, module: nn.Module) -> None:
        self._params = list(module.parameters())

    def __enter__(self) -> None:
        for param in self._params:
            param.requires_grad_(False)

    def __exit__(self, *exception: object) -> None:
        for param in self._params:
            param.requires_grad_(True)


def _validate(actor: Actor, critic: Critic, data: StudyData, state: dict[str, Any], update: int) -> None:
    """Trade the validation span with the mean action; the first best weights are kept."""
    policy = NeuralPolicy(actor, data.contexts)
    _, run = trade(policy, data.table, data.rules, first=data.validation[0], stop=data.validation[1] - 1)
    growth = float(run.reward.sum())
    state["validation"].append({"update": update, "log_growth": growth, "deals": float(run.log.counts[0])})
    if growth > state["best_growth"]:
        state["best_growth"] = growth
        state["best"] = {
            name: {key: tensor.clone() for key, tensor in module.state_dict().items()}
            for name, module in (("actor", actor), ("critic", critic))
        }
