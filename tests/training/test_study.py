"""Training of critic and actor: targets by hand, who moves whom, what is copied, resuming."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from halfstep.nn.build import build_actor, build_critic
from halfstep.nn.gaussian import net_sides
from halfstep.nn.presets import preset
from halfstep.training import checkpoint
from halfstep.training import study as module
from halfstep.training.loop import Learner
from halfstep.training.settings import OptimizerSettings, StudySettings
from halfstep.training.study import (
    StudyResult,
    account_vectors,
    cloning_error,
    learning_reward,
    n_step_target,
    study,
)

from .conftest import World

SETTINGS = StudySettings(updates=30, batch=32, eval_every=15)


def run(world: World, folder: Path, settings: StudySettings = SETTINGS, seed: int = 1) -> StudyResult:
    return study(
        preset("tiny"), world.study_data, settings, optimizer="adam_mini",
        optimizer_settings=OptimizerSettings(), seed=seed, folder=folder,
    )  # fmt: skip


@pytest.mark.pitfall("R3")
def test_returns_by_hand() -> None:
    reward = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1).repeat(1, 1, 3)
    assert n_step_target(reward, 0.99)[0].tolist() == pytest.approx([5.9203] * 3)
    assert n_step_target(reward[:, 1:], 0.99)[0, 0].item() == pytest.approx(4.97)
    assert n_step_target(reward[:, :1], 0.99)[0, 0].item() == 1.0


@pytest.mark.pitfall("R3")
def test_delayed_outcome_reaches_its_action() -> None:
    reward = torch.zeros(1, 24, 3)
    reward[0, 10] = 1.0
    assert n_step_target(reward, 0.99)[0, 0].item() == pytest.approx(0.904382, rel=1e-5)


def test_equity_is_learnt_as_log_growth() -> None:
    reward = np.array([[0.01, 0.01, -0.002], [-0.5, -2.0, 0.0]], np.float32)
    learnt = learning_reward(reward)
    assert learnt[0].tolist() == pytest.approx([0.01, np.log(1.01), -0.002])
    assert learnt[1].tolist() == pytest.approx([-0.5, np.log(0.01), 0.0])  # bounded below
    assert reward[1, 1] == -2.0  # the stored rewards are as they were


def test_cloning_rules() -> None:
    high = torch.tensor([0.5, 1, 1, 0.5, 1, 1])
    action = torch.tensor([[0.5, 0.2, 0.3, 0.0, 0.9, 0.9], [0.0, 0.0, 0.0, 0.5, 0.1, 0.1]])
    mean = torch.tensor([[0.25, 0.4, 0.3, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.5, 0.1, 0.1]])
    # row 0 bought: volumes (0.5/0.5)^2 … ((0.25-0.5)/0.5)^2 = 0.25, TP 0.04, SL 0, sell volume 0; sell levels unknown
    assert cloning_error(mean, action, high, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.29 / 4)
    # row 1 sold: the buy levels do not count
    assert cloning_error(mean, action, high, torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0)
    assert cloning_error(mean, action, high, torch.zeros(2)).item() == 0.0  # no profitable episode


def test_opposite_demonstrations_average_to_flat() -> None:
    actor = build_actor(preset("tiny"), seed=0)
    actions = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 1.0, 0, 0]])
    raw = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        squashed = (actor.head.high * raw.sigmoid()).expand(2, 6)
        cloning_error(squashed, actions, actor.head.high, torch.ones(2)).backward()
        optimizer.step()
    output = actor.head(torch.cat([raw.detach(), torch.zeros(6)]).reshape(1, 1, 12), None)
    assert net_sides(output.squashed)[..., [0, 3]].abs().max() < 0.01


@contextmanager
def one_update(world: World, settings: StudySettings = SETTINGS) -> Iterator[tuple[torch.nn.Module, ...]]:
    """Yield networks before an update; the update is made when the block ends."""
    config = preset("tiny")
    actor, critic = build_actor(config, seed=1), build_critic(config, seed=2)
    learners = {
        "critic": Learner(critic, "adam_mini", OptimizerSettings(), 10),
        "actor": Learner(actor, "adam_mini", OptimizerSettings(), 10),
    }
    yield actor, critic
    batch = module._Batches(world.study_data, settings, 1).at(0)
    module._update(batch, actor, critic, learners, settings, 1, 0)


@pytest.mark.pitfall("N6", "U12")
def test_every_parameter_moves(world: World) -> None:
    with one_update(world) as networks:
        before = [[p.clone() for p in network.parameters()] for network in networks]
    for network, old in zip(networks, before, strict=True):
        names = [name for name, _ in network.named_parameters()]
        still = [n for n, p, q in zip(names, network.parameters(), old, strict=True) if torch.equal(p, q)]
        # a key's bias adds the same to all scores of a query: softmax gives it no gradient but rounding
        assert [name for name in still if not name.endswith("k_proj.bias")] == []


def test_actor_step_leaves_the_critic_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.update
    seen: list[str] = []

    def watched(self: Learner, loss: torch.Tensor) -> float:
        other = networks[1] if self.model is networks[0] else networks[0]
        before = [p.clone() for p in other.parameters()]
        norm = original(self, loss)
        assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True))
        seen.append(type(self.model).__name__)
        return norm

    monkeypatch.setattr(Learner, "update", watched)
    with one_update(world) as networks:
        pass
    assert seen == ["Critic", "Actor"]
    assert all(p.requires_grad for p in networks[1].parameters())


@pytest.mark.pitfall("R11")
def test_actor_is_pushed_at_zero_value(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guidance is linear in Q: with a critic that values buying at w, the buy volume rises, also where Q is 0."""
    settings = replace(SETTINGS, cloning=0.0, kl=0.0)
    config = preset("tiny")
    actor = build_actor(config, seed=1)
    learners = {"actor": Learner(actor, "sgd", OptimizerSettings(), 10)}
    critic = build_critic(config, seed=2)

    def value(account: torch.Tensor, action: torch.Tensor, _: object) -> torch.Tensor:
        """Value each lot of a buy at 1, less what makes the value 0 where the actor stands."""
        return (action[..., :1] - action[..., :1].detach() + 0 * critic.out.bias).expand(
            *account.shape[:2], 3
        )

    monkeypatch.setattr(critic, "forward", value)
    learners["critic"] = Learner(critic, "sgd", OptimizerSettings(), 10)
    batch = module._Batches(world.study_data, settings, 1).at(0)
    before = actor(batch.account, actor.prepare(batch.context)).squashed[..., 0].mean().item()
    module._update(batch, actor, critic, learners, settings, 1, 0)
    after = actor(batch.account, actor.prepare(batch.context)).squashed[..., 0].mean().item()
    assert after > before


