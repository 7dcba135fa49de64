"""Weights as safetensors files that say what they are; a file of something else is refused."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from halfstep import files
from halfstep.errors import CheckpointError, MissingInputError

FORMAT = "halfstep-weights/1"


def save_weights(module: nn.Module, path: Path, *, kind: str, facts: dict[str, Any]) -> None:
    """Write a module's tensors atomically.

    Args:
        kind: what it is, for example ``"encoder"``.
        facts: values that a reader must find equal, for example feature names and the hash of the data.
    """
    # one key, because the library writes several in random order
    metadata = {"halfstep": json.dumps({"format": FORMAT, "kind": kind, "facts": facts}, sort_keys=True)}
    tensors = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    with files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_weights(module: nn.Module, path: Path, *, kind: str, facts: dict[str, Any], remedy: str) -> None:
    """Fill a module from a file written by `save_weights`.

    Args:
        remedy: the command that makes such a file, for the message where it is absent.

    Raises:
        MissingInputError: no such file.
        CheckpointError: damaged, of another kind, with other facts, or with other tensors.
    """
    if not path.is_file():
        raise MissingInputError(f"no {kind} at {path}. Make it with: {remedy}")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = json.loads((stream.metadata() or {}).get("halfstep", "{}"))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}). Make it again with: {remedy}"
        ) from None
    if metadata.get("format") != FORMAT or metadata.get("kind") != kind:
        raise CheckpointError(
            f"{path}: holds {metadata.get('kind', 'unknown weights')}, must hold {kind}. Make it with: {remedy}"
        )
    found = metadata["facts"]
    wanted = json.loads(json.dumps(facts))
    differing = [
        f"{name} {found.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise CheckpointError(f"{path}: made with {'; '.join(differing)}. Make it again with: {remedy}")
    _check_shapes(module.state_dict(), tensors, path)
    module.load_state_dict(tensors)


def _check_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape
    ]
    if missing or unexpected or other:
        raise CheckpointError(
            f"{path}: tensors missing {missing}, unexpected {unexpected}, differently shaped {sorted(other)}."
        )
