"""Watching tensors that users may change by hand, and finding gradients, without a Python call per tensor.

Torch's C interface knows a tensor by a handle: the address of a C++ ``at::Tensor``. The Python object of a tensor holds
one; where, is found by comparison with handles that torch gives out, for every tensor. So what is read is what torch
itself would say, and where anything is not as expected there is no `Watch`, and Python asks tensor by tensor.
"""

import ctypes
import importlib
import importlib.util
import operator
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from halfstep.optim.table import CONTAINER_RECORD, CONTENTS_RECORD, ITEM_RECORD, LOOK_RECORD, WATCHED_RECORD
from halfstep.optim.threads import address, torch_library

GRAD = "_ZNK3c1010TensorImpl4gradEv"
"""``const at::Tensor& c10::TensorImpl::grad() const``, which every C++ extension calls. The C interface has nothing like
it and `BUMP_VERSION`, so they are used with versions of torch that are known to declare them so."""
BUMP_VERSION = "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE"
"""``void torch::autograd::impl::bump_version(const at::Tensor&)``; it throws for tensors of inference mode only."""

_KNOWN = (2, 6), (2, 14)  # from, and up to but without
_VERSIONED = (3, 11), (3, 14)  # Pythons whose dictionaries have a version
_KEYS = ("exp_avg", "exp_avg_sq", "step")
_ASKED = ("data_ptr", "sizes", "strides", "dim", "layout", "dtype")


class Watch:
    """Looks at some contiguous parameters and their moments.

    Args:
        params: with float32 or other moments; they, and the moments, must outlive this.
        moments: of each, first, second and step count.
        tensors: the table with their addresses, whose ``grad`` is written.

    Raises:
        LookupError: this build of torch does not offer what is needed, or a parameter has no version.
    """

    def __init__(
        self, params: Sequence[Tensor], moments: Sequence[tuple[Tensor, ...]], tensors: npt.NDArray[Any]
    ) -> None:
        if any(param.is_inference() for param in params):
            raise LookupError("a tensor of inference mode")
        self._watched = np.zeros(len(params), WATCHED_RECORD)
        self._watched["param"] = _handles(params)
        for number, key in enumerate(_KEYS):
            self._watched[key] = _handles([found[number] for found in moments])
        self._watched["elements"] = [param.numel() for param in params]
        self._look = np.zeros(1, LOOK_RECORD)
        for name, value in _torch_functions().items():
            self._look[name] = value
        self._look["expected_dtype"] = _code_of(params[0].dtype)
        self._look["tensors"], self._look["watched"] = tensors.ctypes.data, self._watched.ctypes.data
        self._look["count"] = len(params)
        self._held = (params, moments, tensors)
        self._check, self._find, self._count, _ = _look()
        self._address = self._look.ctypes.data
        in_python = [0 if param.grad is None else param.grad.data_ptr() for param in params]
        if not self.are_in_place() or (self.find_gradients() >= 0 and tensors["grad"].tolist() != in_python):
            raise LookupError(f"torch {torch.__version__}")

    def are_in_place(self) -> bool:
        """Return whether weights and moments are where the table says, and weights contiguous and as large as they were."""
        same: bool = self._check(self._address)
        return same

    def find_gradients(self) -> int:
        """Write the addresses of gradients into the table; return how many are missing, or -1: one is not as its weight, ask Python."""
        missing: int = self._find(self._address)
        return missing

    def count_changes(self) -> None:
        """Tell autograd that every parameter whose gradient is in the table was changed in place."""
        self._count(self._address)


class Contents:
    """Remembers what dictionaries and lists hold, and looks whether it is still the same, object by object.

    Args:
        dictionaries: each with those of its keys that matter.
        lists: all of their elements matter.
        mapping: all of its values matter, in their order.
        compiled: look from compiled code.
    """

    def __init__(
        self,
        dictionaries: Iterable[tuple[dict[str, Any], Sequence[str]]],
        lists: Iterable[list[Any]],
        mapping: dict[Any, Any],
        *,
        compiled: bool,
    ) -> None:
        self._mapping, self._values = mapping, list(mapping.values())
        self._dictionaries = [(found, [(key, found[key]) for key in keys]) for found, keys in dictionaries]
        self._lists = [(found, list(found)) for found in lists]
        containers = [
            mapping,
            *(found for found, _ in self._dictionaries),
            *(found for found, _ in self._lists),
        ]
        self._look = None
        if compiled and all(isinstance(found, dict | list) for found in containers):
            self._look = _look()[3]
            self._write_tables()

    def _write_tables(self) -> None:
        python = ctypes.pythonapi
        size_of, in_list, in_dict, following = (
            address(function)
            for function in (python.PyList_Size, python.PyList_GetItem, python.PyDict_GetItemWithError, python.PyDict_Next)
        )  # fmt: skip
        rows: list[tuple[int, ...]] = []
        ranges: list[tuple[int, ...]] = []
        for found, held in self._lists:
            ranges.append((0, -1, len(rows), len(rows) + 1 + len(held)))
            rows.append((size_of, id(found), 0, len(held)))
            rows += [(in_list, id(found), k, id(value)) for k, value in enumerate(held)]
        for known, items in self._dictionaries:
            ranges.append((_version_of(known), -1, len(rows), len(rows) + len(items)))
            rows += [(in_dict, id(known), id(key), id(value)) for key, value in items]
        self._containers, self._items = np.array(ranges, CONTAINER_RECORD), np.array(rows, ITEM_RECORD)
        self._known = np.array([id(value) for value in self._values], np.int64)
        self._contents = np.zeros(1, CONTENTS_RECORD)
        for name, number in (
            ("containers", self._containers.ctypes.data), ("container_count", len(ranges)), ("items", self._items.ctypes.data),
            ("mapping", id(self._mapping)), ("values", self._known.ctypes.data), ("value_count", len(self._known)),
            ("mapping_version", _version_of(self._mapping)), ("mapping_seen", -1), ("next", following),
        ):  # fmt: skip
            self._contents[name] = number
        self._address = self._contents.ctypes.data

    def are_same(self) -> bool:
        """Return whether everything holds what it held."""
        if self._look is not None:
            same: bool = self._look(self._address)
            return same
        return (
            all(_are_same(found, held) for found, held in self._lists)
            and all(found.get(key) is value for found, items in self._dictionaries for key, value in items)
            and _are_same(self._mapping.values(), self._values)
        )


