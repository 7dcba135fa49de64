"""Training of critic and actor on stored trajectories; the validation span decides which weights are kept.

An update steps the critic toward its target (`halfstep.training.targets`), then the actor down its objective
(`halfstep.training.objectives`); neither step touches the other network. Rewards are relative, in three components, and
divided by the deviation of their weighted sum over the store.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from halfstep.experience.seeds import generator
from halfstep.nn.config import ModelConfig
from halfstep.nn.policy import Actor, Critic
from halfstep.progress import SILENT, Progress
from halfstep.training import objectives
from halfstep.training.checkpoint import Checkpoint
from halfstep.training.loop import Learner, Point, write_metric_lines
from halfstep.training.networks import (
    Networks,
    build_networks,
    frozen,
    load_networks,
    save_networks,
)
from halfstep.training.optimizers import measured_state_bytes
from halfstep.training.ranks import ALONE, Ranks
from halfstep.training.samples import Batch, Batches, StudyData
from halfstep.training.selection import (
    Validation,
    ValidationPoint,
    best_of,
    is_exhausted,
    kept_warning,
    unmoved,
)
from halfstep.training.settings import OptimizerSettings, StudySettings
from halfstep.training.targets import bootstrapped, least

__all__ = ["StudyData", "StudyResult", "Trainer", "study"]

LOG_EVERY = 20


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Trained networks and their figures.

    Attributes:
        actor, critic: with the kept weights; of two critics the first.
        curve: one record per twenty updates: update, losses of all networks and the actor's terms.
        validation: one record per evaluation, see `halfstep.training.selection.ValidationPoint`.
        log_growth: of the kept weights on the validation span.
        state_bytes: of all optimizers, measured.
        updates: made in all; fewer than asked for where the validation no longer improved.
        scale: rewards were divided by it.
        warnings: sentences about what looks as if nothing was learnt.
        seconds: of training, wall clock.
    """

    actor: Actor
    critic: Critic
    curve: list[Point]
    validation: list[ValidationPoint]
    log_growth: float
    state_bytes: int
    updates: int
    scale: float
    warnings: tuple[str, ...]
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
    previous: Path | None = None,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> StudyResult:
    """Train critic and actor; continues where an interrupted training of the same folder stopped.

    Args:
        folder: its ``models/`` gets the networks, its ``metrics.jsonl`` the curves; the first rank writes them.
        previous: folder of an earlier round, whose networks this one goes on from; None: fresh ones.
        ranks: the processes that train together; all return the same.

    Raises:
        RankLostError: another process is gone.
    """
    began = time.perf_counter()
    networks = build_networks(config, settings, seed=seed)
    batches = Batches(data, settings, seed, ranks)
    if previous is not None:
        load_networks(
            networks, previous / "models", encoder_hash=data.contexts.encoder_hash, scale=batches.scale
        )
    first_weights = _weights(networks)
    trainer = Trainer(networks, batches, settings, optimizer, optimizer_settings, seed, ranks)
    validation = Validation(data, config.policy.lot_cap, seed)
    checkpoint = Checkpoint(folder / "checkpoints" / "study")
    saved = ranks.from_first(checkpoint.load)
    state: dict[str, Any] = saved or {
        "update": 0, "curve": [], "validation": [], "best": None, "bytes": 0,
    }  # fmt: skip
    if "learners" in state:
        trainer.load_state_dict(state)
    if state["best"] is None:  # what earns less than the first weights is not kept; fresh ones do nothing
        state["validation"].append(ranks.from_first(validation.trade, networks.actor, 0))
        state["best"] = _weights(networks)
    progress.start(f"study {optimizer} seed {seed}", settings.updates, "updates")
    progress.advance(state["update"])
    with checkpoint:  # an interrupt waits for a whole update
        for update in range(state["update"], settings.updates):
            if is_exhausted(state["validation"], settings.patience):
                break
            with checkpoint.named_on_divergence():
                terms = trainer.update(update)
            if update % LOG_EVERY == LOG_EVERY - 1:
                state["curve"].append({"update": update + 1, **terms})
            progress.advance(1, critic=terms["critic"], actor=terms["actor"])
            state["update"] = update + 1
            is_evaluated = (update + 1) % settings.eval_every == 0 or update + 1 == settings.updates
            if is_evaluated:
                point = ranks.from_first(validation.trade, networks.actor, update + 1)
                state["validation"].append(point)
                if best_of(state["validation"]) == len(state["validation"]) - 1:
                    state["best"] = _weights(networks)
                state["bytes"] = trainer.state_bytes
                if ranks.is_first:
                    lines = [*state["curve"], *state["validation"]]
                    write_metric_lines(folder, "study", lines, seed=seed)
            if ranks.is_first and (is_evaluated or checkpoint.is_due):
                checkpoint.save(state | trainer.state_dict(), step=update + 1)
    progress.finish()
    kept = state["validation"][best_of(state["validation"])]
    warnings = (
        *batches.warnings,
        *trainer.warnings(first_weights),
        *kept_warning(kept, is_fresh=previous is None),
    )
    for name, module in networks.trained.items():
        module.load_state_dict(state["best"][name])
    if ranks.is_first:
        save_networks(
            networks, folder / "models", encoder_hash=data.contexts.encoder_hash, scale=batches.scale
        )
    return StudyResult(
        actor=networks.actor, critic=networks.critic, curve=state["curve"], validation=state["validation"],
        log_growth=kept["log_growth"], state_bytes=state["bytes"], updates=state["update"], scale=batches.scale,
        warnings=warnings, seconds=time.perf_counter() - began,
    )  # fmt: skip


