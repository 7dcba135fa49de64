"""Weights as safetensors files that say what they are; a file of something else is refused.

Names of tensors are an interface: attribute paths, fixed by the golden lists of the tests. A tensor that gets another
name needs an entry in `RENAMED`, so that older files are still read.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from halfstep import files
from halfstep._version import __version__
from halfstep.errors import CheckpointError, MissingInputError
from halfstep.nn.build import build_encoder
from halfstep.nn.config import (
    AttentionConfig,
    CriticConfig,
    EncoderConfig,
    ModelConfig,
    PolicyConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)
from halfstep.nn.policy import Actor, ContextNetwork, Critic, CriticEnsemble, ValueNet

FORMAT = "halfstep-weights/2"
RENAMED: Mapping[str, str] = MappingProxyType({})
"""Older names of tensors and today's."""
_CONFIGS = (TpmWindowedConfig, TpmStatefulConfig, StnnConfig, AttentionConfig, PolicyConfig, CriticConfig)


def save_weights(module: nn.Module, path: Path, *, kind: str, facts: Mapping[str, Any]) -> None:
    """Write a module's tensors atomically, with its configuration.

    Args:
        kind: what it is: encoder, actor, critic, critics or value.
        facts: values that a reader must find equal, for example the hash of the training data.
    """
    metadata = {
        "format": FORMAT, "version": __version__, "kind": kind, "facts": {**_own_facts(module), **facts}
    }  # fmt: skip
    tensors = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    with files.replacing(path) as temporary:
        # one key, because the library writes several in random order
        save_file(tensors, temporary, metadata={"halfstep": json.dumps(metadata, sort_keys=True)})


def load_weights(
    module: nn.Module, path: Path, *, kind: str, facts: Mapping[str, Any], remedy: str
) -> dict[str, Any]:
    """Fill a module from a file written by `save_weights`; returns all facts that the file states.

    Args:
        remedy: the command that makes such a file, for the message where it is absent.

    Raises:
        MissingInputError: no such file.
        CheckpointError: damaged, of another kind, with other facts, sizes or tensors; the message lists them all.
    """
    metadata, tensors = _read(path, kind=kind, remedy=remedy)
    wanted = json.loads(json.dumps({**_own_facts(module), **facts}))
    problems = [
        f"{name} {found!r} instead of {value!r}" for name, found, value in _unequal(metadata["facts"], wanted)
    ]
    problems += _differences(module.state_dict(), tensors)
    if problems:
        raise CheckpointError(f"{path}: made with {'; '.join(problems)}. Make it again with: {remedy}")
    module.load_state_dict(tensors)
    found: dict[str, Any] = metadata["facts"]
    return found


def load_model(path: Path) -> nn.Module:
    """Return the network that a file holds, built from the file alone, in evaluation mode.

    Raises:
        MissingInputError: no such file.
        CheckpointError: no file of `save_weights`, or damaged.
    """
    remedy = "halfstep run"
    metadata, tensors = _read(path, kind=None, remedy=remedy)
    facts = metadata["facts"]
    try:
        model = _build(metadata["kind"], facts)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its configuration makes no network ({error!r}).") from None
    if problems := _differences(model.state_dict(), tensors):
        raise CheckpointError(f"{path}: made with {'; '.join(problems)}. Make it again with: {remedy}")
    model.load_state_dict(tensors)
    return model.eval()


def _unequal(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return name, found and wanted value of facts that differ; of settings, only those that do."""
    unequal: list[tuple[str, Any, Any]] = []
    for name, value in wanted.items():
        other = found.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            inner = _unequal(other, value)
            unequal += [(f"{name}.{key}", was, now) for key, was, now in inner]
        elif other != value:
            unequal.append((name, other, value))
    return unequal


def _own_facts(module: nn.Module) -> dict[str, Any]:
    """Return what a module says about itself."""
    facts: dict[str, Any] = {}
    if isinstance(config := getattr(module, "config", None), _CONFIGS):
        facts["config"] = {"kind": type(config).__name__, **dataclasses.asdict(config)}
    if (names := getattr(module, "feature_names", None)) is not None:
        facts["feature_names"] = list(names)
    if isinstance(module, ContextNetwork | CriticEnsemble):
        facts["context_width"] = module.context_width
    if isinstance(module, CriticEnsemble):
        facts["critics"] = len(module.critics)
    return facts


def _build(kind: str, facts: Mapping[str, Any]) -> nn.Module:
    config = _config_of(facts["config"])
    if isinstance(config, EncoderConfig):
        names = tuple(facts["feature_names"])
        return build_encoder(ModelConfig(encoder=config), feature_names=names, seed=0)
    with torch.random.fork_rng(devices=[]):
        if isinstance(config, PolicyConfig):
            return Actor(config, facts["context_width"])
        if kind == "critics":
            return CriticEnsemble(config, facts["context_width"], facts["critics"])
        return {"critic": Critic, "value": ValueNet}[kind](config, facts["context_width"])


def _config_of(fields: Mapping[str, Any]) -> EncoderConfig | PolicyConfig | CriticConfig:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name != "kind"
    }
    if "stack" in values:
        values["stack"] = StackConfig(**values["stack"])
    kinds = {config.__name__: config for config in _CONFIGS}
    config: EncoderConfig | PolicyConfig | CriticConfig = kinds[fields["kind"]](**values)
    return config


def _read(path: Path, *, kind: str | None, remedy: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return metadata and tensors of a whole file of the right kind."""
    if not path.is_file():
        raise MissingInputError(f"no {kind or 'network'} at {path}. Make it with: {remedy}")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = json.loads((stream.metadata() or {}).get("halfstep", "{}"))
            tensors = {RENAMED.get(name, name): stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}). Make it again with: {remedy}"
        ) from None
    if metadata.get("format") != FORMAT or kind not in (None, metadata["kind"]):
        found = metadata.get("kind", "unknown weights")
        raise CheckpointError(
            f"{path}: holds {found} of format {metadata.get('format')}, must hold {kind or 'a network'} of format "
            f"{FORMAT}. Make it with: {remedy}"
        )
    return metadata, tensors


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = sorted(
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape
    )
    lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
    return [f"tensors {what}: {', '.join(names)}" for what, names in lists if names]
