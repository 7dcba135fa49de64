"""Blocks follow the structure of a model, never the names of its parameters."""

import copy
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import (
    Partition,
    Rule,
    decay_groups,
    head,
    partition_model,
    sections,
    spec_for_shape,
)


def blocks(model: nn.Module, **options: Any) -> dict[str, int]:
    return {name: spec.blocks for name, spec in partition_model(model, **options).specs.items()}


def step_once(model: nn.Module, **options: Any) -> AdamMini:
    """Step with all-one gradients, and check that every element moved."""
    optimizer = AdamMini.for_model(model, **options)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    for name, param in model.named_parameters():
        assert (param != before[name]).all(), name
    return optimizer


class Attention(nn.Module):
    """Separate projections, which state their geometry as asked."""

    def __init__(self, width: int, heads: int, kv_heads: int, size: int, **stated: object) -> None:
        super().__init__()
        for name, value in stated.items():
            setattr(self, name, value)
        self.q_proj = nn.Linear(width, heads * size)
        self.k_proj = nn.Linear(width, kv_heads * size)
        self.v_proj = nn.Linear(width, kv_heads * size)
        self.o_proj = nn.Linear(heads * size, width)


def stating(width: int, heads: int, kv_heads: int, head_dim: int) -> Attention:
    return Attention(
        width, heads, kv_heads, head_dim, num_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim
    )


class Fused(nn.Module):
    """One projection for queries, keys and values under any name, and an output projection."""

    def __init__(self, width: int, rows: int, inner: int, name: str = "qkv", **stated: object) -> None:
        super().__init__()
        for key, value in stated.items():
            setattr(self, key, value)
        self.add_module(name, nn.Linear(width, rows))
        self.add_module("proj", nn.Linear(inner, width))


