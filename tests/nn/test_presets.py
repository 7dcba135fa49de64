"""Named sizes: exact parameter counts, names and shapes of tensors, seeds, refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from halfstep.nn.build import build_actor, build_critic, build_encoder, build_value
from halfstep.nn.config import (
    AttentionConfig,
    EncoderConfig,
    StackConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)
from halfstep.nn.presets import PRESETS, preset
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import partition_model

from .cases import NAMES

GOLDEN = Path(__file__).parent / "golden"
COUNTS = {
    "tiny": (35_573, 2_332, 2_499, 2_417),
    "default": (123_257, 46_828, 50_595, 50_273),
    "reference": (4_385_130, 360_556, 424_227, 423_521),
}


def networks(name: str, seed: int = 0) -> dict[str, nn.Module]:
    config = preset(name)
    return {
        "encoder": build_encoder(config, feature_names=NAMES, seed=seed),
        "actor": build_actor(config, seed=seed),
        "critic": build_critic(config, seed=seed),
        "value": build_value(config, seed=seed),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    state = torch.random.get_rng_state()
    made = networks(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert tuple(sum(p.numel() for p in net.parameters()) for net in made.values()) == COUNTS[name]
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = {key: {n: list(t.shape) for n, t in net.state_dict().items()} for key, net in made.items()}
    assert found == golden, "a tensor that gets another name needs an entry in halfstep.nn.checkpoint.RENAMED"
    for key, other in networks(name).items():
        assert all(torch.equal(a, b) for a, b in zip(made[key].parameters(), other.parameters(), strict=True))
    assert not torch.equal(*(net["actor"].embed.weight for net in (made, networks(name, seed=1))))


@pytest.mark.pitfall("C17")
def test_state_is_halved_for_every_layer_kind() -> None:
    encoder = networks("reference")["encoder"]
    optimizer = AdamMini.for_model(encoder, lr=1e-3, norm="element")
    for param in encoder.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    numbers = sum(
        state[key].numel() for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")
    )
    assert numbers == 4_404_092
    assert 2 * 4_385_130 == 8_770_260  # AdamW's
    assert numbers / 8_770_260 < 0.503  # not 0.979
    parts = {
        name.split(".")[0]: sum(p.numel() for n, p in encoder.named_parameters() if n.split(".")[0] == name.split(".")[0])
        for name, _ in encoder.named_parameters()
    }  # fmt: skip
    assert parts == {
        "cscm": 44_040, "input_attention": 1_720_440, "lstm": 1_369_088, "temporal_attention": 196_864,
        "decoder": 342_272 + 525_312, "head": 187_096, "norm": 18,
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_names_begin_as_documented(name: str) -> None:
    prefixes = {
        "encoder": ("context_", "norm.", "cscm.", "short.", "input_attention.", "lstm.", "temporal_attention.", "decoder.", "head."),
        "actor": ("embed.", "stack.", "trunk.", "out."),
    }  # fmt: skip
    made = networks(name)
    for key, allowed in prefixes.items():
        assert all(tensor.startswith(allowed) for tensor in made[key].state_dict())
    assert "stack.0.q_proj.weight" in made["critic"].state_dict()


def test_the_variant_of_the_articles_is_a_replacement() -> None:
    config = preset("reference")
    stack = replace(config.policy.stack, kv_heads=2, layers_per_kv=3)
    actor = build_actor(replace(config, policy=replace(config.policy, stack=stack)), seed=0)
    assert [layer.owns_kv for layer in actor.stack] == [True, False, False] * 3


def test_with_older_hidden_sizes_the_reference_has_28_million() -> None:
    config = replace(preset("reference").encoder, hidden=1024)
    with torch.device("meta"):
        encoder = build_encoder(replace(preset("reference"), encoder=config), feature_names=NAMES, seed=0)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(28.1e6, rel=0.01)


def test_partition_counts_every_state_number() -> None:
    specs = partition_model(networks("reference")["encoder"], norm="element").specs
    assert sum(spec.state_numbers for spec in specs.values()) == 4_404_092


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(horizon=0), "horizon: 0, must be at least 1"),
        (lambda: TpmWindowedConfig(pool=121), "pool: 121, must be at most bars 120"),
        (lambda: TpmWindowedConfig(score=0), "score: 0, must be at least 1"),
        (lambda: TpmWindowedConfig(bars=1, pool=1), "bars: 1, must be at least 2"),
        (lambda: TpmWindowedConfig(plr_threshold=0.0), "plr_threshold: 0.0, must be above 0"),
        (lambda: TpmWindowedConfig(head=("silu", "swish", "none")), "activation: 'swish', must be one of"),
        (lambda: TpmStatefulConfig(burn_in=-1), "burn_in: -1, must be 0 or above"),
        (lambda: AttentionConfig(head=("silu", "silu", "nothing")), "activation: 'nothing', must be one of"),
        (lambda: AttentionConfig(stack=StackConfig(width=3, layers=1, heads=1, kv_heads=1, context_width=3)),
         "context_width: 3, must be None"),
        (lambda: StackConfig(width=3, layers=1, heads=1, kv_heads=1, context_width=0), "context_width: 0, must be at least 1"),
        (lambda: preset("huge"), "preset: 'huge', must be one of tiny, default, reference"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        (EncoderConfig(), "norm", "norm: 'x', must be one of revin, running, running_per_position"),
        (TpmWindowedConfig(), "plr_series", "plr_series: 'x', must be one of path, all"),
        (AttentionConfig().stack, "mask", "mask: 'x', must be one of none, causal"),
        (AttentionConfig().stack, "order", "order: 'x', must be one of attention_first, feed_forward_first"),
    ],
)
def test_wrong_names_are_listed(config: EncoderConfig | StackConfig, field: str, message: str) -> None:
    object.__setattr__(
        config, field, "x"
    )  # the shape checks of the tests refuse it before the constructor can
    with pytest.raises(ValueError, match=message):
        config.__post_init__()
