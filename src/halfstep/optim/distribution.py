"""Parameters that are spread over processes: DTensors, as FSDP2 (`fully_shard`) and tensor parallelism make them.

A rank steps the elements it holds, and holds their state: the first moment as the parameter, the second moment with
the rows. Most blocks lie on one rank. Those that the edges of shards *cut* (a head over two ranks, a row under
``Shard(1)``) get their mean square from all ranks that hold a *piece*: one all-reduce per step and process group, for
all parameters together. Under DDP, and where parameters are replicated, there is nothing to reduce.

Which ranks hold what is read from a parameter's own mesh and placements. The update rule knows nothing of it.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.launcher import Entry
from halfstep.optim.plan import Plan, make_plan, step_plain

Groups = tuple[Any, ...]
"""Process groups, one for each dimension of a mesh, over which something is spread."""


def is_sharded(tensor: object) -> bool:
    """Return whether a tensor is a DTensor; nothing is imported to find out."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


@torch.no_grad()
def local_part(tensor: Any) -> Tensor:
    """Return what this rank holds of a tensor: all of it, unless it is a DTensor."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part.wait() if hasattr(part, "wait") else part  # a collective may be under way


def full_tensor(tensor: Any) -> Tensor:
    """Return a DTensor gathered from its ranks, which must all call this; any other tensor as it is."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return full


def refuse_flat(name: str, param: Tensor, spec: BlockSpec) -> None:
    """Refuse a parameter that was flattened after its blocks were decided, or that FSDP1 has flattened.

    A flat parameter has no rows, so its blocks cannot be told; one second moment for all of it would be another
    optimizer.

    Raises:
        ValueError: names the parameter, its shape and the ways out.
    """
    if getattr(param, "_fsdp_flattened", False):
        raise ValueError(
            f"{name}: a flat parameter of FullyShardedDataParallel, of shape {tuple(param.shape)} on this rank; its "
            "rows cannot be told. Shard with torch.distributed.fsdp.fully_shard (FSDP2) instead."
        )
    if tuple(param.shape) != spec.shape:
        raise ValueError(
            f"{name}: shape {tuple(param.shape)}, but its blocks were decided for shape {spec.shape}. Shard with "
            "torch.distributed.fsdp.fully_shard, which keeps shapes, and make partition and optimizer after it."
        )


def zeros_by_row(param: Any, spec: BlockSpec, dtype: torch.dtype) -> Tensor:
    """Return a second moment of zeros, ``spec.state_shape``, whose rows lie where the parameter's rows lie."""
    if not is_sharded(param):
        return torch.zeros(spec.state_shape, dtype=dtype, device=param.device)
    from torch.distributed.tensor import DTensor, Replicate  # loaded already: the parameter is one

    local = replace(spec, shape=tuple(local_part(param).shape)).state_shape
    placements = [
        placement if placement.is_replicate() or _axis(placement, param) in spec.row_axes else Replicate()
        for placement in param.placements
    ]
    strides = [math.prod(spec.state_shape[axis + 1 :]) for axis in range(len(spec.state_shape))]
    return DTensor.from_local(
        torch.zeros(local, dtype=dtype, device=param.device),
        param.device_mesh,
        placements,
        run_check=False,
        shape=torch.Size(spec.state_shape),
        stride=tuple(strides),
    )


@torch.no_grad()
def assign(target: Any, value: Any) -> None:
    """Copy a tensor into another of the same shape, whatever of the two is spread over ranks, and how."""
    if is_sharded(target):
        if not (
            is_sharded(value)
            and value.device_mesh == target.device_mesh
            and value.placements == target.placements
        ):
            value = full_tensor(value)
            for axis, held in _Spread.of(target).held.items():
                value = value.index_select(axis, held.to(value.device))
    else:
        value = full_tensor(value)
    local_part(target).copy_(local_part(value))


@torch.no_grad()
def are_nonfinite(params: Sequence[Tensor]) -> list[bool]:
    """Return of each parameter whether it holds NaN or infinity, in weight or gradient, on any rank.

    All ranks that share a DTensor must call this.
    """
    counts, groups = [], []
    for param in params:
        tensors = [param] if param.grad is None else [param, param.grad]
        bad = sum(int((~local_part(tensor).isfinite()).any()) for tensor in tensors)
        device = param.device_mesh.device_type if is_sharded(param) else "cpu"  # type: ignore[attr-defined]
        counts.append(torch.tensor([bad], device=device))
        groups.append(tuple(_Spread.of(param).groups.values()) if is_sharded(param) else ())
    _GroupSums(counts, groups).finish()
    return [bool(count) for count in counts]