class Conv1D(nn.Module):
    """A dense layer stored [in, out], as in GPT-2."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.zeros(nx, nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class SeriesConv(nn.Module):
    """A convolution with its own filters for each variable."""

    def __init__(self, variables: int, filters: int, window: int, heads: int | None) -> None:
        super().__init__()
        self.variables, self.heads = variables, heads
        self.weight = nn.Parameter(torch.ones(variables, filters, window))
        self.bias = nn.Parameter(torch.ones(variables, filters))


# ---------------------------------------------------------------- common layers


@pytest.mark.pitfall("K12", "K17")
def test_partition_table_of_common_layers() -> None:
    assert blocks(nn.Linear(1080, 216)) == {"weight": 216, "bias": 216}
    assert partition_model(nn.Linear(1080, 216)).specs["weight"].state_shape == (216, 1)
    assert blocks(nn.Embedding(1000, 16)) == {"weight": 1000}
    assert blocks(nn.EmbeddingBag(11, 3)) == {"weight": 11}
    assert blocks(nn.Bilinear(3, 5, 7)) == {"weight": 7, "bias": 7}
    assert blocks(nn.LSTM(5, 3)) == {
        "weight_ih_l0": 12,
        "weight_hh_l0": 12,
        "bias_ih_l0": 12,
        "bias_hh_l0": 12,
    }
    assert blocks(nn.GRUCell(5, 3)) == {"weight_ih": 9, "weight_hh": 9, "bias_ih": 9, "bias_hh": 9}
    assert blocks(nn.LSTM(5, 3, proj_size=2, bias=False))["weight_hr_l0"] == 2
    assert blocks(nn.PReLU(5)) == {"weight": 1}


@pytest.mark.pitfall("K12")
def test_a_token_that_never_occurs_stays() -> None:
    embedding = nn.Embedding(1000, 16)
    before = embedding.weight.detach().clone()
    optimizer = AdamMini.for_model(embedding, weight_decay=0.0)
    embedding(torch.tensor([3, 5])).square().sum().backward()
    optimizer.step()
    moved = (embedding.weight != before).any(1).nonzero().flatten()
    assert moved.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("layer", "expected", "axes"),
    [
        (nn.Conv2d(3, 8, 5), 8, (0,)),
        (nn.Conv1d(6, 6, 3, groups=6), 6, (0,)),  # depthwise
        (nn.Conv3d(4, 6, 3, groups=2), 6, (0,)),
        (nn.ConvTranspose1d(3, 8, 5), 8, (1,)),
        (nn.ConvTranspose2d(6, 6, 3, groups=6), 6, (0, 1)),  # depthwise
        (nn.ConvTranspose2d(4, 6, 3, groups=2), 12, (0, 1)),  # 4 inputs x 3 outputs of their group
    ],
)
def test_convolutions_are_cut_by_output_channel(
    layer: nn.Module, expected: int, axes: tuple[int, ...]
) -> None:
    spec = partition_model(layer).specs["weight"]
    assert (spec.blocks, spec.row_axes) == (expected, axes)
    # an output channel's gradient reaches only blocks of its own
    channel = 1
    dims = layer.weight.dim() - 2  # type: ignore[union-attr]
    output = layer(torch.randn(2, layer.in_channels, *(7,) * dims))  # type: ignore[arg-type]
    output[:, channel].square().sum().backward()
    hot = spec.mean_square(layer.weight.grad)[..., *(0,) * dims] > 0  # type: ignore[arg-type]
    other = torch.ones(output.shape[1], dtype=torch.bool)
    other[channel] = False
    layer.weight.grad = None
    layer(torch.randn(2, layer.in_channels, *(7,) * dims))[:, other].square().sum().backward()  # type: ignore[arg-type]
    cold = spec.mean_square(layer.weight.grad)[..., *(0,) * dims] > 0  # type: ignore[arg-type]
    assert hot.any()
    assert not (hot & cold).any()
    assert (hot | cold).all()


def test_norms_are_known_by_their_kind() -> None:
    class LlamaRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(7)), 1e-6

    for layer in (nn.LayerNorm(7), nn.RMSNorm(7), nn.GroupNorm(7, 7), nn.BatchNorm2d(7), LlamaRMSNorm()):
        spec = partition_model(layer).specs["weight"]
        assert (spec.kind, spec.blocks) == ("tensor", 1)
        assert spec.reason == f"gain of {type(layer).__name__}: one block"
        by_element = partition_model(layer, norm="element").specs["weight"]
        assert (by_element.kind, by_element.blocks) == ("element", 7)
        assert blocks(layer).get("bias", 7) == 7

    class PerHeadNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(5, 6)), 1e-6

    assert blocks(PerHeadNorm()) == {"weight": 1}
    assert blocks(PerHeadNorm(), norm="element") == {"weight": 30}
    assert blocks(nn.LayerNorm((3, 5))) == {"weight": 1, "bias": 15}
    assert blocks(nn.LayerNorm((3, 5)), norm="element") == {"weight": 15, "bias": 15}


@pytest.mark.pitfall("C4", "C20")
def test_no_block_spans_two_variables() -> None:
    layer = SeriesConv(3, 4, 5, heads=2)
    assert blocks(layer) == {"weight": 6, "bias": 12}
    assert blocks(SeriesConv(3, 4, 5, heads=None)) == {"weight": 12, "bias": 12}
    assert partition_model(SeriesConv(3, 6, 5, heads=2)).specs["weight"].sections == ((18, 3),)
    optimizer = AdamMini.for_model(layer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    layer.weight.grad[1] = torch.arange(1.0, 21.0).reshape(4, 5)
    optimizer.step()
    second = optimizer.state[layer.weight]["exp_avg_sq"][:, :, 0]
    first, last = 38.5, 248.5  # means of 1..10 and 11..20, squared
    expected = torch.tensor([[0.0] * 4, [first, first, last, last], [0.0] * 4]) * 1e-3
    torch.testing.assert_close(second, expected)
    with pytest.raises(ValueError, match="4 filters, which 3 heads do not divide"):
        partition_model(SeriesConv(3, 4, 5, heads=3))


# ---------------------------------------------------------------- attention


@pytest.mark.pitfall("O2")
def test_no_matrix_falls_back_to_one_scalar() -> None:
    found = blocks(nn.TransformerEncoderLayer(16, 4, 64))
    assert found["self_attn.in_proj_weight"] == 24
    assert found["self_attn.out_proj.weight"] == 16
    assert (found["linear1.weight"], found["linear2.weight"]) == (64, 16)


@pytest.mark.pitfall("C7", "C8", "C9")
def test_fused_qkv_is_cut_by_head() -> None:
    attention = nn.MultiheadAttention(16, 4, bias=False)
    assert blocks(attention) == {"in_proj_weight": 24, "out_proj.weight": 16}
    optimizer = AdamMini.for_model(attention)
    attention.in_proj_weight.grad = torch.zeros_like(attention.in_proj_weight)
    attention.in_proj_weight.grad[8:12] = 1.0
    optimizer.step()
    second = optimizer.state[attention.in_proj_weight]["exp_avg_sq"][:, 0]
    torch.testing.assert_close(second[8:12], torch.full((4,), 1e-3))
    assert second.count_nonzero() == 4
    query = partition_model(stating(24, 8, 8, 32)).specs["q_proj.weight"]
    assert (query.blocks, query.sections) == (8, ((256, 32),))


def test_separate_weights_of_torch_attention() -> None:
    attention = nn.MultiheadAttention(12, 3, kdim=5, vdim=7)
    found = blocks(attention)
    assert [found[f"{role}_proj_weight"] for role in "qkv"] == [3, 3, 12]
    assert found["in_proj_bias"] == 36
    assert blocks(attention, value="tensor")["v_proj_weight"] == 1


@pytest.mark.pitfall("K16", "C19", "C9")
def test_errors_name_parameter_shape_and_way_out() -> None:
    attention = Attention(7, 5, 5, 2, head_dim=4)
    with pytest.raises(
        ValueError, match=r"q_proj\.weight: 10 output units.*Attention states heads of 4"
    ) as caught:
        partition_model(attention)
    assert "head(head_dim=...)" in str(caught.value)
    repaired = partition_model(attention, rules=[Rule("[qk]_proj.weight", head(head_dim=2))])
    assert repaired.specs["q_proj.weight"].blocks == 5
    with pytest.raises(
        ValueError, match=r"rule 'q_proj.weight': q_proj\.weight: shape \(10, 7\) has 10 rows.* of 4"
    ):
        partition_model(Attention(7, 5, 5, 2), rules=[Rule("q_proj.weight", head(head_dim=4))])


@pytest.mark.pitfall("O3")
def test_head_blocks_follow_head_dim() -> None:
    found = blocks(stating(64, 4, 2, 32))
    assert (found["q_proj.weight"], found["k_proj.weight"], found["v_proj.weight"]) == (4, 2, 64)
    assert partition_model(stating(64, 4, 4, 24)).specs["q_proj.weight"].sections == ((96, 24),)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"num_heads": 4}, (4, 2)),  # the key heads follow from the queries' head size
        ({"head_dim": 6}, (4, 2)),
        ({"n_head": 4, "n_head_kv": 2}, (4, 2)),
        ({"num_attention_heads": 4, "attention_head_size": 6}, (4, 2)),
        ({"num_heads": 4, "qk_head_dim": 6, "head_dim": 3}, (4, 2)),  # head_dim: the rotary part alone
        ({"num_heads": 5}, (24, 12)),  # does not divide: by output unit, and the table says so
        ({}, (24, 12)),
        ({"num_heads": True, "head_dim": "6"}, (24, 12)),
    ],
)  # fmt: skip
def test_heads_follow_from_what_is_stated(stated: dict[str, Any], expected: tuple[int, int]) -> None:
    partition = partition_model(Attention(7, 4, 2, 6, **stated))
    found = partition.specs["q_proj.weight"], partition.specs["k_proj.weight"]
    assert (found[0].blocks, found[1].blocks) == expected
    if expected[0] == 24:
        assert "nothing says the head size" in found[0].reason or "do not divide" in found[0].reason
        assert "a rule with head(...)" in found[0].reason
    assert partition.specs["v_proj.weight"].blocks == 12


@pytest.mark.parametrize(
    "names", [("q", "k", "v"), ("query", "key", "value"), ("wq", "wk", "wv"), ("to_q", "to_k", "to_v"), ("W_Q", "W_K", "W_V"), ("q_lin", "k_lin", "v_lin"), ("linQuery", "linKey", "linValue")]
)  # fmt: skip
def test_common_names_of_projections(names: tuple[str, str, str]) -> None:
    model = nn.Module()
    model.num_heads = 3  # type: ignore[assignment]
    for name in names:
        model.add_module(name, nn.Linear(5, 12))
    model.add_module("network_out", nn.Linear(12, 5))  # no "wo"
    assert blocks(model, value="tensor") == {
        f"{names[0]}.weight": 3,
        f"{names[1]}.weight": 3,
        f"{names[2]}.weight": 1,
        "network_out.weight": 5,
        **{f"{name}.bias": 12 for name in names},
        "network_out.bias": 5,
    }


@pytest.mark.parametrize("name", ["network", "wonder", "qa_head", "keyboard", "query_norm", "value_head", "requery", "monkey"])  # fmt: skip
def test_names_that_only_resemble_a_projection(name: str) -> None:
    model = stating(7, 4, 2, 6)
    model.add_module(name, nn.Linear(5, 12))
    assert blocks(model, value="tensor")[f"{name}.weight"] == 12


@pytest.mark.pitfall("O4")
def test_interleaved_qkv() -> None:
    model = Fused(64, 192, 64, "query_key_value", num_attention_heads=4, head_size=16)
    spec = partition_model(model).specs["query_key_value.weight"]
    assert spec.blocks == 72
    assert spec.sections == ((32, 16), (16, 1)) * 4
    in_sections = partition_model(Fused(64, 192, 64, num_heads=4)).specs["qkv.weight"]
    assert in_sections.blocks == 72
    assert in_sections.sections == ((128, 16), (64, 1))


def test_fused_layouts_with_grouped_heads() -> None:
    # 6 query heads, 2 key heads, size 5: rows 30 + 10 + 10
    for stated in ({"num_heads": 6, "num_key_value_heads": 2}, {"num_key_value_heads": 2, "head_dim": 5}, {"num_heads": 6, "head_dim": 5}):  # fmt: skip
        spec = partition_model(Fused(7, 50, 30, "qkv_proj", **stated)).specs["qkv_proj.weight"]
        assert spec.sections == ((40, 5), (10, 1)), stated
    grouped = partition_model(Fused(7, 50, 30, "query_key_value", num_heads=6, num_kv_heads=2))
    assert grouped.specs["query_key_value.weight"].sections == ((20, 5), (5, 1)) * 2
    multi_query = partition_model(Fused(7, 40, 30, "query_key_value", num_heads=6, num_kv_heads=1))
    assert multi_query.specs["query_key_value.weight"].sections == ((35, 5), (5, 1))
    megatron = Fused(
        7, 50, 30, "linear_qkv", num_attention_heads_per_partition=6, num_query_groups_per_partition=2
    )
    assert partition_model(megatron).specs["linear_qkv.weight"].sections == ((20, 5), (5, 1)) * 2
    glm = {"num_attention_heads_per_partition": 6, "num_multi_query_groups_per_partition": 2, "multi_query_attention": True}  # fmt: skip
    chat_glm = partition_model(Fused(7, 50, 30, "query_key_value", **glm))
    assert chat_glm.specs["query_key_value.weight"].sections == ((40, 5), (10, 1))
    cross = Fused(7, 60, 30, "to_kv", heads=6)
    cross.add_module("to_q", nn.Linear(7, 30))
    assert blocks(cross)["to_kv.weight"] == 6 + 30
    assert blocks(cross)["to_q.weight"] == 6
    for stated in ({}, {"num_key_value_heads": 4, "head_dim": 5}, {"num_heads": 4, "head_dim": 50}, {"num_heads": 7}):  # fmt: skip
        unknown = partition_model(Fused(7, 50, 30, **stated)).specs["qkv.weight"]
        assert unknown.blocks == 50
        assert "nothing says the heads" in unknown.reason
    configured = nn.ModuleDict({"attention": Fused(7, 50, 30)})
    configured.config = {"num_attention_heads": 6, "num_key_value_heads": 2}  # type: ignore[assignment]
    assert partition_model(configured).specs["attention.qkv.weight"].sections == ((40, 5), (10, 1))
    shared = Fused(7, 16, 64, "kv_proj", num_heads=4, head_dim=16)  # one tensor is both keys and values
    assert blocks(shared)["kv_proj.weight"] == 16


def test_low_rank_projections_are_cut_by_row() -> None:
    model = nn.Module()
    model.num_heads = 3  # type: ignore[assignment]
    for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "k_up_proj", "q_down_proj"):
        model.add_module(name, nn.Linear(7, 12))
    for name, spec in partition_model(model).specs.items():
        assert spec.blocks == 12
        if name.endswith("weight"):
            assert spec.reason == "low-rank projection of attention: by output unit"


@pytest.mark.pitfall("O4")
@pytest.mark.parametrize("value", ["row", "tensor"])
def test_a_fused_projection_has_the_moments_of_separate_ones(value: str) -> None:
    """6 query heads and 2 key heads of 5, width 7, in both orders: the same second moments, moved with the rows."""
    apart = stating(7, 6, 2, 5)
    grads = {
        role: torch.randn(rows, 7, dtype=torch.float64) for role, rows in (("q", 30), ("k", 10), ("v", 10))
    }
    specs = partition_model(apart, value=value).specs  # type: ignore[arg-type]
    moments = {r: specs[f"{r}_proj.weight"].mean_square(g).expand(len(g), 1) for r, g in grads.items()}

    def grouped(parts: dict[str, Tensor]) -> Tensor:  # each key head with its queries
        return torch.cat([torch.cat([part.chunk(2)[g] for part in parts.values()]) for g in range(2)])

    for name, join in (("qkv", lambda parts: torch.cat(list(parts.values()))), ("query_key_value", grouped)):
        model = Fused(7, 50, 30, name, num_heads=6, num_key_value_heads=2)
        spec = partition_model(model, value=value).specs[f"{name}.weight"]  # type: ignore[arg-type]
        expected = join(moments)
        if value == "tensor" and name == "query_key_value":  # the values of a group are its own block
            expected = join(
                moments | {"v": torch.cat([g.square().mean().expand(5, 1) for g in grads["v"].chunk(2)])}
            )
        torch.testing.assert_close(spec.mean_square(join(grads)), expected)


@pytest.mark.pitfall("O26")
def test_value_option() -> None:
    assert blocks(stating(16, 4, 4, 4), value="row")["v_proj.weight"] == 16
    assert blocks(stating(16, 4, 4, 4), value="tensor")["v_proj.weight"] == 1
    assert blocks(nn.MultiheadAttention(16, 4), value="tensor")["in_proj_weight"] == 9
    assert blocks(Fused(64, 192, 64, num_heads=4), value="tensor")["qkv.weight"] == 9
    interleaved = Fused(64, 192, 64, "query_key_value", num_heads=4)
    assert blocks(interleaved, value="tensor")["query_key_value.weight"] == 12


@pytest.mark.pitfall("O25")
def test_nested_and_missing_configs() -> None:
    geometry = {"hidden_size": 7, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    other = {"hidden_size": 9, "num_attention_heads": 3}
    tables = []
    for config in (
        None,
        SimpleNamespace(**geometry),
        SimpleNamespace(vision_config=SimpleNamespace(**other), text_config=SimpleNamespace(**geometry)),
        {"text_config": geometry, "vision_config": other},
    ):
        attention = stating(7, 4, 2, 6) if config is None else Attention(7, 4, 2, 6)
        model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"mixer": attention})])})
        if config is not None:
            model.config = config  # type: ignore[assignment]
        tables.append(str(partition_model(model)))
    assert len(set(tables)) == 1
    assert "by head of 6" in tables[0]


@pytest.mark.pitfall("O3")
def test_every_option_changes_something() -> None:
    base = {"heads": 4, "kv_heads": 2, "head_dim": 6}
    plain = blocks(stating(7, **base))
    for change in ({"heads": 8}, {"kv_heads": 4}, {"head_dim": 5}):
        assert blocks(stating(7, **(base | change))) != plain
    for option in ({"value": "tensor"}, {"norm": "element"}, {"rules": [Rule("*", "tensor")]}):
        model = nn.Sequential(stating(7, **base), nn.LayerNorm(7))
        assert blocks(model, **option) != blocks(model)
    for option, found in (("value", "head"), ("norm", "row")):
        with pytest.raises(ValueError, match=f"{option}: '{found}', must be one of"):
            partition_model(nn.Linear(2, 2), **{option: found})  # type: ignore[arg-type]


# ---------------------------------------------------------------- names


def renamed(module: nn.Module, names: list[str]) -> nn.Module:
    """Return a model of the same layers where every container gives its children meaningless names."""
    if not isinstance(module, nn.ModuleDict):
        return module
    return nn.ModuleDict({names.pop(): renamed(child, names) for child in module.values()})


@pytest.mark.pitfall("O1")
def test_partition_does_not_depend_on_names() -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(11, 6),
            "layers": nn.ModuleDict(
                {
                    "attn": nn.MultiheadAttention(6, 2),
                    "vit": nn.ModuleDict({"attn": Fused(6, 18, 6, num_heads=2)}),
                    "norm": nn.LayerNorm(6),
                    "mlp": nn.ModuleDict({"wo": nn.Linear(6, 10), "wi": Conv1D(6, 10)}),
                    "conv": nn.Conv1d(6, 4, 3),
                }
            ),
            "lstm": nn.LSTM(6, 5),
            "lm_head": nn.Linear(6, 11, bias=False),
        }
    )
    table = [(s.shape, s.row_axes, s.sections, s.reason) for s in partition_model(model).specs.values()]
    awkward = ["wo", "embed", "ln", "norm_bias", "query_free", "in_proj", "qkvless", "final_layer", "head"]
    for names in (awkward * 2, [f"m{k}" for k in range(20)]):
        shuffled = partition_model(renamed(model, [f"{name}{k}" for k, name in enumerate(names)]))
        assert [(s.shape, s.row_axes, s.sections, s.reason) for s in shuffled.specs.values()] == table


def test_a_fused_projection_is_known_by_its_shape() -> None:
    plain = partition_model(Fused(6, 18, 6, "qkv", num_heads=2)).specs["qkv.weight"]
    nameless = partition_model(Fused(6, 18, 6, "alpha", num_heads=2)).specs["alpha.weight"]
    assert nameless.sections == plain.sections == ((12, 3), (6, 1))
    feed_forward = Fused(6, 18, 18, "alpha", num_heads=2)  # takes what alpha makes: no attention output
    assert blocks(feed_forward)["alpha.weight"] == 18


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
    model.hollow = nn.Parameter(torch.zeros(3, 0))
    found = blocks(model)
    assert found["network.0.weight"] == 8
    assert found["embeddings.LayerNorm.weight"] == found["final_layer_norm.weight"] == 1
    assert found["patch_embed.proj.weight"] == 8
    assert (found["pos_embed"], found["scale"], found["empty"], found["hollow"]) == (5, 1, 0, 3)
    step_once(model)


def test_position_tables_and_tokens_are_cut_along_their_width() -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 2)})
    model.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    model.position = nn.Parameter(torch.zeros(6, 8))
    model.skip = nn.Parameter(torch.zeros(3, 4, 5))
    model.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    found = blocks(model)
    assert (found["cls_token"], found["position"], found["skip"]) == (1, 6, 12)
    assert found["relative_position_bias_table"] == 9
    assert not any("not recognised" in spec.reason for spec in partition_model(model).specs.values())
    model.text_projection = nn.Parameter(
        torch.zeros(6, 8)
    )  # a weight, and nothing says which way it is stored
    assert "not recognised" in partition_model(model).specs["text_projection"].reason


# ---------------------------------------------------------------- storage, experts, adapters, ties


@pytest.mark.pitfall("O5")
def test_transposed_storage_trains_the_same() -> None:
    torch.manual_seed(0)
    ours, theirs = Conv1D(5, 3), nn.Linear(3, 5, bias=False)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.T)
    assert partition_model(ours).specs["weight"].row_axes == (1,)
    x, y = torch.randn(9, 3), torch.randn(9, 5)
    for model in (ours, theirs):
        optimizer = AdamMini.for_model(model, lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight.T, rtol=1e-6, atol=1e-6)
    assert partition_model(Conv1D(4, 4)).specs["weight"].row_axes == (1,)  # square: its kind decides


def test_transposed_attention_is_cut_along_its_outputs() -> None:
    model = nn.Module()
    model.num_heads = 3  # type: ignore[assignment]
    model.c_attn, model.c_proj = Conv1D(36, 12), Conv1D(12, 12)
    spec = partition_model(model).specs["c_attn.weight"]
    assert (spec.row_axes, spec.sections, spec.blocks) == ((1,), ((24, 4), (12, 1)), 18)


class EinsumAttention(nn.Module):
    """Projections with an axis for heads, in the order that is asked for: w(idth), h(eads), d (size of a head)."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.num_kv_heads, self.head_dim = 10, 6, 3, 4
        sizes = {"w": 10, "h": 6, "d": 4}
        grouped = sizes | {"h": 3}
        self.wq, self.wo = (nn.Parameter(torch.randn([sizes[axis] for axis in order])) for _ in range(2))
        self.wk, self.wv = (nn.Parameter(torch.randn([grouped[axis] for axis in order])) for _ in range(2))


