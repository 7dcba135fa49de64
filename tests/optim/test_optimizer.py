"""Adam-mini against AdamW, against numbers worked out by hand, and in the manners of a torch optimizer."""

import copy
import pickle
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Rule, partition_model


def stepped(
    values: Any, grads: list[Any], *, blocks: str = "row", dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a parameter and its state after one step per gradient."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor(values, dtype=dtype))
    defaults = {"lr": 1e-3, "weight_decay": 0.0}
    partition = partition_model(module, rules=[Rule("weight", blocks)])  # type: ignore[arg-type]
    optimizer = AdamMini(module.parameters(), partition=partition, **(defaults | options))
    for grad in grads:
        module.weight.grad = torch.tensor(grad, dtype=dtype)
        optimizer.step()
    return module.weight.detach(), optimizer.state[module.weight]


@pytest.mark.pitfall("K1")
def test_negative_corrections_are_applied() -> None:
    param, _ = stepped([[0.0] * 4], [[[1, -2, 3, -4]]])
    torch.testing.assert_close(
        param, torch.tensor([[-3.6515e-4, 7.3030e-4, -1.09545e-3, 1.46059e-3]]), rtol=1e-4, atol=0
    )


@pytest.mark.pitfall("K1b")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_two_steps_by_hand(dtype: torch.dtype, tolerance: float) -> None:
    param, state = stepped(
        [[1, -1, 0.5], [2, 0, -3]],
        [[[1, 2, -2], [0.1, 0.1, 0.1]], [[-1, 0, 2], [0, 0, 0.3]]],
        dtype=dtype, lr=0.1, weight_decay=0.01,
    )  # fmt: skip
    expected = [[0.9437695003, -1.1753798368, 0.6074634994], [1.8626116687, -0.1333903313, -3.2390278021]]
    torch.testing.assert_close(param, torch.tensor(expected, dtype=dtype), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        state["exp_avg_sq"][:, 0], torch.tensor([4.66366667e-3, 3.999e-5], dtype=dtype), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        state["exp_avg"],
        torch.tensor([[-0.01, 0.18, 0.02], [0.009, 0.009, 0.039]], dtype=dtype),
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.pitfall("K3")
def test_every_element_counts_once() -> None:
    for n in (1, 2, 3, 4, 8, 33, 64, 65, 257):
        for k in range(n):
            grad = [[0.0] * n]
            grad[0][k] = 1.0
            assert stepped([[0.0] * n], [grad])[1]["exp_avg_sq"].item() == pytest.approx(1e-3 / n, rel=1e-5)
    for n, mean in ((3, 4.6667), (33, 379.6667), (64, 1397.5), (1025, 350_721)):
        grad = [[float(k + 1) for k in range(n)]]
        assert stepped([[0.0] * n], [grad])[1]["exp_avg_sq"].item() == pytest.approx(1e-3 * mean, rel=1e-4)


@pytest.mark.pitfall("K6")
def test_eps_is_added_after_bias_correction() -> None:
    assert stepped([[0.0]], [[[1e-8]]], lr=1.0)[0].item() == pytest.approx(-0.5, rel=1e-4)
    assert stepped([[0.0]], [[[1e-25]]], lr=1e-3, dtype=torch.float64)[0].item() == pytest.approx(
        -1e-20, rel=1e-4
    )
    assert torch.equal(stepped([[1.5, 2.5]], [[[0.0, 0.0]]] * 10)[0], torch.tensor([[1.5, 2.5]]))


@pytest.mark.pitfall("K7", "N1")
def test_a_bad_gradient_is_never_replaced() -> None:
    layer = nn.Linear(3, 2, bias=False)
    optimizer = AdamMini(layer.named_parameters(), weight_decay=0.0)
    with torch.no_grad():
        layer.weight.zero_()
    layer.weight.grad = torch.tensor([[1, float("nan"), 1], [1, 1, 1]])
    optimizer.step()
    assert layer.weight[0].isnan().all()
    torch.testing.assert_close(layer.weight[1], torch.full((3,), -1e-3))
    assert optimizer.found_nonfinite() == ["weight"]


@pytest.mark.pitfall("K8")
def test_decay_is_decoupled() -> None:
    assert stepped([[2.0]], [[[0.0]]], lr=0.1, weight_decay=0.01)[0].item() == pytest.approx(1.998)


@pytest.mark.pitfall("K9")
def test_weights_are_not_clamped() -> None:
    assert stepped([[0.0]], [[[-1.0]]] * 10, lr=1.0)[0].item() == pytest.approx(10.0, rel=1e-5)


@pytest.mark.pitfall("C13")
def test_bias_correction_at_every_step() -> None:
    for steps in (1, 2, 10, 100):
        assert stepped([[0.0]], [[[1.0]]] * steps)[0].item() == pytest.approx(-1e-3 * steps, rel=1e-5)


@pytest.mark.pitfall("K13")
def test_state_of_another_layout_is_converted_or_refused() -> None:
    layer = nn.Linear(4, 1, bias=False)
    adamw = torch.optim.AdamW(layer.parameters())
    layer.weight.grad = torch.ones_like(layer.weight)
    adamw.step()
    adamw.state[layer.weight]["exp_avg_sq"] = torch.tensor([[1.0, 2, 3, 6]])
    ours = AdamMini(layer.parameters())
    ours.load_state_dict(adamw.state_dict())
    assert ours.state[layer.weight]["exp_avg_sq"].tolist() == [[3.0]]
    wrong = adamw.state_dict()
    wrong["state"][0]["exp_avg_sq"] = torch.ones(3, 1)
    with pytest.raises(
        ValueError, match=r"parameter 0: exp_avg_sq has shape \(3, 1\), must be \(1, 1\) or \(1, 4\)"
    ):
        ours.load_state_dict(wrong)


@pytest.mark.pitfall("K14")
@pytest.mark.pitfall("O7")
def test_missing_gradient_changes_nothing() -> None:
    layers = nn.ModuleList([nn.Linear(3, 2) for _ in range(2)])
    optimizer = AdamMini(layers.parameters(), weight_decay=0.1)
    for k in range(3):
        for index, layer in enumerate(layers):
            for param in layer.parameters():
                param.grad = None if (index == 1 and k == 1) else torch.ones_like(param)
        before = layers[1].weight.detach().clone()
        optimizer.step()
        assert torch.equal(before, layers[1].weight) == (k == 1)
    assert [optimizer.state[layer.weight]["step"].item() for layer in layers] == [3, 2]


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.3}, {"betas": (0.5, 0.99)}, {"eps": 1e-3}, {"maximize": True}]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_one_element_per_block_is_adamw(
    options: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    partition = partition_model(ours, rules=[Rule("*", "element")])
    pairs = [
        (ours, AdamMini(ours.parameters(), lr=1e-2, partition=partition, **options)),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2, **options)),
    ]
    x, y = torch.randn(20, 5, dtype=dtype), torch.randn(20, 3, dtype=dtype)
    for _ in range(100):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.pitfall("O9")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_second_moment_does_not_stall(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(4, 2, bias=False).to(dtype)
    optimizer = AdamMini(layer.parameters(), lr=0.0)
    for _ in range(2000):
        layer.weight.grad = (torch.randint(0, 2, (2, 4), generator=generator) * 2 - 1).to(dtype)
        optimizer.step()
    corrected = optimizer.state[layer.weight]["exp_avg_sq"] / (1 - 0.999**2000)
    torch.testing.assert_close(corrected, torch.ones(2, 1), rtol=1e-4, atol=0)


@pytest.mark.pitfall("O9")
def test_small_half_gradients_do_not_underflow() -> None:
    param, state = stepped([[0.0, 0.0]], [[[1e-4, 1e-4]]], dtype=torch.float16)
    assert state["exp_avg_sq"].item() / 1e-3 == pytest.approx(1.0003e-8, rel=1e-3)
    assert param[0, 0].item() == pytest.approx(-1e-3, rel=1e-3)


@pytest.mark.pitfall("O8")
def test_tied_weights_step_once() -> None:
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleList([embedding, head])
    assert len(partition_model(model).specs) == 1
    optimizer = AdamMini.for_model(model)
    embedding.weight.grad = torch.ones_like(embedding.weight)
    optimizer.step()
    assert optimizer.state[embedding.weight]["step"].item() == 1


@pytest.mark.pitfall("O27")
def test_defaults_are_those_of_adamw() -> None:
    layer = nn.Linear(2, 2)
    ours, theirs = AdamMini(layer.parameters()).defaults, torch.optim.AdamW(layer.parameters()).defaults
    assert all(theirs[name] == value for name, value in ours.items())


@pytest.mark.pitfall("O20")
def test_bad_arguments_are_refused() -> None:
    params = list(nn.Linear(2, 2).parameters())
    for options, words in [
        ({"lr": -1}, "lr: -1.0"), ({"eps": -1e-8}, "eps: -1e-08"), ({"betas": (0.9, 1.0)}, "beta2: 1.0"),
        ({"weight_decay": -1}, "weight_decay: -1.0"), ({"lr": float("nan")}, "lr: nan"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            AdamMini(params, **options)
    with pytest.raises(ValueError, match="a complex parameter"):
        AdamMini([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="knows no parameter of shape"):
        AdamMini(params, partition=partition_model(nn.Linear(2, 2)))
    sparse = nn.Embedding(4, 2, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="a sparse gradient"):
        AdamMini(sparse.parameters()).step()


@pytest.mark.pitfall("O19")
def test_is_a_torch_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    extra = nn.Linear(1, 1)
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    optimizer = AdamMini(model.named_parameters(), lr=torch.tensor(1e-2))
    optimizer.add_param_group({"params": list(extra.named_parameters()), "lr": 1e-3})
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.01, 0.02], total_steps=20)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))

    def closure() -> float:
        optimizer.zero_grad()
        loss = (extra(model(x)) - y).square().mean()
        loss.backward()
        return loss.item()

    losses = []
    for _ in range(10):
        losses.append(optimizer.step(closure))
        schedule.step()
    assert losses[-1] < losses[0]
    assert len(calls) == 10
    both = copy.deepcopy((model, extra, optimizer))
    revived = pickle.loads(pickle.dumps(optimizer))
    assert len(revived.state) == len(optimizer.state)
    revived.step()
    both[2].step()


