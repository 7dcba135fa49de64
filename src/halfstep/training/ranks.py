"""Several processes that train one model, each on its own rows of the same batches.

Of every batch of n rows that one process would take, rank r of W takes rows r, r + W, ... A mean or a sum over the batch
is put together from the ranks' parts, so a loss is that of the whole batch on every rank:

    mean over the batch = sum over r of (n_r / n) mean_r

What autograd says of it on a rank is the part of the gradient that comes through that rank's rows. `Ranks.add_up` adds
the parts before they are clipped and applied. So losses and updates do not depend on W, but for rounding; losses that
divide by statistics of their batch included.

The first rank alone writes files and decides; `Ranks.from_first` tells the others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from halfstep.errors import HalfstepError, RankLostError

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The processes of one training, as one of them sees them.

    All must call the same methods in the same order. Each method may raise `RankLostError`.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        group: the process group they talk over; None for a single process.
    """

    rank: int = 0
    world: int = 1
    group: Any = None

    @classmethod
    def of(cls, group: Any) -> "Ranks":
        """Return the processes of a process group of torch."""
        return cls(rank=dist.get_rank(group), world=dist.get_world_size(group), group=group)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and decides."""
        return self.rank == 0

    def share(self, size: int) -> "Share":
        """Return this rank's part of a batch of so many rows."""
        count = len(range(self.rank, size, self.world))
        rows = slice(self.rank, None, self.world) if count else slice(0, 1)
        return Share(ranks=self, rows=rows, fraction=count / size)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over ranks; gradients go to this rank's own term."""
        if self.world == 1:
            return value
        total: Tensor = _Total.apply(value, self.group)  # type: ignore[no-untyped-call]
        return total

    def add_up(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the sums of gradients over ranks, by one exchange; None, which is None on every rank, stays."""
        given = [gradient for gradient in gradients if gradient is not None]
        if self.world == 1 or not given:
            return list(gradients)
        joined = _all_reduced(torch.cat([gradient.reshape(-1) for gradient in given]), self.group)
        parts = iter(joined.split([gradient.numel() for gradient in given]))
        return [None if gradient is None else next(parts).view_as(gradient) for gradient in gradients]

    def from_first(
        self, call: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Value:
        """Return what a call gives on the first rank; the others do not make it."""
        if self.world == 1:
            return call(*args, **kwargs)
        held: list[Any] = [call(*args, **kwargs) if self.is_first else None]
        with _answered():
            dist.broadcast_object_list(held, group=self.group, group_src=0)
        return cast("Value", held[0])

    def agreed(self, call: Callable[[], Value]) -> Value:
        """Return what a call gives on this rank, if it fails on none.

        Raises:
            HalfstepError: that of this rank; where only other ranks failed, one that names the first of them.
        """
        if self.world == 1:
            return call()
        held, failure = None, None
        try:
            held = call()
        except HalfstepError as error:
            failure = error
        messages: list[str | None] = [None] * self.world
        with _answered():
            dist.all_gather_object(messages, None if failure is None else str(failure), group=self.group)
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise HalfstepError(f"rank {rank}: {message}")
        return cast("Value", held)


ALONE = Ranks()
"""A single process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """This rank's rows of one batch.

    Attributes:
        ranks: all processes.
        rows: those of this rank. One that a small batch leaves without rows takes the first, which counts for nothing.
        fraction: of the batch's rows that count here.
    """

    ranks: Ranks
    rows: slice
    fraction: float

    def mean(self, here: Tensor) -> Tensor:
        """Return a mean over the batch from the mean over this rank's rows."""
        return self.ranks.total(here * self.fraction)

    def sum(self, here: Tensor) -> Tensor:
        """Return a sum over the batch from the sum over this rank's rows."""
        return self.ranks.total(here if self.fraction else here * 0)

    def deviation(self, values: Tensor) -> Tensor:
        """Return the biased standard deviation over the batch, from the values of this rank's rows."""
        centred = values - self.mean(values.mean())
        return self.mean(centred.square().mean()).sqrt()

    def gathered(self, here: Tensor, size: int) -> Tensor:
        """Return all rows of the batch, in its order, from those of this rank; no gradient passes.

        Args:
            size: rows of the batch.
        """
        rows = here.new_zeros(size, *here.shape[1:])
        rows[self.rows] = here.detach()
        return self.sum(rows)


WHOLE = ALONE.share(1)
"""All rows of any batch."""


class _Total(torch.autograd.Function):
    """Sum over ranks, whose gradient is that of this rank's term; `Ranks.add_up` adds those of the others."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:  # noqa: ARG004  # torch's signature
        return _all_reduced(value.detach().clone(), group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradients[0], None


def _all_reduced(value: Tensor, group: Any) -> Tensor:
    """Return the sum over ranks, in the memory of the value."""
    with _answered():
        dist.all_reduce(value, group=group)
    return value


@contextmanager
def _answered() -> Iterator[None]:
    """Name what torch raises when another process is gone or silent."""
    try:
        yield
    except RuntimeError as error:
        # "[.../pair.cc:553] Connection closed by peer. This is typically ..."
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        raise RankLostError(
            f"another process of this training no longer answers ({reason}). Its own message or that of torchrun says why."
        ) from error