@pytest.mark.pitfall("O3", "O5")
@pytest.mark.parametrize("order", ["whd", "hwd", "hdw"])
def test_attention_tensors_with_an_axis_for_heads(order: str) -> None:
    model = EinsumAttention(order)
    partition = partition_model(model)
    axes = tuple(k for k in range(3) if order[k] != "w")
    found = {name: (spec.row_axes, spec.blocks) for name, spec in partition.specs.items()}
    assert found == {"wq": (axes, 6), "wo": ((order.index("w"),), 10), "wk": (axes, 3), "wv": (axes, 12)}
    assert partition_model(model, value="tensor").specs["wv"].kind == "tensor"
    gradient = torch.zeros_like(model.wq)
    gradient.select(order.index("h"), 4).fill_(1.0)
    means = partition.specs["wq"].mean_square(gradient)
    assert means.sum() == means.select(order.index("h"), 4).sum() == 4  # every row of head 4, and no other
    step_once(model)


def test_queries_and_keys_in_one_are_cut_by_head() -> None:
    reformer = nn.Module()
    reformer.num_attention_heads, reformer.attention_head_size = 3, 7
    reformer.query_key, reformer.value = nn.Linear(28, 21), nn.Linear(28, 21)
    assert blocks(reformer)["query_key.weight"] == 3
    reformer.query_key = nn.Linear(28, 42)  # one after the other
    assert partition_model(reformer).specs["query_key.weight"].sections == ((42, 7),)