def _are_same(found: Collection[Any], known: Sequence[Any]) -> bool:
    """Return whether two collections hold the same objects."""
    return len(found) == len(known) and all(map(operator.is_, found, known))


@cache
def _look() -> tuple[Any, Any, Any, Any]:
    """Return the compiled functions; imported on first use: they take a moment."""
    found: tuple[Any, Any, Any, Any] = importlib.import_module("halfstep.optim.kernels.look").functions()
    return found


def _version_of(container: Any) -> int:
    """Return where Python counts the changes of a dictionary, or 0."""
    return id(container) + _version_offset() if isinstance(container, dict) and _version_offset() else 0


@cache
def _version_offset() -> int:
    """Return where in a dictionary its version stands, a number that every change renews (PEP 509), or 0.

    Python has it until 3.13; whether it is there is tried.
    """
    if not _VERSIONED[0] <= sys.version_info[:2] < _VERSIONED[1] or sys.implementation.name != "cpython":
        return 0
    offset = object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)  # after the number of items
    tried: dict[str, int] = {"a": 1, "b": 2}
    changes: tuple[Callable[[], Any], ...] = (
        lambda: tried.__setitem__("a", 3), lambda: tried.__setitem__("c", 4), lambda: tried.pop("b"),
        lambda: tried.update(a=5), lambda: tried.setdefault("d", 6), tried.popitem, tried.clear,
    )  # fmt: skip
    version = ctypes.c_uint64.from_address(id(tried) + offset)
    for change in changes:
        before = version.value
        if tried.get("a") is None or version.value != before:  # looking is no change
            return 0
        change()
        if version.value == before:
            return 0
    return offset


@cache
def has_numba() -> bool:
    """Return whether the compiled kernels can be had; says once what is lost without them."""
    if importlib.util.find_spec("numba") is not None:
        return True
    warnings.warn(
        "numba is absent: AdamMini steps in plain torch, several times slower. pip install numba",
        stacklevel=2,
    )
    return False


@cache
def _torch_functions() -> dict[str, int]:
    """Return addresses of torch's functions, and its code of the strided layout."""
    version = tuple(int(number) for number in torch.__version__.split(".")[:2])
    if not _KNOWN[0] <= version < _KNOWN[1]:
        raise LookupError(f"torch {torch.__version__}")
    library = torch_library()
    try:
        found = {name: address(getattr(library, f"aoti_torch_get_{name}")) for name in _ASKED}
        found["is_defined"] = address(library.aoti_torch_is_defined)
        found["grad"] = address(getattr(library, GRAD))
        found["bump_version"] = address(getattr(library, BUMP_VERSION))
        return found | {"expected_layout": library.aoti_torch_layout_strided()}
    except AttributeError as error:
        raise LookupError(f"torch {torch.__version__}") from error


def _code_of(dtype: torch.dtype) -> int:
    """Return torch's code of a dtype."""
    code: int = getattr(torch_library(), f"aoti_torch_dtype_{str(dtype).removeprefix('torch.')}")()
    return code


def _handles(tensors: Sequence[Tensor]) -> list[int]:
    """Return the addresses of the C++ tensors inside Python's."""
    try:
        given = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    except AttributeError as error:
        raise LookupError("torch") from error
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    itself = [ctypes.c_int64.from_address(pointer(handle, None)).value for handle in given]
    torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(given)
    for offset in range(object.__basicsize__, type(tensors[0]).__basicsize__, 8):
        found = [id(tensor) + offset for tensor in tensors]
        if [ctypes.c_int64.from_address(place).value for place in found] == itself:
            return found
    raise LookupError("handle")