def plan_for(entries: Sequence[Entry], waiting: list[Tensor]) -> "Plan | ShardedPlan":
    """Decide who steps which parameter; see `halfstep.optim.plan.make_plan`."""
    if any(is_sharded(entry.param) for entry in entries):
        return ShardedPlan(entries, waiting)
    return make_plan(entries, waiting)


class ShardedPlan:
    """The plan of an optimizer that has DTensors among its parameters.

    All ranks of a mesh make it, step it and ask for its sum together, whether or not they hold a part of everything;
    a DTensor has a gradient on all of them or on none.

    Args:
        entries, waiting: as `halfstep.optim.plan.make_plan` gets them.
    """

    def __init__(self, entries: Sequence[Entry], waiting: list[Tensor]) -> None:
        self._shards = [_Shard.of(entry) for entry in entries if is_sharded(entry.param)]
        self._plain = make_plan([entry for entry in entries if not is_sharded(entry.param)], waiting)
        self._whole = {
            groups: make_plan([shard.local for shard in shards if shard.cut is None], [])
            for groups, shards in _by_groups(self._shards, [shard.groups for shard in self._shards])
        }
        self._cut = [shard for shard in self._shards if shard.cut is not None]
        for shard in self._cut:
            if shard.local.group["fused"]:
                raise RuntimeError(
                    f"{shard.local.name}: fused=True, but edges of its shards {tuple(shard.param.placements)} cut its "
                    "blocks, which plain torch steps. Use fused=None."
                )

    def is_current(self) -> bool:
        """Return whether the plan still describes an optimizer with these states."""
        return self._plain.is_current() and all(shard.is_current() for shard in self._shards)

    @torch.no_grad()
    def step(self, scale: float | Tensor) -> None:
        """Update every parameter that has a gradient; ``scale`` is a factor on the gradients."""
        with _local_gradients(self._shards):
            means = [shard.piece_means() for shard in self._cut]
            exchange = _Exchange(self._cut, means)
            self._plain.step(scale)
            for plan in self._whole.values():
                plan.step(scale)
            exchange.finish()
            step_plain([shard.local for shard in self._cut], scale, means)
        torch.autograd.graph.increment_version(
            [shard.param for shard in self._shards if shard.param.grad is not None]
        )

    @torch.no_grad()
    def square_sum(self) -> float | Tensor:
        """Return the sum of the squares of all gradients, on all ranks: each element counts once."""
        total = self._plain.square_sum()
        with _local_gradients(self._shards):
            sums: list[Tensor] = []
            for groups, plan in self._whole.items():
                cut = [shard.local for shard in self._cut if shard.groups == groups]
                here = plan.square_sum() + Plan([], cut, []).square_sum()
                device = next(shard.device for shard in self._shards if shard.groups == groups)
                sums.append(torch.as_tensor(here, dtype=torch.float64, device=device).reshape(1))
        _GroupSums(sums, list(self._whole)).finish()
        for part in sums:
            total = total + (part[0] if part.device.type != "cpu" else part.item())
        return total


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """The blocks of a parameter that lie on several ranks.

    Attributes:
        groups: of the mesh dimensions that cut blocks: these ranks hold the pieces.
        blocks: number of such blocks on these ranks together; they are numbered alike on each.
        block, first_row, elements: of every piece on this rank: its block's number, its first row here, its size.
        row, block_of_row, elements_of_row: of every row here of such a block: the row, its block and that one's size.
    """

    groups: Groups
    blocks: int
    block: Tensor
    first_row: Tensor
    elements: Tensor
    row: Tensor
    block_of_row: Tensor
    elements_of_row: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Shard:
    """A DTensor parameter, and what this rank holds of it.

    Attributes:
        param, state: the optimizer's own.
        local: this rank's part as a parameter of its own, whose blocks are the pieces that lie here.
        groups: over which the parameter is spread.
        device: where these groups communicate.
        cut: how pieces become blocks; None if every block lies on one rank.
    """

    param: Any
    state: dict[str, Any]
    held: tuple[Tensor, ...]
    local: Entry
    groups: Groups
    device: torch.device
    cut: _Cut | None

    @staticmethod
    def of(entry: Entry) -> "_Shard":
        param: Any = entry.param
        spread = _Spread.of(param)
        weight = local_part(param).detach()
        expected = tuple(
            len(spread.held[axis]) if axis in spread.held else n for axis, n in enumerate(param.shape)
        )
        if tuple(weight.shape) != expected:
            raise ValueError(
                f"{entry.name}: this rank holds shape {tuple(weight.shape)}, where placements "
                f"{tuple(param.placements)} of shape {tuple(param.shape)} leave it {expected}. "
                "Distribute it with torch.distributed.tensor.distribute_tensor or fully_shard."
            )
        spec, cut = _pieces(entry.spec, expected, spread)
        moments = {key: local_part(value) for key, value in entry.state.items()}
        return _Shard(
            param=param,
            state=entry.state,
            held=tuple(entry.state.values()),
            local=Entry(entry.name, weight, spec, entry.group, moments),
            groups=tuple(spread.groups.values()),
            device=torch.device(param.device_mesh.device_type),
            cut=cut,
        )

    def is_current(self) -> bool:
        """Return whether weight and moments are still those that the plan was made for."""
        weight = local_part(self.param)
        return (
            weight.data_ptr() == self.local.param.data_ptr()
            and weight.shape == self.local.param.shape
            and len(self.state) == len(self.held)
            and all(now is held for now, held in zip(self.state.values(), self.held, strict=True))
        )

    def piece_means(self) -> Tensor:
        """Return the mean square of the gradient over each piece, in the local shape of the second moment."""
        grad = self.local.param.grad
        if grad is None:
            grad = torch.zeros((), dtype=self.local.param.dtype, device=self.local.param.device)
            grad = grad.expand(self.local.param.shape)
        return self.local.spec.mean_square(grad).contiguous()