class Trainer:
    """Makes the updates of a study.

    Args:
        networks: to train.
        batches: to train on.
        settings: target and objective.
        optimizer, optimizer_settings: of every network.
        seed: of the actor's noise.
        ranks: the processes that make the same updates, each on its share of the batches.
    """

    def __init__(
        self,
        networks: Networks,
        batches: Batches,
        settings: StudySettings,
        optimizer: str,
        optimizer_settings: OptimizerSettings,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self._networks, self._batches, self._settings, self._seed = networks, batches, settings, seed
        dtype = next(networks.actor.parameters()).dtype
        self._weights = torch.tensor(settings.reward_weights, dtype=dtype)
        self._learners = {
            name: Learner(module, optimizer, optimizer_settings, settings.updates, ranks)
            for name, module in networks.trained.items()
        }
        self._idle = dict.fromkeys(self._learners, 0)  # updates without any gradient

    def update(self, number: int) -> dict[str, float]:
        """Make one update; returns the losses by network and the actor's terms.

        Raises:
            DivergenceError: a loss or gradient is not finite; the weights are those before that step.
        """
        batch = self._batches.at(number)
        losses = self._update_awr(batch) if self._networks.value is not None else self._update(batch, number)
        self._networks.follow(self._settings.target_rate)
        return {name: value.item() for name, value in losses.items()}

    def _update(self, batch: Batch, number: int) -> Mapping[str, Tensor]:
        """Step the critics toward their target, then the actor."""
        networks = self._networks
        values = networks.critics(
            batch.now.account, batch.action, networks.critics.prepare(batch.now.context)
        )
        values = values[:, :, 0]  # (critic, batch, component)
        errors = (values - self._target(batch)).square()
        critic_loss = batch.share.mean(errors.mean(dim=(1, 2)).sum())
        self._step("critics", critic_loss)
        if self._settings.objective == "oracle":
            terms = objectives.oracle(batch, networks.actor)
        else:
            shape = (self._batches.size, *batch.action.shape[1:])  # of all ranks
            noise = generator(self._seed, "actor noise", number).standard_normal(shape, np.float32)
            with frozen(networks.critics):
                terms = objectives.guided(
                    batch, networks.actor, networks.critic, self._settings, noise=torch.from_numpy(noise[batch.share.rows]),
                    data_value=values[0].detach(), weights=self._weights, update=number,
                )  # fmt: skip
        self._step("actor", terms.total)
        return {"critic": critic_loss, "actor": terms.total, **_parts(terms)}

    def _update_awr(self, batch: Batch) -> Mapping[str, Tensor]:
        """Step the state's value, the actor, then the critics toward reward and value."""
        networks, settings = self._networks, self._settings
        assert networks.value is not None
        assert networks.critics_copy is not None
        assert batch.after is not None
        with frozen(networks.critics_copy):
            advantage = objectives.advantage(batch, networks.critics_copy, networks.value, self._weights)
        value_loss = objectives.expectile_loss(advantage, settings.expectile, batch.share)
        self._step("value", value_loss)
        terms = objectives.awr(batch, networks.actor, settings, advantage=advantage.detach())
        self._step("actor", terms.total)
        with torch.no_grad():
            target = bootstrapped(
                (batch.reward_sum @ self._weights)[:, None],
                objectives.state_value(networks.value, batch.after)[:, None],
                steps=batch.steps, terminated=batch.terminated, discount=settings.discount,
            )[:, 0]  # fmt: skip
        values = networks.critics(
            batch.now.account, batch.action, networks.critics.prepare(batch.now.context)
        )
        errors = (values[:, :, 0] @ self._weights - target).square()
        critic_loss = batch.share.mean(errors.mean(dim=1).sum())
        self._step("critics", critic_loss)
        return {"critic": critic_loss, "value": value_loss, "actor": terms.total, **_parts(terms)}

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        """Return what the critics should say of the stored actions, ``(batch, component)``."""
        networks = self._networks
        if batch.after is None:
            return batch.reward_sum
        assert networks.actor_copy is not None
        assert networks.critics_copy is not None
        account, context = batch.after.account, batch.after.context
        action = networks.actor_copy(account, networks.actor_copy.prepare(context)).action
        values = networks.critics_copy(account, action, networks.critics_copy.prepare(context))[:, :, 0]
        return bootstrapped(
            batch.reward_sum, least(values, self._weights), steps=batch.steps, terminated=batch.terminated,
            discount=self._settings.discount,
        )  # fmt: skip

    def _step(self, name: str, loss: Tensor) -> None:
        norm = self._learners[name].update(loss)
        self._idle[name] += norm == 0

    @property
    def state_bytes(self) -> int:
        """Bytes of all optimizers' state, measured."""
        return sum(measured_state_bytes(learner.optimizer) for learner in self._learners.values())

    def warnings(self, first_weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """Return sentences about networks that did not move as they should."""
        found = []
        for name, learner in self._learners.items():
            if self._idle[name]:
                found.append(f"{name}: {self._idle[name]:,} of {learner.updates:,} updates had no gradient")
            if names := unmoved(learner.model, first_weights[name]):
                found.append(f"{name}: unchanged after training: {', '.join(names)}")
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return everything a continuation needs."""
        return {
            "learners": {name: learner.state_dict() for name, learner in self._learners.items()},
            "copies": {name: module.state_dict() for name, module in self._networks.copies.items()},
            "idle": self._idle,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        for name, learner in self._learners.items():
            learner.load_state_dict(state["learners"][name])
        for name, module in self._networks.copies.items():
            module.load_state_dict(state["copies"][name])
        self._idle = dict(state["idle"])


def _parts(terms: objectives.ActorTerms) -> dict[str, Tensor]:
    """Return the actor's terms under the names of the curve."""
    return {"cloning": terms.cloning, "guidance": terms.value, "kl": terms.kl}


def _weights(networks: Networks) -> dict[str, dict[str, Tensor]]:
    """Return copies of all weights."""
    return {
        name: {key: tensor.clone() for key, tensor in module.state_dict().items()}
        for name, module in networks.trained.items()
    }
