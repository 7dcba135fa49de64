"""Training of critic and actor: who moves whom, every target and objective, what is kept, resuming."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from halfstep.errors import DivergenceError
from halfstep.nn.presets import preset
from halfstep.training import checkpoint
from halfstep.training.loop import Learner
from halfstep.training.networks import Networks, build_networks, load_networks
from halfstep.training.samples import Batches
from halfstep.training.settings import PUBLISHED_STUDY, OptimizerSettings, StudySettings
from halfstep.training.study import StudyResult, Trainer, study

from .conftest import World

SETTINGS = StudySettings(updates=14, batch=32, eval_every=7)
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "published": dict(PUBLISHED_STUDY),
    "n_step": {"target": "n_step"},
    "bootstrap": {"target": "n_step", "bootstrap": True},
    "td": {"target": "td"},
    "return_to_go": {"target": "return_to_go"},
    "awr": {"objective": "awr", "target": "value"},
    "oracle": {"objective": "oracle"},
}


def run(world: World, folder: Path, settings: StudySettings = SETTINGS, **changes: Any) -> StudyResult:
    arguments = {"optimizer": "adam_mini", "optimizer_settings": OptimizerSettings(), "seed": 1} | changes
    return study(preset("tiny"), world.study_data, settings, folder=folder, **arguments)


def trainer_of(world: World, settings: StudySettings = SETTINGS) -> tuple[Trainer, Networks]:
    networks = build_networks(preset("tiny"), settings, seed=1)
    batches = Batches(world.study_data, settings, 1)
    return Trainer(networks, batches, settings, "adam_mini", OptimizerSettings(), 1), networks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("N6", "U12")
def test_every_parameter_moves(world: World, kind: str) -> None:
    trainer, networks = trainer_of(world, replace(SETTINGS, **KINDS[kind]))
    before = {n: [p.clone() for p in m.parameters()] for n, m in networks.trained.items()}
    copies = {n: [p.clone() for p in m.parameters()] for n, m in networks.copies.items()}
    for number in range(2):
        trainer.update(number)
    assert set(before) == {"critics", "actor"} | ({"value"} if kind == "awr" else set())
    for name, module in networks.trained.items():
        names = [n for n, _ in module.named_parameters()]
        still = [
            n for n, p, q in zip(names, module.parameters(), before[name], strict=True) if torch.equal(p, q)
        ]
        # a key's bias adds the same to all scores of a query: softmax gives it no gradient but rounding
        assert [n for n in still if not n.endswith("k_proj.bias")] == [], name
        rows = [
            n for n, p, q in zip(names, module.parameters(), before[name], strict=True)
            if p.dim() == 2 and bool((p == q).all(dim=1).any())
        ]  # fmt: skip
        assert rows == [], name
    expected = {"td": {"actor", "critics"}, "bootstrap": {"actor", "critics"}, "awr": {"critics"}}
    assert set(copies) == expected.get(kind, set())
    for name, module in networks.copies.items():
        moved = [not torch.equal(p, q) for p, q in zip(module.parameters(), copies[name], strict=True)]
        assert any(moved)


@pytest.mark.parametrize("kind", KINDS)
def test_actor_step_leaves_the_critic_alone(world: World, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    original = Learner.update
    seen: list[str] = []
    trainer, networks = trainer_of(world, replace(SETTINGS, **KINDS[kind]))

    def watched(self: Learner, loss: torch.Tensor) -> float:
        others = [m for m in (*networks.trained.values(), *networks.copies.values()) if m is not self.model]
        before = [[p.clone() for p in other.parameters()] for other in others]
        norm = original(self, loss)
        for other, old in zip(others, before, strict=True):
            assert all(torch.equal(p, q) for p, q in zip(other.parameters(), old, strict=True))
        seen.append(type(self.model).__name__)
        return norm

    monkeypatch.setattr(Learner, "update", watched)
    trainer.update(0)
    order = ["ValueNet", "Actor", "CriticEnsemble"] if kind == "awr" else ["CriticEnsemble", "Actor"]
    assert seen == order
    assert all(p.requires_grad for m in networks.trained.values() for p in m.parameters())


def test_copies_move_slowly(world: World) -> None:
    trainer, networks = trainer_of(world, replace(SETTINGS, target="td", target_rate=0.25))
    (name, before) = next(
        (n, p.clone()) for n, p in networks.critics.named_parameters() if n.endswith("out.weight")
    )
    trainer.update(0)
    now = dict(networks.critics.named_parameters())[name]
    copy = dict(networks.copies["critics"].named_parameters())[name]
    torch.testing.assert_close(copy, before + 0.25 * (now - before))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("U17")
def test_interrupted_study_resumes_to_the_same_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = replace(SETTINGS, **KINDS[kind])
    unbroken = run(world, tmp_path / "a", settings)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)  # keep every update
    original, made = Trainer.update, [0]

    def interrupted(self: Trainer, number: int) -> dict[str, float]:
        made[0] += 1
        if made[0] in (4, 9, 13):
            raise KeyboardInterrupt
        return original(self, number)

    monkeypatch.setattr(Trainer, "update", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path / "b", settings)
    resumed = run(world, tmp_path / "b", settings)
    assert made[0] == 17  # fourteen updates and three that did not happen: nothing was done twice
    assert resumed.validation == unbroken.validation
    assert resumed.warnings == unbroken.warnings
    names = {path.name for path in (tmp_path / "a").glob("models/*.safetensors")}
    assert {"actor.safetensors", "critic.safetensors"} <= names
    assert ("critics.safetensors" in names) == (kind in ("td", "awr"))
    assert ("value.safetensors" in names) == (kind == "awr")
    for name in (*(f"models/{name}" for name in names), "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("kind", ["default", "awr"])
def test_a_round_goes_on_from_the_networks_of_the_one_before(world: World, tmp_path: Path, kind: str) -> None:
    settings = replace(SETTINGS, updates=7, **KINDS[kind])
    first = run(world, tmp_path / "a", settings)
    still = run(
        world, tmp_path / "b", replace(settings, updates=1), previous=tmp_path / "a",
        optimizer_settings=OptimizerSettings(lr=1e-9),
    )  # fmt: skip
    for a, b in zip(first.actor.parameters(), still.actor.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert still.log_growth == pytest.approx(first.log_growth, abs=1e-6)
    torch.testing.assert_close(still.critic.out.weight, first.critic.out.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["default", "awr"])
def test_values_of_an_earlier_round_take_the_unit_of_the_new_one(
    world: World, tmp_path: Path, kind: str
) -> None:
    settings = replace(SETTINGS, updates=1, **KINDS[kind])
    first = run(world, tmp_path, settings)
    networks = build_networks(preset("tiny"), settings, seed=2)
    load_networks(
        networks, tmp_path / "models", encoder_hash=world.contexts.encoder_hash, scale=4 * first.scale
    )
    batch = Batches(world.study_data, settings, 1).at(0)
    critic, before = networks.critic, first.critic
    now, then = (
        net(batch.now.account, batch.action, net.prepare(batch.now.context)) for net in (critic, before)
    )
    torch.testing.assert_close(
        4 * now, then
    )  # rewards are a quarter of what they were, and so are their sums
    same = build_networks(preset("tiny"), settings, seed=2)
    load_networks(same, tmp_path / "models", encoder_hash=world.contexts.encoder_hash, scale=first.scale)
    for name, module in networks.trained.items():
        for (key, param), (_, other) in zip(
            module.named_parameters(), same.trained[name].named_parameters(), strict=True
        ):
            is_value = name != "actor" and key.rpartition(".")[0].endswith("out") and "stack" not in key
            torch.testing.assert_close(4 * param if is_value else param, other, rtol=0, atol=0, msg=key)
    for name, module in networks.copies.items():
        for a, b in zip(module.parameters(), networks.trained[name].parameters(), strict=True):
            assert torch.equal(a, b)


def test_kept_weights_are_those_of_the_greatest_validation_growth(world: World, folder: Path) -> None:
    result = run(world, folder, replace(SETTINGS, updates=21))
    assert [point["update"] for point in result.validation] == [0, 7, 14, 21]
    assert result.log_growth == max(point["log_growth"] for point in result.validation)


def test_training_stops_when_validation_no_longer_improves(world: World, folder: Path) -> None:
    # a learning rate of nearly nothing: no trade of the span is better than the first
    result = run(
        world, folder, replace(SETTINGS, updates=100, eval_every=5, patience=2),
        optimizer_settings=OptimizerSettings(lr=1e-12),
    )  # fmt: skip
    assert result.updates == 10
    assert [point["update"] for point in result.validation] == [0, 5, 10]


@pytest.mark.pitfall("U12")
def test_standing_still_is_reported(world: World, folder: Path) -> None:
    result = run(
        world,
        folder,
        replace(SETTINGS, updates=5, eval_every=5),
        optimizer_settings=OptimizerSettings(lr=1e-30),
    )
    text = " ".join(result.warnings)
    assert "actor: unchanged after training: embed.weight" in text
    assert "critics: unchanged after training" in text
    assert "no weights earned more on the validation span than those before training" in text


def test_a_healthy_study_warns_of_nothing_unmoved(world: World, folder: Path) -> None:
    warnings = run(world, folder, replace(SETTINGS, updates=5, eval_every=5)).warnings
    assert [w for w in warnings if "unchanged" in w or "no gradient" in w] == []


@pytest.mark.pitfall("U12")
def test_updates_without_a_gradient_are_counted(world: World, folder: Path) -> None:
    nothing = replace(SETTINGS, updates=5, eval_every=5, cloning=0.0, guidance=0.0, kl=0.0)
    assert "actor: 5 of 5 updates had no gradient" in run(world, folder, nothing).warnings


@pytest.mark.pitfall("K7")
def test_divergence_names_update_parameters_and_checkpoint(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    original = Trainer.update

    def poisoned(self: Trainer, number: int) -> dict[str, float]:
        if number == 3:
            with torch.no_grad():
                next(self._networks.critics.parameters())[0, 0] = float("nan")
        return original(self, number)

    monkeypatch.setattr(Trainer, "update", poisoned)
    with pytest.raises(
        DivergenceError, match=r"update 4: loss nan.*critics\.0\.embed.*newest good state is .*study"
    ):
        run(world, folder)


@contextmanager
def no_test_bars(world: World) -> Iterator[World]:
    """Yield the world with every bar behind the validation span spoiled."""
    stop = world.study_data.validation[1]
    rows = world.contexts.rows.clone()
    rows[stop - world.contexts.first :] = float("nan")
    values = world.table.values.copy()
    values[stop:] = float("nan")
    contexts = replace(world.contexts, rows=rows)
    yield replace(
        world,
        study_data=replace(world.study_data, contexts=contexts, table=replace(world.table, values=values)),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("R12", "T4")
def test_study_never_reads_the_test_span(world: World, tmp_path: Path, kind: str) -> None:
    settings = replace(SETTINGS, updates=5, eval_every=5, **KINDS[kind])
    plain = run(world, tmp_path / "a", settings)
    with no_test_bars(world) as blind:
        other = run(blind, tmp_path / "b", settings)
    assert plain.validation == other.validation
    for name in ("models/actor.safetensors", "models/critic.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="bootstrap: true, but target is one_step"):
        StudySettings(target="one_step", bootstrap=True)
    with pytest.raises(ValueError, match="target: 'one_step', with objective 'awr'"):
        StudySettings(objective="awr")
    with pytest.raises(ValueError, match="target: 'value', with objective 'guided'"):
        StudySettings(target="value")
    with pytest.raises(ValueError, match=r"reward_weights: .* must not all be 0"):
        StudySettings(reward_weights=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"expectile: 1.0, must lie between 0 and 1"):
        StudySettings(expectile=1.0)
    with pytest.raises(ValueError, match=r"kl: -1.0, must be 0 or more"):
        StudySettings(kl=-1.0)