def test_learned_queries_are_no_projection() -> None:
    model = nn.Module()
    model.num_heads, model.head_dim, model.dim = 6, 4, 10
    model.query = nn.Parameter(torch.randn(3, 6, 4))  # three queries for each head
    assert partition_model(model).specs["query"].row_axes == (0, 1)


@pytest.mark.parametrize("kept", [None, 64])  # the queries are a parameter, or a layer of another name
def test_key_heads_are_counted_where_no_layer_makes_queries(kept: int | None) -> None:
    """Four query heads share two key heads of 8: 16 rows of keys are two blocks, not four."""
    model = Attention(10, 4, 2, 8, num_heads=4, num_key_value_heads=2)
    del model.q_proj
    if kept:
        model.latents = nn.Linear(10, kept)
    assert partition_model(model).specs["k_proj.weight"].sections == ((16, 8),)
    model = Attention(10, 3, 3, 8, num_heads=3)  # as many of both
    del model.q_proj
    assert partition_model(model).specs["k_proj.weight"].sections == ((24, 8),)


def test_heads_of_another_part_of_the_model_are_not_taken() -> None:
    vision = nn.Module()
    vision.qkv, vision.proj = nn.Linear(12, 36), nn.Linear(12, 12)
    model = nn.ModuleDict({"vision": vision})
    model.config = SimpleNamespace(text=SimpleNamespace(num_attention_heads=6, hidden_size=24))
    assert "nothing says" in partition_model(model).specs["vision.qkv.weight"].reason
    model.config.vision = SimpleNamespace(num_attention_heads=3, hidden_size=12)
    assert partition_model(model).specs["vision.qkv.weight"].sections == ((24, 4), (12, 1))


