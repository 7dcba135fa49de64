"""States travel between AdamMini, torch's AdamW and the published adam-mini package, and training goes on."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from halfstep.optim.interop import adamw_state_dict, published_state_dict
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import partition_model
from halfstep.optim.rules import Rule, head


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = self.num_key_value_heads = 4
        self.head_dim = 4
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [f(x).unflatten(-1, (4, 4)).transpose(0, 1) for f in (self.q_proj, self.k_proj, self.v_proj)]
        out: torch.Tensor = self.o_proj(
            nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1)
        )
        return out


class Llama(nn.Module):
    """Names as in Llama, so that the published package finds its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 16)
        self.self_attn = Attention()
        self.norm = nn.LayerNorm(16, bias=False)
        self.mlp = nn.Linear(16, 16)
        self.lm_head = nn.Linear(16, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        x = x + self.self_attn(self.norm(x))
        out: torch.Tensor = self.lm_head(x + self.mlp(x).tanh())
        return out


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    tokens = torch.arange(11)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        optimizer.step()


def published(model: nn.Module) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import adam_mini

    kind: Any = adam_mini.Adam_mini
    made: torch.optim.Optimizer = kind(
        model.named_parameters(), lr=1e-2, weight_decay=0.1, dim=16, n_heads=4, verbose=False
    )
    return made


def twins() -> tuple[Llama, Llama]:
    torch.manual_seed(0)
    model = Llama()
    return model, copy.deepcopy(model)


def assert_equal(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_published_package_agrees() -> None:
    ours, theirs = twins()
    train(ours, AdamMini.for_model(ours, lr=1e-2, weight_decay=0.1), 50)
    train(theirs, published(theirs), 50)
    assert_equal(ours, theirs, 1e-6)


def test_published_state_goes_in_and_out() -> None:
    ours, theirs = twins()
    their_optimizer = published(theirs)
    train(theirs, their_optimizer, 5)
    ours.load_state_dict(theirs.state_dict())
    optimizer = AdamMini.for_model(ours, lr=1e-2, weight_decay=0.1)
    optimizer.load_state_dict(their_optimizer.state_dict())
    train(ours, optimizer, 5)
    train(theirs, their_optimizer, 5)
    assert_equal(ours, theirs, 1e-6)
    third = copy.deepcopy(ours)
    back = published(third)
    back.load_state_dict(published_state_dict(optimizer))
    train(ours, optimizer, 5)
    train(third, back, 5)
    assert_equal(ours, third, 1e-6)


def test_adamw_state_goes_in_and_out() -> None:
    ours, theirs = twins()
    elements = partition_model(ours, rules=[Rule("*", "element")])
    theirs_optimizer = torch.optim.AdamW(theirs.named_parameters(), lr=1e-2)
    train(theirs, theirs_optimizer, 5)
    ours.load_state_dict(theirs.state_dict())
    named = list(ours.named_parameters())
    optimizer = AdamMini(
        [{"params": named[3:]}, {"params": named[:3]}], lr=1e-2, partition=elements
    )  # other groups: by name
    optimizer.load_state_dict(theirs_optimizer.state_dict())
    train(ours, optimizer, 5)
    train(theirs, theirs_optimizer, 5)
    assert_equal(ours, theirs, 2e-6)
    third = copy.deepcopy(ours)
    named = list(third.named_parameters())
    back = torch.optim.AdamW([{"params": named[3:]}, {"params": named[:3]}], lr=1e-2)
    back.load_state_dict(adamw_state_dict(optimizer))
    train(ours, optimizer, 5)
    train(third, back, 5)
    assert_equal(ours, third, 2e-6)


def test_second_moments_are_spread_over_their_blocks() -> None:
    layer = nn.Linear(3, 4, bias=False)
    optimizer = AdamMini(
        layer.named_parameters(), partition=partition_model(layer, rules=[Rule("*", head(2))])
    )
    layer.weight.grad = torch.tensor([[1.0] * 3, [3.0] * 3, [0.0] * 3, [2.0] * 3])
    optimizer.step()
    spread = adamw_state_dict(optimizer)["state"][0]["exp_avg_sq"]
    torch.testing.assert_close(spread, torch.tensor([[5e-3] * 3] * 2 + [[2e-3] * 3] * 2))
    assert published_state_dict(optimizer)["state"][0]["m"].shape == (2, 6)


def test_states_of_other_models_are_refused() -> None:
    layer = nn.Linear(3, 4)
    optimizer = AdamMini(layer.named_parameters())
    for param in layer.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="the state has 2 parameters, the optimizer 1"):
        AdamMini([layer.weight]).load_state_dict(state)
    other = {"param_groups": [state["param_groups"][0] | {"param_names": ["a", "b"]}]}
    with pytest.raises(ValueError, match="weight: not among the names of the saved state"):
        optimizer.load_state_dict(state | other)
    for key, shape in (
        ("exp_avg", r"\(5, 3\), must be \(4, 3\)"),
        ("exp_avg_sq", r"\(5, 3\), must be \(4, 1\)"),
    ):
        wrong = {"state": {0: state["state"][0] | {key: torch.ones(5, 3)}, 1: state["state"][1]}}
        with pytest.raises(ValueError, match=f"weight: {key} has shape {shape}"):
            optimizer.load_state_dict(state | wrong)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(
        torch.equal(before["state"][k][key], after["state"][k][key])
        for k in (0, 1)
        for key in before["state"][k]
    )
    with pytest.raises(ValueError, match="param_names: absent"):
        published_state_dict(AdamMini(layer.parameters()))
    filters = nn.Conv1d(2, 3, 2, bias=False)
    filters.weight.grad = torch.ones_like(filters.weight)
    convolution = AdamMini(filters.named_parameters())
    convolution.step()
    with pytest.raises(
        ValueError, match=r"weight: blocks of kind 'row' over axes \(0,\) of shape \(3, 2, 2\)"
    ):
        published_state_dict(convolution)
