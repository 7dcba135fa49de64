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
    return _kept(cfunc, function, sources, types.void(types.int64), _OPTIONS)


def python_function(function: Callable[..., Any], sources: str, form: Any, *, lock: bool) -> Any:
    """Compile a function for Python to call, as directly as it calls its own functions written in C.

    Numba's dispatcher would look for a form of the function that fits the arguments, and ctypes converts them in
    steps: after a backward pass, when their code has left the caches, either takes longer than all looks of a small step.

    Args:
        function, sources: as for `c_function`.
        form: the numba types of its result and arguments.
        lock: keep Python's lock meanwhile.
    """
    options = _OPTIONS | {"nogil": not lock, "no_cfunc_wrapper": True}
    return _kept(njit, function, sources, form, options).overloads[form.args].entry_point


def _kept(
    compiler: Any, function: Callable[..., Any], sources: str, form: Any, options: dict[str, Any]
) -> Any:
    """Compile a function, or take it from the disk."""
    function.__qualname__ = f"{function.__qualname__}_{sources}"
    try:
        return compiler(form, cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written to: compile in every process
        return compiler(form, **options)(function)