def test_interleaved_weights_known_by_their_class() -> None:
    """InternLM2 names its fused weight as those do that store it in sections."""

    class InternLM2Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.num_key_value_heads, self.head_dim = 6, 2, 4
            self.wqkv, self.wo = nn.Linear(24, 40), nn.Linear(24, 24)

    class InternLM2FlashAttention2(InternLM2Attention):
        pass

    for kind in (InternLM2Attention, InternLM2FlashAttention2):
        assert partition_model(kind()).specs["wqkv.weight"].sections == ((16, 4), (4, 1)) * 2


def test_cross_attention_fuses_keys_and_values_alone() -> None:
    model = nn.Module()
    model.num_heads = 3  # type: ignore[assignment]
    model.q_attn, model.c_attn, model.c_proj = Conv1D(12, 12), Conv1D(24, 12), Conv1D(12, 12)
    found = partition_model(model).specs
    assert found["q_attn.weight"].sections == ((12, 4),)
    assert found["c_attn.weight"].sections == ((12, 4), (12, 1))


class Experts(nn.Module):
    """Stacked experts with a gated first layer, in either order of storage."""

    def __init__(self, experts: int, width: int, hidden: int, *, transposed: bool, **stated: object) -> None:
        super().__init__()
        for name, value in stated.items():
            setattr(self, name, value)
        up, down = (width, 2 * hidden), (hidden, width)
        order = (lambda s: s) if transposed else (lambda s: s[::-1])
        self.first = nn.Parameter(torch.zeros(experts, *order(up)))
        self.last = nn.Parameter(torch.zeros(experts, *order(down)))
        self.first_bias = nn.Parameter(torch.zeros(experts, 2 * hidden))


