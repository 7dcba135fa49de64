"""Blocks follow the structure of a model, never the names of its parameters."""

import pytest
import torch
from torch import nn

from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Rule, partition_model


def blocks(model: nn.Module, **options: object) -> dict[str, int]:
    return {name: spec.blocks for name, spec in partition_model(model, **options).specs.items()}  # type: ignore[arg-type]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, kv_heads, head_dim
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, kv_heads * head_dim)
        self.v_proj = nn.Linear(width, kv_heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width)


@pytest.mark.pitfall("K12")
def test_partition_table_of_common_layers() -> None:
    assert blocks(nn.Linear(1080, 216)) == {"weight": 216, "bias": 216}
    assert blocks(nn.Embedding(1000, 16)) == {"weight": 1000}
    assert blocks(nn.Conv2d(3, 8, 3)) == {"weight": 8, "bias": 8}
    assert blocks(nn.ConvTranspose1d(3, 8, 3)) == {"weight": 8, "bias": 8}
    assert blocks(nn.LayerNorm(7)) == {"weight": 1, "bias": 7}
    assert blocks(nn.LayerNorm(7), norm="element") == {"weight": 7, "bias": 7}


@pytest.mark.pitfall("O2")
@pytest.mark.pitfall("C7")
def test_no_matrix_falls_back_to_one_scalar() -> None:
    found = blocks(nn.TransformerEncoderLayer(16, 4, 64))
    assert found["self_attn.in_proj_weight"] == 24
    assert found["self_attn.out_proj.weight"] == 16
    assert (found["linear1.weight"], found["linear2.weight"]) == (64, 16)
    attention = nn.MultiheadAttention(16, 4, bias=False)
    optimizer = AdamMini.for_model(attention)
    attention.in_proj_weight.grad = torch.zeros_like(attention.in_proj_weight)
    attention.in_proj_weight.grad[8:12] = 1.0
    optimizer.step()
    second = optimizer.state[attention.in_proj_weight]["exp_avg_sq"][:, 0]
    torch.testing.assert_close(second[8:12], torch.full((4,), 1e-3))
    assert second.count_nonzero() == 4


@pytest.mark.pitfall("O3")
def test_head_blocks_follow_head_dim() -> None:
    found = blocks(Attention(64, 4, 2, 32))
    assert (found["q_proj.weight"], found["k_proj.weight"], found["v_proj.weight"]) == (4, 2, 64)
    assert blocks(Attention(64, 4, 2, 24))["q_proj.weight"] == 4


@pytest.mark.pitfall("O26")
def test_value_option() -> None:
    assert blocks(Attention(16, 4, 4, 4), value="row")["v_proj.weight"] == 16
    assert blocks(Attention(16, 4, 4, 4), value="tensor")["v_proj.weight"] == 1


@pytest.mark.pitfall("O7")
def test_stacked_experts() -> None:
    experts = nn.Module()
    experts.weight = nn.Parameter(torch.zeros(4, 8, 8))
    partition = partition_model(experts)
    assert partition.specs["weight"].blocks == 32
    assert "not recognised" in partition.specs["weight"].reason


@pytest.mark.pitfall("O1")
def test_awkward_names_and_ranks() -> None:
    model = nn.ModuleDict(
        {
            "network": nn.Sequential(nn.Conv2d(3, 8, 3)),
            "embeddings": nn.ModuleDict({"LayerNorm": nn.LayerNorm(8)}),
            "final_layer_norm": nn.LayerNorm(8),
            "patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 8, 4)}),
        }
    )
    model.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
    model.scale = nn.Parameter(torch.tensor(1.0))
    model.empty = nn.Parameter(torch.zeros(0, 3))
    optimizer = AdamMini.for_model(model)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    for name, param in model.named_parameters():
        assert param.numel() == 0 or not torch.equal(param, before[name]), name


@pytest.mark.pitfall("O5")
def test_transposed_storage_trains_the_same() -> None:
    class Conv1D(nn.Module):  # dense layer stored [in, out], as in GPT-2
        def __init__(self) -> None:
            super().__init__()
            self.nf = 5
            self.weight = nn.Parameter(torch.zeros(3, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    torch.manual_seed(0)
    ours, theirs = Conv1D(), nn.Linear(3, 5, bias=False)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.T)
    x, y = torch.randn(9, 3), torch.randn(9, 5)
    for model in (ours, theirs):
        optimizer = AdamMini.for_model(model, lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight.T, rtol=1e-6, atol=1e-6)


@pytest.mark.pitfall("K16")
def test_rules_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"weight: 10 rows, must be cut into sections .* \(\(10, 4\),\)"):
        partition_model(nn.Linear(3, 10), rules=[Rule("weight", 4)])
    with pytest.raises(ValueError, match="'wieght' matches no parameter"):
        partition_model(nn.Linear(3, 10), rules=[Rule("wieght", "row")])
    assert blocks(nn.Linear(3, 12), rules=[Rule(nn.Linear, 4)])["weight"] == 3


def test_the_table_can_be_read() -> None:
    text = str(partition_model(nn.Linear(4, 2)))
    assert "weight     2x4    row      2       40           dense layer: by output unit" in text
    assert "total: 56 bytes of state in float32; AdamW needs 80" in text
