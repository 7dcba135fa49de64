"""Optimizers by name: groups, registration, measured state."""

import pytest
import torch
from torch import nn

from halfstep.training import optimizers
from halfstep.training.loop import Learner
from halfstep.training.optimizers import (
    make_optimizer,
    measured_state_bytes,
    optimizer_names,
    register_optimizer,
)
from halfstep.training.settings import OptimizerSettings

SETTINGS = OptimizerSettings(warmup_steps=1)


def model_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def test_state_bytes_are_measured() -> None:
    model = nn.Linear(100, 50, bias=False)
    learner = Learner(model, "adamw", SETTINGS, total=10)
    assert measured_state_bytes(learner.optimizer) == 0
    learner.update(model(torch.ones(1, 100)).sum())
    assert measured_state_bytes(learner.optimizer) == 2 * 5000 * 4 + 4  # two moments and a step count
    learner.optimizer.state[model.weight]["hidden"] = {"buffer": torch.zeros(5000)}
    assert measured_state_bytes(learner.optimizer) == 3 * 5000 * 4 + 4  # a hidden buffer is found
    learner.optimizer.state[model.weight]["view"] = learner.optimizer.state[model.weight]["exp_avg"][:3]
    assert measured_state_bytes(learner.optimizer) == 3 * 5000 * 4 + 4  # a view of a counted one is not


def test_matrices_decay_and_vectors_do_not() -> None:
    for name in ("sgd", "adamw", "adam_mini"):
        groups = make_optimizer(name, model_of(), SETTINGS).param_groups
        decays = {p.dim(): group["weight_decay"] for group in groups for p in group["params"]}
        assert decays == {1: 0.0, 2: 0.01}, name


def test_adam_does_not_decay() -> None:
    groups = make_optimizer("adam", model_of(), SETTINGS).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.0]


def test_own_optimizers_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = {name: optimizers._FACTORIES[name] for name in optimizers.BUILT_IN}
    monkeypatch.setattr(optimizers, "_FACTORIES", built_in)
    for lr in (0.5, 0.25):  # a cell of a notebook may run twice
        register_optimizer("own", lambda model, s, lr=lr: torch.optim.RMSprop(model.parameters(), lr=lr))
    assert optimizer_names() == (*optimizers.BUILT_IN, "own")
    made = Learner(model_of(), "own", SETTINGS, total=10).optimizer
    assert isinstance(made, torch.optim.RMSprop)
    assert made.param_groups[0]["lr"] == 0.25


def test_wrong_names_are_refused() -> None:
    def factory(model: nn.Module, _: OptimizerSettings) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters())

    with pytest.raises(ValueError, match="optimizer: 'adamini', must be one of sgd, adam, adamw, adam_mini"):
        make_optimizer("adamini", model_of(), SETTINGS)
    with pytest.raises(ValueError, match="name: 'adamw', is taken"):
        register_optimizer("adamw", factory)
    with pytest.raises(ValueError, match="name: 'my/own', must be letters"):
        register_optimizer("my/own", factory)
