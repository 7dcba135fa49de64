"""One ONNX file that MetaTrader 5 can load, read back and compared with torch before it is kept.

Opset 18 at most, IR version 8 at most, weights inside the file, every size fixed, batch 1.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halfstep import files
from halfstep.errors import CheckpointError, ConfigError
from halfstep.export.graph import STATES, PolicyInputs, TerminalPolicy, random_inputs

OPSET, IR_VERSION = 18, 8
TOLERANCE = 1e-5
WINDOWS = 1000
CHUNK = 50  # decisions that torch computes together
OUTPUTS = ("order", "action", "forecast")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportCheck:
    """What reading a file back gave.

    Attributes:
        opset, ir_version: of the file.
        bytes: its size.
        windows: random decisions compared.
        action_error: largest difference of the action from torch, lots and fractions.
        forecast_error: largest difference of the forecast, in units of the feature's deviation and level.
    """

    opset: int
    ir_version: int
    bytes: int
    windows: int
    action_error: float
    forecast_error: float


def write_onnx(
    policy: TerminalPolicy, path: Path, *, metadata: Mapping[str, str], windows: int = WINDOWS, seed: int = 0
) -> ExportCheck:
    """Write a policy as one ONNX file; it takes its name only after `check_onnx` has passed.

    Args:
        metadata: written into the file, for whoever loads it.
        windows: random decisions to compare with torch.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is not installed.
        CheckpointError: the file does not compute what torch computes.
    """
    model = _model(policy)
    model.ir_version = IR_VERSION
    for node in model.graph.node:  # source lines of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    with files.replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        return check_onnx(temporary, policy, windows=windows, seed=seed)


def check_onnx(path: Path, policy: TerminalPolicy, *, windows: int = WINDOWS, seed: int = 0) -> ExportCheck:
    """Read a file back and compare it with torch on random decisions.

    Raises:
        CheckpointError: too new a format, data outside the file, open sizes, or other numbers than torch.
    """
    onnx, onnxruntime = _packages()
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET or model.ir_version > IR_VERSION:
        raise CheckpointError(
            f"{path}: opset {opset}, IR {model.ir_version}, must be at most {OPSET} and {IR_VERSION}."
        )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise CheckpointError(f"{path}: weights outside the file, must be inside.")
    for value in (*model.graph.input, *model.graph.output):
        if any(not size.dim_value for size in value.type.tensor_type.shape.dim):
            raise CheckpointError(f"{path}: {value.name} has open sizes, every size must be fixed.")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    norm = policy.encoder.norm
    unit = (norm.reference_std + norm.reference_mean.abs())[policy.encoder.columns].numpy()
    action_error = forecast_error = 0.0
    for begin in range(0, windows, CHUNK):
        drawn = [random_inputs(policy, random) for _ in range(min(CHUNK, windows - begin))]
        with torch.no_grad():
            wanted = [
                part.numpy() for part in policy(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))
            ]
        for row, inputs in enumerate(drawn):
            named = zip(input_names(policy), inputs, strict=True)
            found = session.run(None, {name: part.numpy() for name, part in named})
            expected = [part[row : row + 1] for part in wanted]
            forecast_error = max(forecast_error, _difference(found[2] / unit, expected[2] / unit))
            for other, ours in zip(found[1:2] + found[3:], expected[1:2] + expected[3:], strict=True):
                action_error = max(action_error, _difference(other, ours))
            if not _is_near_rounding(policy, expected[1], inputs[1].numpy()) and (
                _difference(found[0], expected[0]) > TOLERANCE
            ):
                raise CheckpointError(
                    f"{path}: order {found[0].tolist()}, torch gives {expected[0].tolist()}. Report it."
                )
    for name, error in (("action", action_error), ("forecast", forecast_error)):
        if not error <= TOLERANCE:
            raise CheckpointError(
                f"{path}: {name} differs from torch by {error:.2g}, must be within {TOLERANCE}. Report it."
            )
    return ExportCheck(
        opset=opset, ir_version=model.ir_version, bytes=path.stat().st_size, windows=windows,
        action_error=action_error, forecast_error=forecast_error,
    )  # fmt: skip


def input_names(policy: TerminalPolicy) -> tuple[str, ...]:
    """Return the names of the graph's inputs, in order."""
    return (*PolicyInputs._fields, *(f"state_{name}" for name in STATES if policy.state_size))


def output_names(policy: TerminalPolicy) -> tuple[str, ...]:
    """Return the names of the graph's outputs, in order."""
    return (*OUTPUTS, *(f"next_{name}" for name in STATES if policy.state_size))


def _model(policy: TerminalPolicy) -> Any:
    _packages()
    inputs = random_inputs(policy, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own future
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                policy, inputs, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=input_names(policy), output_names=output_names(policy),
            )  # fmt: skip
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None  # with dynamo=True there always is one
    return program.model_proto


def _packages() -> tuple[Any, Any]:
    try:
        import onnx  # extra
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, and export needs it: pip install 'halfstep[export]'."
        ) from None
    return onnx, onnxruntime


def _difference(one: Any, other: Any) -> float:
    """Return the largest difference, infinity where a number is not finite."""
    error = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    return float(error.max()) if np.isfinite(error).all() else float("inf")


def _is_near_rounding(policy: TerminalPolicy, action: Any, account: Any) -> bool:
    """Return whether a number of an order lies so close between two whole steps that it may be rounded either way."""
    rules = policy.decoding
    scale = np.full(6, rules.level_scale)
    scale[[0, 3]] = (account[0, 1] / 10_000 if rules.per_10k else 1.0) / rules.lot_step
    wanted = np.asarray(action[0], np.float64) * scale
    return bool((np.abs(wanted - np.floor(wanted) - 0.5) < TOLERANCE * scale).any())
