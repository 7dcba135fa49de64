"""The networks of a study, and their slowly moving copies."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from halfstep.nn.build import build_actor, build_critics, build_value
from halfstep.nn.checkpoint import load_weights, save_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.policy import Actor, Critic, CriticEnsemble, ValueNet
from halfstep.nn.polyak import polyak_
from halfstep.training.settings import StudySettings

Trained = dict[str, nn.Module]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a study trains.

    Attributes:
        actor: the policy.
        critics: one, or two of which the lesser counts.
        value: of states, for objective awr; else None.
        actor_copy, critics_copy: moving slowly toward actor and critics (pi', Q'), where targets need them; else None.
    """

    actor: Actor
    critics: CriticEnsemble
    value: ValueNet | None
    actor_copy: Actor | None
    critics_copy: CriticEnsemble | None

    @property
    def critic(self) -> Critic:
        """The first critic."""
        first = self.critics.critics[0]
        assert isinstance(first, Critic)
        return first

    @property
    def trained(self) -> Trained:
        """The networks that optimizers move, by name."""
        found: Trained = {"critics": self.critics, "actor": self.actor}
        return found if self.value is None else {**found, "value": self.value}

    @property
    def copies(self) -> Trained:
        """The slow copies, by the name of what they follow."""
        found = {"critics": self.critics_copy, "actor": self.actor_copy}
        return {name: module for name, module in found.items() if module is not None}

    def follow(self, rate: float) -> None:
        """Move the copies toward their networks: copy += rate (network - copy)."""
        for name, module in self.copies.items():
            polyak_(module, self.trained[name], rate)


def build_networks(config: ModelConfig, settings: StudySettings, *, seed: int) -> Networks:
    """Return networks with seeded weights; copies begin as their originals."""
    actor = build_actor(config, seed=seed)
    critics = build_critics(config, seed=seed + 1, n=2 if settings.is_pessimistic else 1)
    is_awr = settings.objective == "awr"
    return Networks(
        actor=actor,
        critics=critics,
        value=build_value(config, seed=seed + 2) if is_awr else None,
        actor_copy=copy.deepcopy(actor) if settings.bootstraps and not is_awr else None,
        critics_copy=copy.deepcopy(critics) if settings.bootstraps else None,
    )


def save_networks(networks: Networks, folder: Path, *, encoder_hash: str, scale: float) -> None:
    """Write ``actor.safetensors`` and ``critic.safetensors``, and what else a later study continues with.

    Args:
        scale: values are of rewards divided by it; the critics' files say so.
    """
    actor_facts = {"encoder": encoder_hash}
    facts = actor_facts | {"scale": scale}
    save_weights(networks.actor, folder / "actor.safetensors", kind="actor", facts=actor_facts)
    save_weights(networks.critic, folder / "critic.safetensors", kind="critic", facts=facts)
    if len(networks.critics.critics) > 1:
        save_weights(networks.critics, folder / "critics.safetensors", kind="critics", facts=facts)
    if networks.value is not None:
        save_weights(networks.value, folder / "value.safetensors", kind="value", facts=facts)


def load_networks(networks: Networks, folder: Path, *, encoder_hash: str, scale: float) -> None:
    """Fill networks with what an earlier study of the same settings wrote; copies begin as their originals.

    Values are linear in the rewards, so the last layer of each network of values is multiplied by the earlier study's
    scale over this one's: it says the same of a step as before, in the unit of the rewards it goes on with.

    Args:
        folder: the earlier study's ``models/``.
        scale: rewards are divided by it from now on.

    Raises:
        MissingInputError: a file is absent.
        CheckpointError: of other sizes, or of another encoder.
    """
    files: list[tuple[nn.Module, str]] = [(networks.actor, "actor")]
    several = len(networks.critics.critics) > 1
    files.append((networks.critics, "critics") if several else (networks.critic, "critic"))
    if networks.value is not None:
        files.append((networks.value, "value"))
    for module, kind in files:
        facts = load_weights(
            module, folder / f"{kind}.safetensors", kind=kind, facts={"encoder": encoder_hash},
            remedy="halfstep study, with the same target and objective",
        )  # fmt: skip
        if kind != "actor":
            _rescale(module, facts["scale"] / scale)
    networks.follow(1.0)


@torch.no_grad()
def _rescale(module: nn.Module, factor: float) -> None:
    """Multiply the values of a critic, of an ensemble of critics or of a value network."""
    for network in module.modules():
        if isinstance(network, Critic | ValueNet):
            for param in network.out.parameters():
                param.mul_(factor)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let a module's parameters take no gradient for a while; its inputs still do."""
    params = list(module.parameters())
    for param in params:
        param.requires_grad_(False)
    try:
        yield
    finally:
        for param in params:
            param.requires_grad_(True)
