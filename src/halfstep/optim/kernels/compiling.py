"""How functions are compiled, and kept on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import cfunc, njit, types

from halfstep.optim.kernels.storage import FREE

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": set(FREE)}  # a division by 0 is no error

_INNER: dict[str, Any] = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

inner: Any = njit(**_INNER)
"""Compile a function that compiled code alone calls."""


def hash_of(*sources: Path) -> str:
    """Return a hash of what stands in some files."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def c_function(function: Callable[[int], None], sources: str) -> Any:
    """Compile a function of an address into a C function, whose code is kept on disk.

    Args:
        function: its ``__qualname__`` is changed: the cache tells functions apart by file, name and what they enclose.
        sources: a hash of all files whose code goes into it.
    """
    function.__qualname__ = f"{function.__qualname__}_{sources}"
    form = types.void(types.int64)
    try:
        return cfunc(form, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder that can be written to: compile in every process
        return cfunc(form, **_OPTIONS)(function)