class _Exchange:
    """Makes mean squares of pieces those of whole blocks; communication runs from construction to `finish`.

    Args:
        shards: with cut blocks.
        means: of each, changed in place by `finish`.
    """

    def __init__(self, shards: Sequence[_Shard], means: Sequence[Tensor]) -> None:
        self._sums: list[tuple[Tensor, list[tuple[_Cut, Tensor, int]]]] = []
        groups: list[Groups] = []
        pairs = [(shard.cut, shard.device, mean) for shard, mean in zip(shards, means, strict=True)]
        for over, members in _by_groups(pairs, [cut.groups for cut, _, _ in pairs if cut is not None]):
            placed, total = [], 0
            for cut, _, mean in members:
                assert cut is not None
                placed.append((cut, mean, total))
                total += cut.blocks
            dtype = torch.float64 if any(m.dtype == torch.float64 for _, _, m in members) else torch.float32
            sums = torch.zeros(total, dtype=dtype, device=members[0][1])
            for cut, mean, start in placed:
                squares = mean.view(-1)[cut.first_row] * cut.elements
                sums[(start + cut.block).to(sums.device)] = squares.to(sums.device, dtype)
            self._sums.append((sums, placed))
            groups.append(over)
        self._group_sums = _GroupSums([sums for sums, _ in self._sums], groups)

    def finish(self) -> None:
        """Wait for the sums, and put each block's mean into all rows of it that lie here."""
        self._group_sums.finish()
        for sums, placed in self._sums:
            for cut, mean, start in placed:
                here = sums[start : start + cut.blocks].to(mean.device, mean.dtype)
                mean.view(-1)[cut.row] = here[cut.block_of_row] / cut.elements_of_row


