"""The update rule against numbers worked out by hand: what published kernels got wrong."""

import pytest
import torch
from torch import nn

from halfstep.optim import AdamMini, Rule, partition_model

PLAIN = {"lr": 1e-3, "weight_decay": 0.0}
KERNELS = pytest.mark.parametrize("fused", [None, False], ids=["compiled", "plain"])


@pytest.mark.pitfall("K4", "C11")
@pytest.mark.parametrize("width", [63, 64, 65, 128, 130])
@KERNELS
def test_bias_rule_is_the_same_at_every_width(width: int, fused: bool | None) -> None:
    """Weight gradient 1, bias gradients 1, 10 and 1e6: every first step is lr, and the bias is in no weight's mean."""
    layer = nn.Linear(width, 3)
    optimizer = AdamMini(layer.parameters(), **PLAIN, fused=fused, partition=partition_model(layer))
    start = {name: param.detach().clone() for name, param in layer.named_parameters()}
    layer.weight.grad = torch.ones(3, width)
    layer.bias.grad = torch.tensor([1.0, 10.0, 1e6])
    optimizer.step()
    for name, param in layer.named_parameters():
        torch.testing.assert_close(param - start[name], torch.full_like(param, -1e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(optimizer.state[layer.weight]["exp_avg_sq"], torch.full((3, 1), 1e-3))


@pytest.mark.pitfall("K6", "C12")
@KERNELS
def test_vanishing_gradients_are_harmless(fused: bool | None) -> None:
    """A gradient of 1e-25: its square is below float32, so eps alone divides: lr g / eps = 1e-20."""
    param = nn.Parameter(torch.zeros(3, 4))
    optimizer = AdamMini([param], **PLAIN, fused=fused)
    param.grad = torch.full((3, 4), 1e-25)
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full((3, 4), -1e-20), rtol=1e-5, atol=0)
    before = param.detach().clone()
    fresh = AdamMini([param], **PLAIN, fused=fused)
    for _ in range(10):
        param.grad = torch.zeros(3, 4)
        fresh.step()
    assert torch.equal(param, before)


@pytest.mark.pitfall("K2", "U1")
def test_readers_sizes_train() -> None:
    """12 bars of 11 features and 4 outputs: no power of two, no multiple of 4."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12 * 11, 30), nn.SiLU(), nn.Linear(30, 4))
    optimizer = AdamMini.for_model(model, lr=1e-2)
    batch, target = torch.randn(7, 12, 11), torch.randn(7, 4)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (model(batch) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.pitfall("K11")
def test_second_moment_uses_the_batch_gradient() -> None:
    """Samples [1, 0] and [0, 2], output gradients 1 and 3, mean loss: G = [0.5, 3.0], v = 1e-3 (0.25 + 9)/2."""
    layer = nn.Linear(2, 1, bias=False)
    optimizer = AdamMini(layer.parameters(), **PLAIN)
    output = layer(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    (output[:, 0] * torch.tensor([1.0, 3.0])).mean().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.5, 3.0]]))
    optimizer.step()
    assert optimizer.state[layer.weight]["exp_avg_sq"].item() == pytest.approx(4.625e-3, rel=1e-6)


@pytest.mark.pitfall("K14", "C14")
@KERNELS
def test_step_counts_optimizer_steps(fused: bool | None) -> None:
    """Four attention layers of five projections: each parameter moves by lr, whatever the number of projections."""
    model = nn.ModuleList(nn.ModuleList(nn.Linear(3, 3, bias=False) for _ in range(5)) for _ in range(4))
    blocks = partition_model(model, rules=[Rule("*", "element")])
    optimizer = AdamMini(model.parameters(), **PLAIN, fused=fused, partition=blocks)
    start = [param.detach().clone() for param in model.parameters()]
    for number in range(3):
        for k, param in enumerate(model.parameters()):
            param.grad = None if (number, k) == (1, 7) else torch.ones_like(param)
        optimizer.step()
        if number == 0:
            for param, old in zip(model.parameters(), start, strict=True):
                torch.testing.assert_close(param - old, torch.full_like(param, -1e-3), rtol=1e-3, atol=0)
    steps = [optimizer.state[param]["step"].item() for param in model.parameters()]
    assert steps == [2.0 if k == 7 else 3.0 for k in range(20)]


@pytest.mark.pitfall("O28")
@KERNELS
def test_clipping_inside_the_step(fused: bool | None) -> None:
    """g = [3, 4] and max norm 1: c = 0.2, m = 0.1 c g, v = 1e-3 c^2 12.5; as clipping first and stepping then."""
    param, twin = nn.Parameter(torch.zeros(1, 2)), nn.Parameter(torch.zeros(1, 2))
    ours, reference = AdamMini([param], **PLAIN, fused=fused), AdamMini([twin], **PLAIN, fused=False)
    param.grad, twin.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]])
    assert ours.clip_grad_norm_(1.0).item() == pytest.approx(5.0)
    assert param.grad.tolist() == [[3.0, 4.0]]  # gradients are not written
    ours.step()
    nn.utils.clip_grad_norm_([twin], 1.0)
    reference.step()
    state = ours.state[param]
    torch.testing.assert_close(state["exp_avg"], torch.tensor([[0.06, 0.08]]), rtol=1e-5, atol=0)
    assert state["exp_avg_sq"].item() == pytest.approx(5e-4, rel=1e-5)
    torch.testing.assert_close(param, twin)
    ours.step()  # the factor held for one step
    torch.testing.assert_close(
        state["exp_avg"], 0.9 * torch.tensor([[0.06, 0.08]]) + torch.tensor([[0.3, 0.4]]), rtol=1e-5, atol=0
    )


@pytest.mark.pitfall("O28")
def test_clipping_equals_torch_over_many_tensors() -> None:
    torch.manual_seed(0)
    ours_model = nn.Sequential(nn.Linear(40, 130), nn.LayerNorm(130), nn.Linear(130, 3)).double()
    twin_model = nn.Sequential(nn.Linear(40, 130), nn.LayerNorm(130), nn.Linear(130, 3)).double()
    twin_model.load_state_dict(ours_model.state_dict())
    ours, twin = AdamMini.for_model(ours_model), AdamMini.for_model(twin_model)
    for limit in (0.01, 1.0, 1e6, 0.0):
        batch = torch.randn(5, 40, dtype=torch.float64)
        for model in (ours_model, twin_model):
            model.zero_grad()
            model(batch).square().sum().backward()
        norm = ours.clip_grad_norm_(limit)
        assert norm.item() == pytest.approx(
            nn.utils.clip_grad_norm_(twin_model.parameters(), limit).item(), rel=1e-6
        )
        ours.step()
        twin.step()
    for param, other in zip(ours_model.parameters(), twin_model.parameters(), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite_does_what_torch_does(bad: float) -> None:
    param, twin = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
    ours, reference = AdamMini([("w", param)], **PLAIN), AdamMini([twin], **PLAIN)
    for p in (param, twin):
        p.grad = torch.tensor([[1.0, bad], [1.0, 1.0]])
    with pytest.raises(RuntimeError, match=r"norm of the gradients is (nan|inf).*w"):
        ours.clip_grad_norm_(1.0, error_if_nonfinite=True)
    ours.clip_grad_norm_(1.0)
    nn.utils.clip_grad_norm_([twin], 1.0)
    ours.step()
    reference.step()
    torch.testing.assert_close(param, twin, equal_nan=True)


def test_scaling_the_loss_leaves_the_first_step_as_it_is() -> None:
    torch.manual_seed(0)
    grad = torch.randn(6, 40)
    moved = []
    for factor in (1.0, 1e-3, 1e4):
        param = nn.Parameter(torch.zeros(6, 40))
        optimizer = AdamMini([param], **PLAIN, eps=1e-20)
        param.grad = factor * grad
        optimizer.step()
        moved.append(param.detach().clone())
    torch.testing.assert_close(moved[1], moved[0])
    torch.testing.assert_close(moved[2], moved[0])


def test_permuting_blocks_commutes_with_the_step() -> None:
    torch.manual_seed(0)
    order = torch.randperm(30)
    weight, grads = torch.randn(30, 17), [torch.randn(30, 17) for _ in range(4)]

    def train(turn: torch.Tensor) -> torch.Tensor:
        param = nn.Parameter(weight[turn].clone())
        optimizer = AdamMini([param])
        for grad in grads:
            param.grad = grad[turn].clone()
            optimizer.step()
        return param.detach()

    assert torch.equal(train(torch.arange(30))[order], train(order))


def test_accumulated_gradients_equal_a_big_batch() -> None:
    torch.manual_seed(0)
    batch = torch.randn(8, 20, dtype=torch.float64)
    results = []
    for parts in (1, 4):
        torch.manual_seed(1)
        model = nn.Linear(20, 40).double()
        optimizer = AdamMini.for_model(model)
        for _ in range(3):
            optimizer.zero_grad()
            for part in batch.chunk(parts):
                (model(part).square().sum() / 8).backward()
            optimizer.step()
        results.append(model.weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)


def test_weights_turned_by_hand_are_stepped_as_they_lie_now() -> None:
    """A transposed square weight keeps its address and size; only its strides tell."""
    torch.manual_seed(0)
    weight, grads = torch.randn(6, 6), [torch.randn(6, 6), torch.randn(6, 6)]
    results = []
    for fused in (None, False):
        param = nn.Parameter(weight.clone())
        optimizer = AdamMini([param], **PLAIN, fused=fused)
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()
            param.data = param.data.t()
        results.append(param.detach().clone())
    torch.testing.assert_close(results[0], results[1])
