"""Files of weights: equal bytes for equal weights, and nothing foreign is loaded."""

from pathlib import Path

import pytest
import torch

from halfstep.errors import CheckpointError, MissingInputError
from halfstep.nn.checkpoint import load_weights, save_weights

FACTS = {"features": ["a", "b"], "data": "1234"}


def saved(tmp_path: Path) -> tuple[torch.nn.Linear, Path]:
    module = torch.nn.Linear(2, 3)
    save_weights(module, tmp_path / "encoder.safetensors", kind="encoder", facts=FACTS)
    return module, tmp_path / "encoder.safetensors"


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    other = torch.nn.Linear(2, 3)
    load_weights(other, path, kind="encoder", facts=FACTS, remedy="x")
    assert torch.equal(other.weight, module.weight)
    save_weights(other, tmp_path / "again.safetensors", kind="encoder", facts=FACTS)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    fitting = torch.nn.Linear(2, 3)
    with pytest.raises(MissingInputError, match="Make it with: halfstep run"):
        load_weights(fitting, tmp_path / "absent", kind="encoder", facts=FACTS, remedy="halfstep run")
    with pytest.raises(CheckpointError, match="holds encoder, must hold actor"):
        load_weights(fitting, path, kind="actor", facts=FACTS, remedy="x")
    with pytest.raises(CheckpointError, match="data '1234' instead of '5678'"):
        load_weights(fitting, path, kind="encoder", facts={**FACTS, "data": "5678"}, remedy="x")
    with pytest.raises(CheckpointError, match=r"weight \(3, 2\) instead of \(4, 2\)"):
        load_weights(torch.nn.Linear(2, 4), path, kind="encoder", facts=FACTS, remedy="x")
    with pytest.raises(CheckpointError, match=r"missing \[\], unexpected \['bias'\]"):
        load_weights(torch.nn.Linear(2, 3, bias=False), path, kind="encoder", facts=FACTS, remedy="x")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(fitting, path, kind="encoder", facts=FACTS, remedy="x")
