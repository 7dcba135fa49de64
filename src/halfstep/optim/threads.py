"""Threads for compiled code: those that torch has already.

A second pool of threads would fight with torch's for the processors: after a backward pass torch's threads wait
spinning for a while, and so do those of any other pool.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Parallel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


@dataclass(slots=True)
class _Process:
    """What a forked child must know: the threads of its parent do not exist there."""

    is_forked: bool = False

    def forked(self) -> None:
        self.is_forked = True


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forked)


def usable_threads() -> int:
    """Return the number of threads torch uses; 1 in a forked process."""
    return 1 if _process.is_forked else torch.get_num_threads()


@cache
def torch_library() -> Any:
    """Return torch's C library, by which those it is linked with are found too; None where it goes by another name."""
    try:
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    except OSError:
        return None


@cache
def parallel() -> Any:
    """Return a C function ``parallel(work, data, threads, 0)`` that calls ``work(data)`` on so many threads, or on fewer.

    It is ``GOMP_parallel`` of the OpenMP library that torch is linked with, or, where that has none, Python's threads.
    """
    return getattr(torch_library(), "GOMP_parallel", None) or python_threads()


def python_threads() -> Any:
    """Return such a function that needs no OpenMP."""
    pool = ThreadPoolExecutor(thread_name_prefix="halfstep")

    def run(work: int, data: int, threads: int, _: int) -> None:
        function: Callable[[int], None] = _Work(work)
        others = [pool.submit(function, data) for _ in range(threads - 1)]
        function(data)
        for other in others:
            other.result()

    return _Parallel(run)


def address(function: Any) -> int:
    """Return where a C function stands."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0
