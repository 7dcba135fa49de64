"""How an optimizer cuts these networks: heads of queries and keys, units elsewhere, single biases and gains."""

import pytest
import torch
from torch import nn

from halfstep.nn.build import build_actor, build_critic, build_critics, build_value
from halfstep.nn.convolution import SeriesConv
from halfstep.nn.presets import PRESETS, preset
from halfstep.optim.partition import Partition, partition_model

from .cases import KINDS, encoder_of


def models() -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {kind: encoder_of(kind) for kind in KINDS}
    for name in PRESETS:
        config = preset(name)
        made |= {
            f"{name} actor": build_actor(config, seed=0), f"{name} critic": build_critic(config, seed=0),
            f"{name} value": build_value(config, seed=0),
        }  # fmt: skip
    return made | {"critics": build_critics(preset("tiny"), seed=0)}


MODELS = models()


def cut(model: nn.Module) -> Partition:
    return partition_model(model, norm="element")


@pytest.mark.parametrize("name", MODELS)
def test_partition_recognises_every_model(name: str) -> None:
    model = MODELS[name]
    partition = cut(model)
    assert "not recognised" not in str(partition)
    attention = {
        path: module for path, module in model.named_modules() if hasattr(module, "num_key_value_heads")
    }
    for parameter, tensor in model.named_parameters():
        blocks, shape = partition.specs[parameter].blocks, tuple(tensor.shape)
        owner, _, projection = parameter.rpartition(".")[0].rpartition(".")
        if parameter.endswith("weight") and owner in attention and projection in ("q_proj", "k_proj"):
            layer = attention[owner]
            expected = layer.num_heads if projection == "q_proj" else layer.num_key_value_heads
        elif tensor.dim() < 2:  # biases, gains, shifts
            expected = tensor.numel()
        else:  # one unit, one filter of one variable, one row of a table
            expected = tensor.numel() // shape[-1]
        assert blocks == expected, parameter


def test_a_filter_or_a_head_of_one_variable_is_a_block() -> None:
    convolutions = nn.Sequential(
        SeriesConv(3, 4, 5), SeriesConv(3, 4, 5, heads=2), SeriesConv(3, 4, 5, heads=2, shared=True)
    )
    specs = cut(convolutions).specs
    assert [specs[f"{k}.weight"].blocks for k in range(3)] == [12, 6, 2]


def test_no_gain_of_a_normalisation_is_shared() -> None:
    specs = cut(MODELS["tpm_windowed"]).specs
    assert specs["norm.gain"].blocks == specs["norm.shift"].blocks == 9


def test_partitioning_needs_no_data() -> None:
    with torch.device("meta"):
        model = build_actor(preset("default"), seed=0)
    assert cut(model).specs["stack.0.q_proj.weight"].blocks == 4