def test_save_load_continue_equals_continue() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    optimizer = AdamMini.for_model(model, lr=1e-2)
    x = torch.randn(8, 4)

    def train(m: nn.Module, o: AdamMini) -> None:
        for _ in range(5):
            o.zero_grad()
            m(x).square().mean().backward()
            o.step()

    train(model, optimizer)
    twin = copy.deepcopy(model)
    loaded = AdamMini.for_model(twin, lr=1e-2)
    loaded.load_state_dict(optimizer.state_dict())
    train(model, optimizer)
    train(twin, loaded)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def quadratic_losses(seed: int) -> tuple[float, float]:
    """Return loss / initial loss after 200 steps with one rate per block and with one rate per element."""
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for eigenvalues in ([1.0, 2, 3], [99.0, 100, 101], [4998.0, 4999, 5000]):
        basis = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
        blocks.append(basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T)
    hessian = torch.block_diag(*blocks)
    start = torch.randn(9, generator=generator, dtype=torch.float64)

    block = BlockSpec(shape=(3, 3), row_axes=(0,), kind="row", reason="a block of the Hessian")

    def loss_after(second_moment: Tensor) -> float:
        rates = 1 / second_moment.expand(3, 3).reshape(9).sqrt()
        curvatures = torch.linalg.eigvals(torch.diag(rates) @ hessian).real
        lr = 2 / (curvatures.max() + curvatures.min())  # the best constant step
        x = start.clone()
        for _ in range(200):
            x = x - lr * rates * (hessian @ x)
        return float((x @ hessian @ x) / (start @ hessian @ start))

    first = (hessian @ start).reshape(3, 3)
    return loss_after(block.mean_square(first)), loss_after(first.square())


def test_block_diagonal_quadratic() -> None:
    """Eigenvalues {1, 2, 3}, {99, 100, 101}, {4998, 4999, 5000} in random bases: one rate per block wins.

    beta1 = 0 and beta2 = 1, so that the second moment stays that of the first gradient.
    """
    ours, adam = zip(*(quadratic_losses(seed) for seed in range(10)), strict=True)
    assert statistics.median(ours) < 1e-60
    assert statistics.median(adam) > 1e-25
