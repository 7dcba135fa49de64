"""Programs under ``torchrun``: which process this is, and how several of them join and part.

``torchrun --nproc-per-node N -m halfstep VERB ...`` starts the same command N times. The first rank speaks, writes and
decides; the others are silent, and end when it ends.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from halfstep.errors import RankLostError

if TYPE_CHECKING:
    from halfstep.training.ranks import Ranks

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world_size() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in NEEDED) else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


@contextlib.contextmanager
def speaking_first() -> Iterator[None]:
    """Let the first rank write to the terminal, and no other."""
    if rank() == 0:
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def joined() -> Iterator["Ranks"]:
    """Yield the processes of this job; they wait for each other at both ends.

    Ctrl-C is the first rank's to handle: it writes a checkpoint and ends, and the others end with it. Torchrun ends
    all ranks where one fails; the first then raises `RankLostError`, so that its folder is left in order.
    """
    import torch.distributed as dist  # heavy

    from halfstep.training.ranks import ALONE, Ranks

    if world_size() == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    if rank() == 0:
        signal.signal(signal.SIGTERM, _end)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield Ranks.of(dist.group.WORLD)
        with contextlib.suppress(RuntimeError):  # whoever leaves too early takes nothing with it any more
            dist.barrier()
    finally:
        dist.destroy_process_group()


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the form of all handlers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RankLostError(
        "torchrun ends this training (SIGTERM), as it does where a process is gone. Its own message or that of torchrun "
        "says why."
    )