@pytest.mark.pitfall("O5", "O7")
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("stated", ["sizes", "mark", "nothing"])
def test_stacked_experts_in_both_storage_orders(transposed: bool, stated: str) -> None:
    says: dict[str, object] = {
        "sizes": {"num_experts": 3, "hidden_size": 5}, "mark": {"is_transposed": transposed}, "nothing": {},
    }[stated]  # type: ignore[assignment]  # fmt: skip
    partition = partition_model(Experts(3, 5, 7, transposed=transposed, **says))
    first, last = partition.specs["first"], partition.specs["last"]
    assert (first.blocks, last.blocks) == (3 * 14, 3 * 5)
    assert first.row_axes == last.row_axes == ((0, 2) if transposed else (0, 1))
    assert partition.specs["first_bias"].kind == "element"
    assert "not recognised" not in str(partition)


@pytest.mark.pitfall("O5", "O7")
def test_square_experts_go_by_their_mark() -> None:
    for transposed, axes in ((True, (0, 2)), (False, (0, 1))):
        experts = nn.Module()
        experts.is_transposed = transposed  # type: ignore[assignment]
        experts.up, experts.down = (nn.Parameter(torch.zeros(3, 5, 5)) for _ in range(2))
        assert {spec.row_axes for spec in partition_model(experts).specs.values()} == {axes}


@pytest.mark.pitfall("O7")
def test_stacked_experts() -> None:
    experts = nn.Module()
    experts.weight = nn.Parameter(torch.zeros(4, 8, 8))
    partition = partition_model(experts)
    assert partition.specs["weight"].blocks == 32
    assert "not recognised" in partition.specs["weight"].reason
    assert str(partition).endswith("1 not recognised: check them, or give them a Rule")
    step_once(experts)


def test_routers_and_other_layers_that_state_their_sizes() -> None:
    def layer(shape: tuple[int, ...], **stated: int) -> BlockSpec:
        module = nn.Module()
        for name, value in stated.items():
            setattr(module, name, value)
        module.kernel = nn.Parameter(torch.zeros(shape))
        return partition_model(module).specs["kernel"]

    assert layer((3, 7), num_experts=3, hidden_dim=7).row_axes == (0,)
    assert layer((7, 3), in_features=7, out_features=3).row_axes == (1,)
    assert layer((3, 7), in_channels=7, out_channels=3).row_axes == (0,)
    assert layer((5, 5), in_features=5, out_features=5).row_axes == (0,)
    for one_size in ({"num_experts": 3}, {"in_features": 7}):  # only one axis has the size that is stated
        assert layer((3, 7), **one_size).row_axes == (0,)
        assert layer((7, 3), **one_size).row_axes == (1,)
    assert layer((2, 7, 3), num_experts=2, input_size=7, output_size=3).row_axes == (0, 2)
    assert layer((4, 3, 2, 2), kernel_size=2).row_axes == (0,)
    assert "not recognised" in layer((3, 7)).reason
    assert "not recognised" in layer((2, 7, 7), num_experts=2).reason


