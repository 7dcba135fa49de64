"""What all trainings share: schedule, clipping, checked updates, measured state."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from halfstep.errors import DivergenceError
from halfstep.training.checkpoint import Checkpoint
from halfstep.training.loop import Learner, lr_share, write_metric_lines
from halfstep.training.optimizers import BUILT_IN
from halfstep.training.settings import EncoderTraining, OptimizerSettings, StudySettings

SETTINGS = OptimizerSettings(warmup_steps=1)


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def test_schedule_rises_and_falls_to_a_tenth() -> None:
    shares = [lr_share(k, 1000, 100) for k in range(1000)]
    assert shares[0] == 0.01
    assert shares[99] == shares[100] == 1.0
    assert shares[550] == pytest.approx(0.55)  # half of the cosine
    assert shares[999] == pytest.approx(0.1, abs=1e-5)
    assert lr_share(0, 8, 100) == 0.5  # a short training warms up over a quarter of itself


@pytest.mark.pitfall("N21")
def test_global_norm_clipping() -> None:
    model = nn.ParameterList([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))])
    learner = Learner(model, "sgd", replace(SETTINGS, sgd_lr=1.0, weight_decay=0.0), total=10)
    norm = learner.update(3 * model[0].sum() + 4 * model[1].sum())
    assert norm == pytest.approx(5.0)
    assert [p.grad.item() for p in model] == pytest.approx([0.6, 0.8])
    assert [p.item() for p in model] == pytest.approx([-0.6, -0.8])


@pytest.mark.pitfall("N21")
def test_loss_scale_reaches_the_first_layer() -> None:
    gradients = []
    for scale in (1.0, 1000.0):
        model = model_of()
        learner = Learner(model, "sgd", replace(SETTINGS, max_norm=1e9), total=10)
        learner.update(scale * model(torch.ones(4, 3)).square().mean())
        gradients.append([p.grad.clone() for p in model.parameters()])
    for small, large in zip(*gradients, strict=True):
        torch.testing.assert_close(large, 1000 * small)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.pitfall("K7", "N1")
def test_training_stops_before_a_bad_step(name: str) -> None:
    model = model_of()
    learner = Learner(model, name, SETTINGS, total=10)
    for _ in range(2):
        learner.update(model(torch.ones(4, 3)).square().mean())
    before = io.BytesIO()
    torch.save(learner.state_dict(), before)
    bad = model[2](torch.tanh(model[0](torch.ones(4, 3))).detach()) * float("nan")
    with pytest.raises(
        DivergenceError,
        match=r"update 3: loss nan, gradients not finite in 2\.weight, 2\.bias\. .*Lower --optim\.lr",
    ):
        learner.update(bad.sum())
    after = io.BytesIO()
    torch.save(learner.state_dict(), after)
    assert after.getvalue() == before.getvalue()  # weights, moments and counts
    with pytest.raises(DivergenceError, match=r"in 0\.weight, 0\.bias, 2\.weight and 1 more\. "):
        learner.update(sum(param.sum() for param in model.parameters()) * float("inf"))
    learner.update(model(torch.ones(4, 3)).square().mean())  # and the training can go on
    assert learner.updates == 3


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.pitfall("U17")
def test_interrupted_training_resumes(name: str, tmp_path: Path) -> None:
    def steps(learner: Learner, numbers: range) -> None:
        for k in numbers:
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k))
            learner.update(learner.model(x).square().mean())

    unbroken = Learner(model_of(), name, OptimizerSettings(warmup_steps=3), total=12)
    steps(unbroken, range(12))
    first = Learner(model_of(), name, OptimizerSettings(warmup_steps=3), total=12)
    steps(first, range(5))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save(first.state_dict(), step=5)
    second = Learner(model_of(seed=9), name, OptimizerSettings(warmup_steps=3), total=12)
    second.load_state_dict(checkpoint.load() or {})
    steps(second, range(5, 12))
    for a, b in zip(unbroken.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lr: 0.0, must be above 0"):
        OptimizerSettings(lr=0.0)
    with pytest.raises(ValueError, match=r"beta2: 1.0, must lie in \[0, 1\)"):
        OptimizerSettings(beta2=1.0)
    with pytest.raises(ValueError, match="epochs: 0, must be at least 1"):
        EncoderTraining(epochs=0)
    with pytest.raises(ValueError, match=r"alpha: 1.5, must lie in"):
        EncoderTraining(alpha=1.5)
    with pytest.raises(ValueError, match="horizon: 0, must be at least 1"):
        StudySettings(horizon=0)
    with pytest.raises(ValueError, match=r"discount: 0.0, must lie in"):
        StudySettings(discount=0.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metric_lines(tmp_path, "encoder", [{"loss": float("nan")}], seed=1)