class _GroupSums:
    """Adds tensors up over process groups, in place: one all-reduce per group, whatever the number of tensors.

    The first runs while the caller does other work.

    Args:
        values: vectors, on the device on which their groups communicate.
        groups: of each: it is summed over one after the other.
    """

    def __init__(self, values: Sequence[Tensor], groups: Sequence[Groups]) -> None:
        self._rounds = [
            (group, [value for value, over in zip(values, groups, strict=True) if group in over])
            for group in dict.fromkeys(chain.from_iterable(groups))
        ]
        self._first = self._launch(*self._rounds[0]) if self._rounds else None

    def finish(self) -> None:
        for number, (group, values) in enumerate(self._rounds):
            joined, work = self._first if number == 0 and self._first else self._launch(group, values)
            work.wait()
            if len(values) > 1:
                for value, part in zip(values, joined.split([len(v) for v in values]), strict=True):
                    value.copy_(part)

    @staticmethod
    def _launch(group: Any, values: list[Tensor]) -> tuple[Tensor, Any]:
        joined = values[0] if len(values) == 1 else torch.cat(values)
        return joined, torch.distributed.all_reduce(joined, group=group, async_op=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """How a DTensor lies on its mesh.

    Attributes:
        groups: by mesh dimension that splits an axis: its process group.
        axis: by the same dimensions: the axis they split.
        owner: by the same dimensions: for every index along that axis, the coordinate of the ranks that hold it.
        here: by the same dimensions: this rank's coordinate.
        held: by axis: the indices that this rank holds.
    """

    groups: dict[int, Any]
    axis: dict[int, int]
    owner: dict[int, Tensor]
    here: dict[int, int]
    held: dict[int, Tensor]

    @staticmethod
    def of(tensor: Any) -> "_Spread":
        mesh, coordinate = tensor.device_mesh, tensor.device_mesh.get_coordinate()
        if coordinate is None or any(placement.is_partial() for placement in tensor.placements):
            raise ValueError(
                f"a DTensor of shape {tuple(tensor.shape)} with placements {tuple(tensor.placements)} on {mesh}: "
                "this rank must belong to its mesh, and hold Shard or Replicate of it."
            )
        axis = {
            dim: _axis(placement, tensor)
            for dim, placement in enumerate(tensor.placements)
            if not placement.is_replicate() and mesh.size(dim) > 1
        }
        owner: dict[int, Tensor] = {}
        held: dict[int, Tensor] = {}
        for split in sorted(set(axis.values())):
            dims = [dim for dim in axis if axis[dim] == split]
            factors = [getattr(tensor.placements[dim], "split_factor", 1) for dim in dims]
            sizes = [mesh.size(dim) for dim in dims]
            owners = _owners(tensor.shape[split], tuple(zip(sizes, factors, strict=True)))
            owner |= dict(zip(dims, owners, strict=True))
            mine = [owner[dim] == coordinate[dim] for dim in dims]
            held[split] = torch.stack(mine).all(0).nonzero().flatten()
        return _Spread(
            groups={dim: mesh.get_group(dim) for dim in axis},
            axis=axis,
            owner=owner,
            here={dim: coordinate[dim] for dim in axis},
            held=held,
        )


def _axis(placement: Any, tensor: Any) -> int:
    axis: int = placement.dim
    return axis % len(tensor.shape)


@cache
def _owners(size: int, splits: tuple[tuple[int, int], ...]) -> tuple[Tensor, ...]:
    """Return, for every split, the coordinate of the ranks that hold each index of an axis.

    Args:
        size: of the axis.
        splits: (ranks, factor), each made within the parts of the one before. Indices go to ranks in runs of
            ceil(size / ranks), the last of which may be short or empty; with a factor, each of so many such parts does
            (as FSDP splits what tensor parallelism has split already).
    """
    owners = tuple(torch.zeros(size, dtype=torch.int64) for _ in splits)

    def share_out(indices: Tensor, depth: int) -> None:
        if depth == len(splits):
            return
        ranks, factor = splits[depth]
        parts = [_runs(part, ranks) for part in _runs(indices, factor)]
        for rank in range(ranks):
            mine = torch.cat([part[rank] for part in parts])
            owners[depth][mine] = rank
            share_out(mine, depth + 1)

    share_out(torch.arange(size), 0)
    return owners


def _runs(indices: Tensor, number: int) -> list[Tensor]:
    length = -(-len(indices) // number)
    return [indices[k * length : (k + 1) * length] for k in range(number)]


def _pieces(spec: BlockSpec, shape: tuple[int, ...], spread: _Spread) -> tuple[BlockSpec, _Cut | None]:
    """Return the pieces of blocks that lie on this rank as blocks of their own, and which of them are cut.

    Args:
        spec: of the whole parameter.
        shape: of this rank's part.
    """
    local = replace(spec, shape=shape)
    across = [dim for dim, axis in spread.axis.items() if axis in spec.row_axes]
    inside = [dim for dim, axis in spread.axis.items() if axis not in spec.row_axes]
    if math.prod(spec.shape) == 0 or not (inside or (spec.sections and across)):
        return local, None

    block_of_row = _block_of_row(spec)  # of the whole parameter
    rows_of_block = torch.bincount(block_of_row)
    owner_of_row = {dim: _by_row(spec, spread.axis[dim], spread.owner[dim]) for dim in across}
    is_split = {
        dim: _extreme(block_of_row, owner, "amin") != _extreme(block_of_row, owner, "amax")
        for dim, owner in owner_of_row.items()
    }
    is_here = torch.ones(len(block_of_row), dtype=torch.bool)  # rows of this rank
    is_near = torch.ones(
        len(block_of_row), dtype=torch.bool
    )  # rows of the ranks that hold pieces of its blocks
    for dim, owner in owner_of_row.items():
        is_here &= owner == spread.here[dim]
        if not is_split[dim].any():
            is_near &= owner == spread.here[dim]

    block_here = block_of_row[is_here]
    block, rows = torch.unique_consecutive(block_here, return_counts=True)
    if spec.sections:
        runs = [(size, len(list(run))) for size, run in groupby(rows.tolist())]
        local = replace(local, sections=tuple((size * count, size) for size, count in runs))
    is_cut = torch.stack([torch.full((len(rows_of_block),), bool(inside)), *is_split.values()]).any(0)
    if not is_cut.any():
        return local, None

    shared = torch.zeros(len(rows_of_block), dtype=torch.bool)
    shared[block_of_row[is_near]] = True
    shared &= is_cut
    number = shared.cumsum(0) - 1
    width, width_here = (
        math.prod(n for axis, n in enumerate(s.shape) if axis not in s.row_axes) for s in (spec, local)
    )
    piece, row = is_cut[block], is_cut[block_here].nonzero().flatten()
    return local, _Cut(
        groups=tuple(
            group for dim, group in spread.groups.items() if dim in inside or bool(is_split[dim].any())
        ),
        blocks=int(shared.sum()),
        block=number[block[piece]],
        first_row=(rows.cumsum(0) - rows)[piece],
        elements=rows[piece] * width_here,
        row=row,
        block_of_row=number[block_here[row]],
        elements_of_row=rows_of_block[block_here[row]] * width,
    )


def _block_of_row(spec: BlockSpec) -> Tensor:
    """Return the number of every row's block."""
    if not spec.sections:
        return torch.arange(math.prod(spec.state_shape))
    sizes = [torch.full((rows // size,), size) for rows, size in spec.sections]
    return torch.arange(spec.blocks).repeat_interleave(torch.cat(sizes))


def _by_row(spec: BlockSpec, axis: int, values: Tensor) -> Tensor:
    """Return values along an axis for every row, in C order of the rows."""
    shape = [-1 if k == axis else 1 for k in range(len(spec.shape))]
    return values.view(shape).expand(spec.state_shape).reshape(-1)


def _extreme(block_of_row: Tensor, values: Tensor, which: str) -> Tensor:
    """Return the smallest or largest value in every block."""
    out = torch.zeros(int(block_of_row[-1]) + 1, dtype=values.dtype)
    return out.scatter_reduce(0, block_of_row, values, which, include_self=False)


def _by_groups(items: Iterable[Any], groups: Iterable[Groups]) -> list[tuple[Groups, list[Any]]]:
    """Return items with the same groups together, in the order of their first."""
    found: dict[Groups, list[Any]] = {}
    for item, over in zip(items, groups, strict=True):
        found.setdefault(over, []).append(item)
    return list(found.items())


@contextmanager
def _local_gradients(shards: Sequence[_Shard]) -> Iterator[None]:
    """Lend every local part its part of the gradient."""
    try:
        for shard in shards:
            grad: Any = shard.param.grad
            if grad is not None:
                if grad.placements != shard.param.placements:
                    grad = grad.redistribute(placements=shard.param.placements)
                shard.local.param.grad = local_part(grad)
        yield
    finally:
        for shard in shards:
            shard.local.param.grad = None