class LoraLinear(nn.Module):
    """An adapted layer, in the form of peft."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})


@pytest.mark.pitfall("O6")
@pytest.mark.parametrize("rank", [4, 8, 16])
def test_lora_factors(rank: int) -> None:
    model = stating(64, 4, 2, 8)
    model.requires_grad_(False)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        setattr(model, name, LoraLinear(getattr(model, name), rank))
    found = blocks(model)
    for name, rows in (("q_proj", 4), ("k_proj", 2), ("v_proj", 16), ("o_proj", 64)):
        assert found[f"{name}.lora_A.default.weight"] == rank
        assert found[f"{name}.lora_B.default.weight"] == rows
        assert found[f"{name}.base_layer.weight"] == rows
    partition = partition_model(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert partition.adamw_bytes() == 8 * trained
    assert partition.state_bytes() < partition.adamw_bytes()
    assert "frozen" in str(partition)
    optimizer = AdamMini.for_model(model)
    for param in model.parameters():
        param.grad = torch.ones_like(param) if param.requires_grad else None
    optimizer.step()
    assert optimizer.state_bytes() == partition.state_bytes()


@pytest.mark.pitfall("O6")
def test_lora_factors_in_other_forms() -> None:
    class Raw(nn.Module):  # the factors are parameters beside the layer
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.linear = base
            self.lora_A = nn.Parameter(torch.zeros(3, base.in_features))
            self.lora_B = nn.Parameter(torch.zeros(base.out_features, 3))

    class Lower(nn.Module):  # the layer's own weight, and factors in lower case
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.in_dim, self.out_dim = base.in_features, base.out_features
            self.weight = nn.Parameter(torch.zeros(self.out_dim, self.in_dim))
            self.lora_a, self.lora_b = nn.Linear(self.in_dim, 3), nn.Linear(3, self.out_dim)

    model = stating(7, 4, 2, 6)
    model.q_proj, model.k_proj = Raw(model.q_proj), Lower(model.k_proj)  # type: ignore[assignment]
    found = blocks(model)
    assert (found["q_proj.lora_A"], found["q_proj.lora_B"], found["q_proj.linear.weight"]) == (3, 4, 4)
    assert (found["k_proj.lora_a.weight"], found["k_proj.lora_b.weight"], found["k_proj.weight"]) == (3, 2, 2)


def test_packed_weights_are_no_projection() -> None:
    model = stating(7, 4, 2, 6)
    model.q_proj.weight = nn.Parameter(torch.zeros(83, 1, dtype=torch.uint8), requires_grad=False)
    assert blocks(model)["q_proj.weight"] == 83


def test_lora_of_a_fused_projection_is_cut_like_it() -> None:
    model = Fused(8, 24, 8, num_heads=2)
    model.qkv = LoraLinear(model.qkv, 3)
    found = partition_model(model).specs
    assert found["qkv.lora_B.default.weight"].sections == found["qkv.base_layer.weight"].sections
    assert found["qkv.lora_B.default.weight"].blocks == 2 + 2 + 8

    nameless = Fused(8, 24, 8, "alpha", num_heads=2)
    nameless.proj = LoraLinear(nameless.proj, 3)
    assert blocks(nameless)["alpha.weight"] == 2 + 2 + 8


def test_heads_follow_from_a_norm_over_each_head() -> None:
    model = Attention(7, 4, 2, 6)
    model.q_norm, model.k_norm = nn.RMSNorm(6), nn.RMSNorm(6)
    assert (blocks(model)["q_proj.weight"], blocks(model)["k_proj.weight"]) == (4, 2)
    model.q_norm, model.k_norm = nn.RMSNorm(24), nn.RMSNorm(12)  # over all heads: says nothing
    assert (blocks(model)["q_proj.weight"], blocks(model)["k_proj.weight"]) == (24, 12)


def test_linear_attention_has_head_sizes_of_its_own() -> None:
    model = Fused(
        7, 2 * 3 * 5 + 4 * 2, 8, "in_proj_qkv", num_k_heads=3, head_k_dim=5, num_v_heads=4, head_v_dim=2
    )
    assert partition_model(model).specs["in_proj_qkv.weight"].sections == ((30, 5), (8, 1))


def test_empty_projections_have_blocks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch notes that there is nothing to initialise
        models = [Fused(3, 0, 4, num_heads=2), stating(3, 0, 0, 4), Fused(3, 0, 0, "alpha", num_heads=2)]
    for model in models:
        assert all(count >= 0 for count in blocks(model).values())


@pytest.mark.pitfall("O8")
def test_tied_weights_are_one_entry() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "body": nn.Linear(3, 3), "head": nn.Linear(3, 5)})
    model.head.weight = model.embedding.weight
    found = partition_model(model)
    assert list(found.specs) == ["embedding.weight", "body.weight", "body.bias", "head.bias"]
    assert found.adamw_bytes() == 8 * (15 + 9 + 3 + 5)
    assert found.specs["embedding.weight"].reason == "embedding: by token; tied to head.weight"
    by_second_name = partition_model(model, rules=[Rule("head.weight", "tensor")])
    assert by_second_name.specs["embedding.weight"].blocks == 1
    twice = nn.Module()
    twice.first = twice.second = nn.Parameter(torch.zeros(3, 2))
    assert blocks(twice, rules=[Rule("second", "tensor")]) == {"first": 1}


def test_parametrized_weights_belong_to_their_layer() -> None:
    model = stating(10, 2, 2, 3)
    parametrizations.weight_norm(model.q_proj)
    parametrizations.orthogonal(model.o_proj)
    found = blocks(model)
    assert found["q_proj.parametrizations.weight.original0"] == 2
    assert found["q_proj.parametrizations.weight.original1"] == 2
    assert found["o_proj.parametrizations.weight.original"] == 10


def test_wrappers_keep_roles() -> None:
    model = stating(10, 2, 2, 3)
    model.q_proj = nn.Sequential(model.q_proj, nn.Dropout())
    assert blocks(nn.Sequential(model))["0.q_proj.0.weight"] == 2


# ---------------------------------------------------------------- rules


@pytest.mark.pitfall("K16", "C19")
def test_rules_that_do_not_fit_are_named() -> None:
    for rule, message in [
        (Rule("weight", head(4)), r"rule 'weight': weight: shape \(10, 3\) has 10 rows, .* 10 rows in blocks of 4"),
        (Rule(nn.Linear, sections((4, 2), (4, 1))), r"rule 'Linear': weight: shape \(10, 3\) has 10 rows"),
        (Rule("wieght", "row"), "rule 'wieght' matches no parameter. Names look like: weight, bias."),
        (Rule(nn.Conv2d, "row"), "rule 'Conv2d' matches no parameter"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            partition_model(nn.Linear(3, 10), rules=[rule])
    with pytest.raises(ValueError, match="head_dim: 0, must be a whole number"):
        head(0)
    with pytest.raises(ValueError, match="sections: 10 rows cannot be cut into blocks of 4"):
        sections((10, 4))
    with pytest.raises(ValueError, match="sections: no run of rows"):
        sections()
    with pytest.raises(TypeError, match="blocks: 'heads', must be 'element', 'row', 'tensor', head"):
        Rule("*", "heads")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="match: 5, must be a pattern on names or a module type"):
        Rule(5, "row")  # type: ignore[arg-type]


def test_rules_decide_first_match_wins() -> None:
    model = nn.Sequential(nn.Linear(3, 12), nn.Linear(12, 4), nn.LayerNorm(4))
    rules = [Rule("0.*", head(4)), Rule(nn.Linear, "tensor"), Rule(nn.LayerNorm, "element")]
    found = blocks(model, rules=rules)
    # the name covers the bias, too; the type covers weights only
    assert found == {"0.weight": 3, "0.bias": 3, "1.weight": 1, "1.bias": 4, "2.weight": 4, "2.bias": 4}
    assert partition_model(model, rules=rules).specs["1.weight"].reason == "rule 'Linear'"
    assert blocks(nn.Linear(3, 12), rules=[Rule("*", "element")]) == {"weight": 36, "bias": 12}
    assert blocks(nn.Linear(3, 12), rules=[Rule("*", "row")]) == {"weight": 12, "bias": 12}
    assert blocks(Conv1D(12, 3), rules=[Rule(Conv1D, head(4))]) == {"weight": 3}  # along its outputs
    assert partition_model(Conv1D(12, 3), rules=[Rule("*", head(4))]).specs["weight"].row_axes == (1,)
    fused = partition_model(nn.Linear(5, 24), rules=[Rule("weight", sections((8, 4), (8, 4), (8, 1)))])
    assert fused.specs["weight"].blocks == 2 + 2 + 8
    assert (
        blocks(stating(6, 2, 2, 3), rules=[Rule("v_proj.weight", "row")], value="tensor")["v_proj.weight"]
        == 6
    )
    by_expert = [Rule("first_bias", "row")]
    assert blocks(Experts(3, 5, 7, transposed=False), rules=by_expert)["first_bias"] == 3
    scalar = nn.ParameterDict({"scale": torch.tensor(1.0)})
    for wanted in ("element", "row", "tensor"):
        assert blocks(scalar, rules=[Rule("scale", wanted)]) == {"scale": 1}  # type: ignore[arg-type]


# ---------------------------------------------------------------- the table and its bytes


def test_the_table_can_be_read() -> None:
    lines = str(partition_model(nn.Linear(4, 2))).splitlines()
    assert lines == [
        "parameter  shape  kind     blocks  state bytes  reason",
        "weight     2x4    row           2           40  dense layer: by output unit",
        "bias       2      element       2           16  bias: by element, as AdamW",
        "total: 2 parameters; 10 numbers in 4 blocks",
        "total: 56 bytes of state in float32; AdamW needs 80, 70.00 %",
    ]


def test_state_bytes_by_precision() -> None:
    model = nn.Linear(300, 2)  # 602 numbers, 4 second moments; 600 numbers take 3 scales, 2 take 1
    partition = partition_model(model)
    assert partition.state_bytes() == 4 * 602 + 4 * 4
    assert partition.state_bytes("bfloat16") == 2 * 602 + 4 * 4
    assert partition.state_bytes("int8") == 602 + 4 * 4 + 4 * 4
    assert partition.adamw_bytes() == 8 * 602
    assert partition_model(model.double()).state_bytes() == 8 * 606
    assert partition_model(model.to(torch.bfloat16)).state_bytes() == 4 * 606


@pytest.mark.pitfall("C17", "C18")
def test_state_is_halved_for_every_layer_kind() -> None:
    lstm = nn.LSTM(1080, 256)
    numbers = sum(spec.state_numbers for spec in partition_model(lstm).specs.values())
    # weights 1,368,064 + 2,048 rows; biases 2,048 and as many second moments
    assert numbers == 1_370_112 + 4_096 == 1_374_208
    assert partition_model(lstm).adamw_bytes() == 4 * 2_740_224
    for module in (nn.Conv1d(16, 32, 5), nn.MultiheadAttention(128, 4), nn.Linear(64, 64)):
        optimizer = step_once(module)
        assert optimizer.state_bytes() == partition_model(module).state_bytes()
        assert optimizer.state_bytes() < 0.52 * partition_model(module).adamw_bytes()


def test_parameters_are_found_quickly_and_copies_find_their_own() -> None:
    model = nn.ParameterList(torch.zeros(2) for _ in range(10_000))
    partition = partition_model(model)
    for param in model:  # quadratic time would take minutes
        partition.spec_of(param)
    for copied in (copy.deepcopy((model, partition)), pickle.loads(pickle.dumps((model, partition)))):
        assert copied[1].specs == partition.specs
        assert copied[1].spec_of(copied[0][7]) == partition.spec_of(model[7])
        with pytest.raises(ValueError, match=r"knows no parameter of shape \(2,\)"):
            copied[1].spec_of(model[7])
    assert isinstance(partition, Partition)


def test_lazy_parameters_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older torch warns that lazy modules may change
        model = nn.LazyLinear(3)
    with pytest.raises(ValueError, match=r"weight: has no shape yet\. Run the model once"):
        partition_model(model)
    optimizer = AdamMini(nn.Linear(2, 3).parameters())
    with pytest.raises(ValueError, match="parameter 0: has no shape yet"):
        optimizer.add_param_group({"params": model.parameters()})
    assert len(optimizer.param_groups) == 1


def test_without_a_module_the_shape_decides() -> None:
    assert spec_for_shape(torch.zeros(3, 4)).blocks == 3
    assert spec_for_shape(torch.zeros(3, 4, 2)).blocks == 3
    assert spec_for_shape(torch.zeros(4)).blocks == 4
    assert spec_for_shape(torch.zeros(())).blocks == 1


@pytest.mark.pitfall("O12")
def test_decay_groups_follow_structure() -> None:
    model = nn.ModuleDict(
        {
            "mlnet": nn.ModuleDict({"fc": nn.Linear(3, 2), "bn1": nn.BatchNorm1d(2)}),
            "planar": nn.LayerNorm((3, 5)),
            "biased": Experts(2, 3, 5, transposed=False),
            "frozen": nn.Linear(2, 2).requires_grad_(False),
        }
    )
    with_decay, without = decay_groups(model, 0.1)
    assert (with_decay["weight_decay"], without["weight_decay"]) == (0.1, 0.0)
    assert [name for name, _ in with_decay["params"]] == ["mlnet.fc.weight", "biased.first", "biased.last"]
    assert [name for name, _ in without["params"]] == [
        "mlnet.fc.bias", "mlnet.bn1.weight", "mlnet.bn1.bias", "planar.weight", "planar.bias", "biased.first_bias"
    ]  # fmt: skip
    decays = {tuple(g["param_names"]): g["weight_decay"] for g in AdamMini.for_model(model).param_groups}
    assert list(decays.values()) == [1e-2, 0.0]
    assert [g["weight_decay"] for g in AdamMini(model.parameters()).param_groups] == [1e-2]  # as AdamW


@pytest.mark.pitfall("O1")
def test_modules_that_refuse_to_be_read() -> None:
    class Shy(nn.Module):
        """Its properties raise, as configurations of models whose layers differ do."""

        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj = nn.Linear(3, 4), nn.Linear(3, 4)
            self.kernel = nn.Parameter(torch.zeros(2, 3, 5))

        def refuse(self) -> None:
            raise RuntimeError("ask the layers one by one")

        num_heads = head_dim = config = kernel_size = is_transposed = eps = num_experts = property(refuse)

    assert blocks(Shy()) == {
        "kernel": 6,
        "q_proj.weight": 4,
        "q_proj.bias": 4,
        "k_proj.weight": 4,
        "k_proj.bias": 4,
    }
