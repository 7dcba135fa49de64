"""What an optimizer step costs on the networks of a run: its time, and the memory that the optimizer keeps.

Steps are timed alone and interleaved, A B A B, median of many rounds. Memory is counted in a fresh process: every
storage that came into being with the optimizer and its first step, so that a buffer is found wherever it is kept.
"""

import gc
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from halfstep import files
from halfstep.cli.programs.models import model_config
from halfstep.cli.programs.processes import Task, failed_tasks, run_side_by_side
from halfstep.cli.programs.stopwatch import interleaved, quartiles
from halfstep.config.load import validated
from halfstep.config.tables import Config
from halfstep.nn.build import build_actor, build_critic, build_encoder
from halfstep.optim.partition import partition_model
from halfstep.progress import SILENT, Progress
from halfstep.training.optimizers import make_optimizer, measured_state_bytes

NOTABLE_SHARE = (
    0.01  # of the parameters' bytes: what an optimizer may keep beside its state before it is told of
)
STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFigures:
    """Bytes that an optimizer keeps after its first step.

    Attributes:
        implementation: class of the optimizer, and how it steps.
        parameters: bytes of the networks.
        state: of every distinct storage in ``optimizer.state``, counted.
        step_counts: how much of it are step counts, which the next two leave out.
        says: what the optimizer's ``state_bytes()`` states, if it has one.
        formula: by the sizes of the networks: 4 bytes a parameter for SGD, 8 for Adam and AdamW, the partition's
            figure for Adam-mini.
        elsewhere: of storages that came with the optimizer and its first step but are not in its state.
        peak_resident: largest resident size of the fresh process that built the networks and made three steps.
    """

    implementation: str
    parameters: int
    state: int
    step_counts: int
    says: int | None
    formula: int | None
    elsewhere: int
    peak_resident: int

    @property
    def complaint(self) -> str:
        """Say where the optimizer keeps more than it states; empty where it does not."""
        notable = NOTABLE_SHARE * self.parameters
        found = []
        if self.says is not None and self.state - self.step_counts > self.says + notable:
            found.append(f"state_bytes() says {self.says:,}, {self.state - self.step_counts:,} are there")
        if self.elsewhere > notable:
            found.append(f"{self.elsewhere:,} bytes are kept outside its state")
        return "; ".join(found)


def networks(
    config: Config, feature_names: tuple[str, ...], scope: Literal["encoder", "chain"]
) -> nn.ModuleList:
    """Return the networks that an arm trains, with gradients of random numbers."""
    sizes = model_config(config)
    model = nn.ModuleList([build_encoder(sizes, feature_names=feature_names, seed=0)])
    if scope == "chain":
        model.extend([build_actor(sizes, seed=0), build_critic(sizes, seed=0)])
    generator = torch.Generator().manual_seed(0)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=generator)
    return model


def step_times(config: Config, feature_names: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    """Return median and quartiles of the milliseconds of a step over the networks of an arm, by optimizer."""
    candidates = {
        name: make_optimizer(name, networks(config, feature_names, config.compare.scope), config.optim)
        for name in config.compare.optimizers
    }
    steps = {name: optimizer.step for name, optimizer in candidates.items()}
    found = {}
    for name, times in interleaved(steps, rounds=config.compare.timing_rounds).items():
        low, middle, high = quartiles([1000 * seconds for seconds in times])
        found[name] = (middle, low, high)
    return found


def memory_figures(config: Config, feature_names: tuple[str, ...], folder: Path) -> dict[str, MemoryFigures]:
    """Return what each optimizer of a comparison keeps; each is measured in a process of its own, one at a time.

    Args:
        folder: takes one file per optimizer; those that stand there are read.
    """
    found = {}
    for name in config.compare.optimizers:
        path = folder / f"{name}.json"
        if not path.exists():
            task = Task(
                name=f"memory of {name}", call=_measure, log=folder / f"{name}.log",
                arguments=(config.model_dump(mode="json"), feature_names, name, path),
            )  # fmt: skip
            failures = run_side_by_side(
                [task], processes=1, threads=config.run.threads, code=config.compare.code, progress=SILENT
            )
            if failures:
                raise failed_tasks(failures)
        found[name] = MemoryFigures(**json.loads(path.read_text(encoding="utf-8")))
    return found


def count_memory(name: str, config: Config, model: nn.Module) -> MemoryFigures:
    """Count what an optimizer keeps of a model that has gradients; makes its first steps."""
    before = _storages(_live_tensors())
    optimizer = make_optimizer(name, model, config.optim)
    optimizer.step()
    new = {key: size for key, size in _storages(_live_tensors()).items() if key not in before}
    state = measured_state_bytes(optimizer)
    counts = _storages(
        [entry["step"] for entry in optimizer.state.values() if isinstance(entry.get("step"), Tensor)]
    )
    says = getattr(optimizer, "state_bytes", None)
    for _ in range(STEPS - 1):
        optimizer.step()
    return MemoryFigures(
        implementation=_implementation(optimizer),
        parameters=sum(param.numel() * param.element_size() for param in model.parameters()),
        state=state,
        step_counts=sum(counts.values()),
        says=None if says is None else int(says()),
        formula=_formula(name, model),
        elsewhere=max(0, sum(new.values()) - state),
        peak_resident=_peak_resident(),
    )


def _measure(
    tree: dict[str, Any], feature_names: tuple[str, ...], name: str, path: Path, progress: Progress
) -> None:
    progress.start(name, 1, "optimizer")
    config = validated(tree, source="the run")
    model = networks(config, feature_names, config.compare.scope)
    files.write_json(path, asdict(count_memory(name, config, model)))


def _formula(name: str, model: nn.Module) -> int | None:
    numbers = sum(param.numel() for param in model.parameters())
    if name == "adam_mini":
        return partition_model(model, norm="element").state_bytes()
    return {"sgd": 4 * numbers, "adam": 8 * numbers, "adamw": 8 * numbers}.get(name)


def _implementation(optimizer: torch.optim.Optimizer) -> str:
    kind = type(optimizer)
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    return f"{kind.__module__.split('.')[0]} {kind.__name__}{'(fused=True)' if is_fused else ''}"


def _live_tensors() -> list[Tensor]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


def _storages(tensors: list[Tensor]) -> dict[int, int]:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def _peak_resident() -> int:
    """Return this process's largest resident size in bytes; Linux counts it apart from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
