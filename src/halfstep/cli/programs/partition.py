"""The blocks that Adam-mini gives a model, and the bytes that they save, without training it.

Models are built on the meta device, which holds shapes and no numbers, so that the largest ones cost nothing.
"""

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from halfstep.cli.flags import PartitionFlags
from halfstep.cli.user_code import first_line, imported
from halfstep.errors import CheckpointError, ConfigError, MissingInputError
from halfstep.market.features import FEATURE_SETS
from halfstep.nn.build import build_actor, build_critic, build_encoder
from halfstep.nn.presets import preset
from halfstep.optim.partition import Partition, partition_model, spec_for_shape

FORMS = "transformers:NAMEConfig, preset:NAME, package.module:NAME, file.py:NAME, or a .safetensors file or folder"
_TASKS = (
    "SEQ_TO_SEQ_CAUSAL_LM",
    "MASKED_LM",
    "CAUSAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
)
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What was found under a model's source."""

    title: str
    partition: Partition

    def lines(self) -> str:
        """Return the table, and what the optimizers would need."""
        found = self.partition
        needs = [("AdamW, float32 moments", found.adamw_bytes())]
        needs += [(f"AdamMini, {name} first moment", size) for name, size in self.sizes().items()]
        width = max(len(f"{size:,}") for _, size in needs)
        return "\n".join(
            [self.title, str(found), "", *(f"{name:<31} {size:>{width},} bytes" for name, size in needs)]
        )

    def sizes(self) -> dict[str, int]:
        """Return AdamMini's bytes of state by the precision of its first moment."""
        found = self.partition
        return {
            "float32": found.state_bytes(),
            "bfloat16": found.state_bytes("bfloat16"),
            "int8": found.state_bytes("int8"),
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        found = self.partition
        return {
            "model": self.title,
            "parameters": sum(p.numel() for p in found.parameters.values() if p.requires_grad),
            "blocks": sum(spec.blocks for spec in found.specs.values()),
            "state_bytes": {"adamw": found.adamw_bytes(), "adam_mini": self.sizes()},
            "table": [
                {
                    "name": name,
                    "shape": list(spec.shape),
                    "kind": spec.kind,
                    "blocks": spec.blocks,
                    "trained": found.parameters[name].requires_grad,
                    "reason": spec.reason,
                }
                for name, spec in found.specs.items()
            ],
        }


def describe(flags: PartitionFlags) -> Described:
    """Return the partition of the model that the flags name.

    Raises:
        ConfigError: no such model, or settings that it does not take.
        MissingInputError: no such file.
        CheckpointError: a file that holds no tensors.
    """
    settings = dict(_setting(text) for text in flags.set_)
    kind, _, name = flags.model.rpartition(":")
    path = Path(flags.model)
    if path.is_dir() or path.suffix == ".safetensors":
        if settings:
            raise ConfigError(f"--set: {', '.join(settings)}, but a file of weights takes no settings.")
        return Described(title=f"{path}, by its shapes alone", partition=_of_file(path))
    if kind == "transformers":
        model = _of_transformers(name, settings)
    elif kind == "preset":
        model = _of_preset(name, settings)
    elif kind:
        model = _of_module(kind, name, settings)
    else:
        raise ConfigError(f"--model: {flags.model!r}, must be {FORMS}.")
    norm = flags.norm or ("element" if kind == "preset" else "tensor")
    try:
        partition = partition_model(model, value=flags.value, norm=norm)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Described(title=f"{type(model).__name__} of {flags.model}", partition=partition)


def _setting(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ConfigError(f"--set: {text!r}, must be NAME=VALUE, for example hidden_size=64.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _of_transformers(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build the model of a Hugging Face configuration class, with the head of its most usual task."""
    try:
        transformers = importlib.import_module("transformers")
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
    except ImportError:
        raise ConfigError(
            f"--model: transformers:{name} needs the package transformers. Install it with: pip install transformers"
        ) from None
    transformers.logging.set_verbosity_error()
    name = name if name.endswith("Config") else f"{name}Config"
    make = getattr(transformers, name, None)
    if not isinstance(make, type):
        known = [word for word in dir(transformers) if word.endswith("Config")]
        raise ConfigError(f"--model: transformers has no {name}.{_nearest(name, known)}")
    config = _called(make, _nested(settings, make))
    tables = [getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in _TASKS]
    for table in (*tables, auto.MODEL_MAPPING_NAMES):
        if getattr(config, "model_type", None) in table:
            model: nn.Module = _on_meta(getattr(transformers, table[config.model_type]), {"config": config})
            return model
    raise ConfigError(f"--model: {name} describes no model by itself; name one that does.")


def _nested(settings: Mapping[str, Any], make: Callable[..., Any]) -> dict[str, Any]:
    """Return keyword arguments; ``text_config.hidden_size`` goes into a nested one. Unknown names are refused."""
    plain = _called(make, {})
    arguments: dict[str, Any] = {}
    for name, value in settings.items():
        *outer, last = name.split(".")
        inner, known = arguments, plain
        for part in outer:
            inner, known = inner.setdefault(part, {}), getattr(known, part, None)
        if not hasattr(known, last):
            names = [] if known is None else list(known.to_dict())
            raise ConfigError(f"--set: {make.__name__} has no {name}.{_nearest(last, names)}")
        inner[last] = value
    return arguments


def _of_preset(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build the encoder, actor and critic of one of the named sizes."""
    if settings:
        raise ConfigError(f"--set: {', '.join(settings)}, but a preset takes no settings.")
    try:
        config = preset(name)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None
    names = FEATURE_SETS["robust9"].names
    return nn.ModuleDict(
        {
            "encoder": build_encoder(config, feature_names=names, seed=0),
            "actor": build_actor(config, seed=0),
            "critic": build_critic(config, seed=0),
        }
    )


def _of_module(place: str, name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Return the model of that name in a module or file; a class or function is called with the settings."""
    module = imported(place, flag="--model")
    found = getattr(module, name, None)
    if found is None:
        names = [word for word in dir(module) if not word.startswith("_")]
        raise ConfigError(f"--model: {place} has no {name!r}.{_nearest(name, names)}")
    model = found if isinstance(found, nn.Module) else _on_meta(found, settings)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"--model: {place}:{name} is a {type(model).__name__}, must be or make a torch module."
        )
    return model


def _on_meta(make: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """Call with shapes alone; what needs numbers while it is built, is built with numbers."""
    if not callable(make):
        raise ConfigError(f"--model: {make!r}, must be or make a torch module.")
    try:
        with torch.device("meta"):
            return make(**settings)
    except RuntimeError:
        return _called(make, settings)
    except Exception as error:
        raise _unbuilt(make, error) from None


def _called(make: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    try:
        return make(**settings)
    except Exception as error:
        raise _unbuilt(make, error) from None


def _unbuilt(make: Callable[..., Any], error: Exception) -> ConfigError:
    name = getattr(make, "__name__", repr(make))
    return ConfigError(f"--model: {name} cannot be built: {first_line(error)}")


def _of_file(path: Path) -> Partition:
    """Return the blocks of the tensors in a safetensors file, or in all of a folder, read from the headers."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MissingInputError(
            f"no .safetensors file at {path.absolute()}. Name a file or a folder of them."
        )
    tensors = {name: tensor for file in files for name, tensor in _shapes(file)}
    if not tensors:
        raise CheckpointError(f"{path}: no floating-point tensors. Name a file of weights.")
    return Partition({name: spec_for_shape(tensor) for name, tensor in tensors.items()}, tensors)


def _shapes(file: Path) -> Iterator[tuple[str, nn.Parameter]]:
    try:
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118  # no mapping
                header = stream.get_slice(name)
                dtype = _FLOATS.get(header.get_dtype())
                if dtype is not None:
                    yield name, nn.Parameter(torch.empty(header.get_shape(), dtype=dtype, device="meta"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a whole safetensors file ({error}). Fetch or write it again."
        ) from None


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" The nearest is {close[0]}." if close else ""
