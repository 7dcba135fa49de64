"""Files of weights: equal bytes for equal weights, a network from its file alone, and nothing foreign is loaded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import halfstep
from halfstep.errors import CheckpointError, MissingInputError
from halfstep.nn import checkpoint
from halfstep.nn.build import build_actor, build_critic, build_critics, build_encoder, build_value
from halfstep.nn.checkpoint import load_model, load_weights, save_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.presets import preset

from .cases import KINDS, NAMES, encoder_of

FACTS = {"data": "1234", "train": [10, 20]}
TINY = preset("tiny")


def saved(tmp_path: Path, module: nn.Module | None = None, kind: str = "encoder") -> tuple[nn.Module, Path]:
    module = encoder_of("tpm_windowed") if module is None else module
    save_weights(module, tmp_path / "weights.safetensors", kind=kind, facts=FACTS)
    return module, tmp_path / "weights.safetensors"


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    other = build_encoder(TINY, feature_names=NAMES, seed=5)
    load_weights(other, path, kind="encoder", facts=FACTS, remedy="x")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), module.parameters(), strict=True))
    assert torch.equal(other.norm.reference_std, module.norm.reference_std)
    save_weights(other, tmp_path / "again.safetensors", kind="encoder", facts=FACTS)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    with safe_open(path, "pt") as stream:
        said = json.loads(stream.metadata()["halfstep"])
    assert said["version"] == halfstep.__version__
    assert said["facts"]["feature_names"] == list(NAMES)
    assert said["facts"]["config"]["kind"] == "TpmWindowedConfig"


@pytest.mark.parametrize("kind", [*KINDS, "actor", "critic", "value", "critics"])
def test_a_network_is_made_from_its_file_alone(tmp_path: Path, kind: str) -> None:
    if kind in KINDS:
        module: nn.Module = encoder_of(kind)
    else:
        build = {
            "actor": build_actor,
            "critic": build_critic,
            "value": build_value,
            "critics": build_critics,
        }[kind]
        module = build(TINY, seed=3)
    _, path = saved(tmp_path, module, "encoder" if kind in KINDS else kind)
    state = torch.random.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(loaded) is type(module)
    assert not loaded.training
    assert loaded.config == module.config
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True))  # fmt: skip


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    with pytest.raises(MissingInputError, match=r"no encoder at .* Make it with: halfstep run"):
        load_weights(module, tmp_path / "absent", kind="encoder", facts=FACTS, remedy="halfstep run")
    with pytest.raises(CheckpointError, match=r"holds encoder of format .* must hold actor"):
        load_weights(module, path, kind="actor", facts=FACTS, remedy="x")
    with pytest.raises(CheckpointError, match="data '1234' instead of '5678'"):
        load_weights(module, path, kind="encoder", facts={**FACTS, "data": "5678"}, remedy="x")
    names = (*NAMES[:-1], "other")
    other = build_encoder(TINY, feature_names=names, seed=0)
    with pytest.raises(CheckpointError, match=r"feature_names \[.*'macd'\] instead of \[.*'other'\]"):
        load_weights(other, path, kind="encoder", facts=FACTS, remedy="x")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(module, path, kind="encoder", facts=FACTS, remedy="x")


def test_one_message_lists_sizes_and_tensors(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    sizes = replace(TINY.encoder, linear_skip=False, hidden=8)
    other = build_encoder(ModelConfig(encoder=sizes), feature_names=NAMES, seed=0)
    with pytest.raises(CheckpointError) as caught:
        load_weights(other, path, kind="encoder", facts=FACTS, remedy="x")
    message = str(caught.value)
    assert "16" in message
    assert "hidden" in message
    assert "tensors unexpected: head.skip" in message
    assert "lstm.bias (64,) instead of (32,)" in message


def test_a_renamed_tensor_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, path = saved(tmp_path)
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    tensors["memory.bias"] = tensors.pop("lstm.bias")
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=r"missing: lstm\.bias; tensors unexpected: memory\.bias"):
        load_model(path)
    monkeypatch.setattr(checkpoint, "RENAMED", {"memory.bias": "lstm.bias"})
    assert torch.equal(load_model(path).lstm.bias, module.lstm.bias)


def test_an_impossible_configuration_is_named(tmp_path: Path) -> None:
    _, path = saved(tmp_path, nn.Linear(2, 3), "encoder")
    with pytest.raises(CheckpointError, match="its configuration makes no network"):
        load_model(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="holds unknown weights of format None"):
        load_model(path)