def test_account_vectors_carry_the_hour_of_their_bar(world: World) -> None:
    store = world.study_data.store
    steps = store.gather(np.array([0, 0]), np.array([0, 5]))
    vectors = account_vectors(steps, world.table.server_time, 1.0)
    seconds = world.table.server_time[steps.bar]
    assert vectors[:, 11].tolist() == pytest.approx(
        np.sin(2 * np.pi * (seconds % 86_400) / 86_400).tolist(), abs=1e-6
    )


def test_batches_of_a_seed_hold_each_origin_once(world: World) -> None:
    batches = module._Batches(world.study_data, SETTINGS, seed=4)
    rows = np.concatenate([batches._uniform(k) for k in range(batches._per_epoch)])
    assert len(np.unique(rows)) == len(rows) > 0.98 * len(batches._episode) - SETTINGS.batch
    other = module._Batches(world.study_data, SETTINGS, seed=4)
    assert torch.equal(batches.at(3).action, other.at(3).action)


def test_weighted_batches_prefer_good_episodes(world: World) -> None:
    settings = replace(SETTINGS, sampling="return_weighted", batch=2000)
    batches = module._Batches(world.study_data, settings, seed=4)
    drawn = np.bincount(batches._episode[batches._weighted(0)], minlength=len(batches._odds))
    np.testing.assert_allclose(drawn / drawn.sum(), batches._odds, atol=0.04)
    assert not np.array_equal(batches._weighted(0), batches._weighted(1))
    assert np.array_equal(batches._weighted(1), batches._weighted(1))


def test_interrupted_study_resumes_to_the_same_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(world, tmp_path / "a")
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)  # keep every update
    original, made = module._update, [0]

    def interrupted(*arguments: object) -> dict[str, float]:
        made[0] += 1
        if made[0] in (7, 18, 25):
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_update", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path / "b")
    resumed = run(world, tmp_path / "b")
    assert made[0] == 33  # thirty updates and three that did not happen: nothing was done twice
    assert resumed.validation == unbroken.validation
    for name in ("models/actor.safetensors", "models/critic.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_kept_weights_are_those_of_the_greatest_validation_growth(world: World, folder: Path) -> None:
    result = run(world, folder, replace(SETTINGS, updates=45))
    assert [point["update"] for point in result.validation] == [15, 30, 45]
    assert result.log_growth == max(point["log_growth"] for point in result.validation)
