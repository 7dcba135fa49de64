"""The fast path of a step on the CPU: all tensors of one dtype in one launch of a compiled kernel.

What can be known in advance (addresses of weights and moments, blocks, tasks) is put into tables once. A step looks
only at what may have changed: gradients, hyper-parameters, the number of threads.
"""

import importlib
import importlib.util
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.table import HEADER_RECORD, TENSOR_RECORD, Segment, layout_of, memory_order, segments_of
from halfstep.optim.threads import address, parallel, usable_threads
from halfstep.optim.watch import Watch

SERIAL_ELEMENTS = 2**14  # below this a second thread costs more than it saves
LANES = (
    4  # of each thread where there are several: one that is late, or disturbed, leaves lanes to the others
)
STORAGE = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.bfloat16: np.int16,
    torch.float16: np.uint16,
}
"""How compiled code sees each dtype; see `halfstep.optim.kernels.storage`."""

_is_dense: Callable[[Any], bool] = Tensor.is_contiguous
_moments = operator.itemgetter("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter of an optimizer.

    Attributes:
        name: of the parameter, for messages.
        param: the weight.
        spec: its blocks.
        group: its group of hyper-parameters, as the optimizer holds it.
        state: its state, as the optimizer holds it.
    """

    name: str
    param: Tensor
    spec: BlockSpec
    group: dict[str, Any]
    state: dict[str, Any]


def _kernels(token: Any, wide: Any) -> Any:
    """Return the compiled kernels of a dtype; imported on first use: they take a moment."""
    return importlib.import_module("halfstep.optim.kernels.cpu").kernels(token, wide)


def refuse_sparse(name: str, grad: Tensor) -> None:
    """Raise the error of a sparse gradient."""
    if grad.layout is not torch.strided:
        raise RuntimeError(f"{name}: a sparse gradient. Use nn.Embedding(..., sparse=False) for it.")


def fits_kernel(entry: Entry) -> bool:
    """Return whether a parameter and its state can be stepped by a compiled kernel."""
    if not segments_for(entry.param, entry.spec):
        return False
    first, second, step = _moments(entry.state)
    wide = torch.promote_types(entry.param.dtype, torch.float32)
    return (
        all(tensor.device.type == "cpu" for tensor in (first, second, step))
        and (first.dtype, second.dtype, step.dtype) == (wide, wide, torch.float32)
        and (first.shape, first.stride()) == (entry.param.shape, entry.param.stride())
        and second.shape == entry.spec.state_shape
        and second.is_contiguous()
    )


def segments_for(param: Tensor, spec: BlockSpec) -> list[Segment] | None:
    """Return a parameter's segments, none of an empty one, or None where it must be updated by plain torch."""
    if param.device.type != "cpu" or param.dtype not in STORAGE or param.layout is not torch.strided:
        return None
    if type(param) not in (Tensor, torch.nn.Parameter):
        return None
    if getattr(param, "grad_dtype", param.dtype) not in (param.dtype, None):
        return None
    order = memory_order(param)
    return None if order is None else segments_of(spec, order)


class Launcher:
    """Steps parameters of one dtype together.

    Args:
        entries: parameters with a state, all of one dtype, each of which `fits_kernel`.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.params = [entry.param for entry in entries]
        self._names = [entry.name for entry in entries]
        self._moments = [_moments(entry.state) for entry in entries]
        self._weights = [param.data_ptr() for param in self.params]
        self._is_dense = [param.is_contiguous() for param in self.params]
        self._permuted = {
            row: param.stride() for row, param in enumerate(self.params) if not self._is_dense[row]
        }
        self._sizes = [param.numel() for param in self.params]
        self._groups = list(_runs(entry.group for entry in entries))
        self._hyper: list[Any] = []
        dtype = self.params[0].dtype
        self._wide = np.dtype(np.float64 if dtype == torch.float64 else np.float32)
        self._kernels = _kernels(STORAGE[dtype], self._wide.type)
        self._places = [tensor.data_ptr() for moments in self._moments for tensor in moments]
        self._tensors = np.zeros(len(entries), TENSOR_RECORD)
        self._tensors["param"] = self._weights
        for number, key in enumerate(("exp_avg", "exp_avg_sq", "step")):
            self._tensors[key] = [moments[number].data_ptr() for moments in self._moments]
        self._layout = layout_of(segments_for(entry.param, entry.spec) or () for entry in entries)
        self._watch = self._watch_if_possible()
        self._elements = int(self._layout.weights.sum())
        self._totals = np.zeros(len(self._layout.tasks))
        self._sums = np.zeros(self._layout.sums, self._wide)
        self._header = np.zeros(1, HEADER_RECORD)
        self._header_address = self._header.ctypes.data
        self._threads = 0

    def is_current(self) -> bool:
        """Return whether memory and form of weights and moments are as they were: ``share_memory_`` and ``.data =`` change them."""
        return self._are_in_place() if self._watch is None else self._watch.are_in_place()

    def _are_in_place(self) -> bool:
        return (
            list(map(Tensor.data_ptr, self.params)) == self._weights
            and list(map(Tensor.numel, self.params)) == self._sizes
            and list(map(_is_dense, self.params)) == self._is_dense
            and all(self.params[row].stride() == stride for row, stride in self._permuted.items())
            and [tensor.data_ptr() for moments in self._moments for tensor in moments] == self._places
        )

    def _watch_if_possible(self) -> Watch | None:
        """Return what does the work of `_are_in_place` and of finding gradients faster, where this torch allows it."""
        if self._permuted:
            return None
        try:
            return Watch(self.params, self._moments, self._tensors)
        except LookupError:
            return None

    def step(self, scale: float) -> None:
        """Update all parameters that have a gradient; ``scale`` is a factor on the gradients."""
        held = self._find_gradients()
        self._find_hyper()
        self._share_out()
        self._kernels.step(self._header_address, scale)
        self._count_changes()
        del held

    def square_sum(self) -> float:
        """Return the sum of the squares of all gradients."""
        held = self._find_gradients()
        self._share_out()
        total: float = self._kernels.square_sum(self._header_address)
        del held
        return total

    def _share_out(self) -> None:
        """Share the tasks out in lanes, each with scratch memory of its own, if the number of threads has changed."""
        threads = usable_threads() if self._elements >= SERIAL_ELEMENTS else 1
        if threads == self._threads:
            return
        self._threads = threads
        layout, header, self._parallel = self._layout, self._header, parallel()
        lanes = threads if threads == 1 else LANES * threads
        self._lanes = layout.lanes(lanes)
        self._scratch = np.zeros((lanes, 3, layout.widest), self._wide)
        for name, table in (
            ("tensors", self._tensors), ("segments", layout.segments), ("tasks", layout.tasks), ("pieces", layout.pieces),
            ("wholes", layout.wholes), ("totals", self._totals), ("lanes", self._lanes), ("scratch", self._scratch),
            ("sums", self._sums),
        ):  # fmt: skip
            header[name] = table.ctypes.data
        for name, number in (
            ("tensor_count", len(self._tensors)), ("task_count", len(layout.tasks)), ("piece_count", len(layout.pieces)),
            ("whole_count", len(layout.wholes)), ("lane_count", lanes), ("scratch_width", layout.widest),
            ("threads", threads), ("parallel", address(self._parallel)), ("work", self._kernels.work.address),
        ):  # fmt: skip
            header[name] = number

    def _find_gradients(self) -> list[Tensor]:
        """Put the addresses of the gradients into the table; returns copies that must live through the launch."""
        if self._watch is not None and self._watch.find_gradients() >= 0:
            return []
        places, held = [], []
        for name, param in zip(self._names, self.params, strict=True):
            grad = param.grad
            if grad is None:
                places.append(0)
                continue
            refuse_sparse(name, grad)
            if grad.shape != param.shape or grad.dtype != param.dtype:
                raise RuntimeError(
                    f"{name}: a gradient of shape {tuple(grad.shape)} and {grad.dtype} for a weight of shape "
                    f"{tuple(param.shape)} and {param.dtype}. Give it a gradient of its own form."
                )
            if grad.stride() != param.stride() and not (param.is_contiguous() and grad.is_contiguous()):
                grad = torch.empty_like(param).copy_(grad)
                held.append(grad)
            places.append(grad.data_ptr())
        self._tensors["grad"] = places
        return held

    def _count_changes(self) -> None:
        """Tell autograd which parameters were changed in place: those with a gradient."""
        if self._watch is not None:
            self._watch.count_changes()
            return
        places = self._tensors["grad"].tolist()
        changed = [param for param, place in zip(self.params, places, strict=True) if place]
        torch.autograd.graph.increment_version(changed)

    def _find_hyper(self) -> None:
        """Put the hyper-parameters into the table where any has changed."""
        now = [
            (float(group["lr"]), *group["betas"], group["eps"], group["weight_decay"], group["maximize"])
            for group, _ in self._groups
        ]
        if now == self._hyper:
            return
        self._hyper = now
        for (lr, beta1, beta2, eps, decay, maximize), (_, rows) in zip(now, self._groups, strict=True):
            tensors = self._tensors[rows]
            tensors["lr"], tensors["beta1"], tensors["beta2"] = lr, beta1, beta2
            tensors["eps"], tensors["weight_decay"], tensors["sign"] = eps, decay, -1.0 if maximize else 1.0


def _runs(groups: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], slice]]:
    """Yield each group and the rows of its parameters, which follow one another."""
    start = 0
    for _, run in itertools.groupby(groups, key=id):
        members = list(run)
        yield members[0], slice(start, start + len(members))
        start += len(members)
