"""Watching tensors that users may change by hand, and finding gradients, without a Python call per tensor.

Torch's C interface knows a tensor by a handle: the address of a C++ ``at::Tensor``. The Python object of a tensor holds
one; where, is found by comparison with handles that torch gives out, for every tensor. So what is read is what torch
itself would say, and where anything is not as expected there is no `Watch`, and Python asks tensor by tensor.
"""

import ctypes
import importlib
import importlib.util
import operator
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from halfstep.optim.table import CONTENTS_RECORD, ITEM_RECORD, LOOK_RECORD, WATCHED_RECORD
from halfstep.optim.threads import address, torch_library

GRAD = "_ZNK3c1010TensorImpl4gradEv"
"""``const at::Tensor& c10::TensorImpl::grad() const``, which every C++ extension calls. The C interface has nothing like
it, so it is used with versions of torch that are known to declare it so."""

_KNOWN = (2, 6), (2, 14)  # from, and up to but without
_KEYS = ("exp_avg", "exp_avg_sq", "step")
_ASKED = ("data_ptr", "sizes", "strides", "dim", "layout", "dtype")


class Watch:
    """Looks at some contiguous parameters and their moments.

    Args:
        params: with float32 or other moments; they, and the moments, must outlive this.
        moments: of each, first, second and step count.
        tensors: the table with their addresses, whose ``grad`` is written.

    Raises:
        LookupError: this build of torch does not offer what is needed.
    """

    def __init__(
        self, params: Sequence[Tensor], moments: Sequence[tuple[Tensor, ...]], tensors: npt.NDArray[Any]
    ) -> None:
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
        self._check, self._find, _ = _look()
        self._address = self._look.ctypes.data
        self._result, self._missing = self._look["result"], self._look["missing"]
        in_python = [0 if param.grad is None else param.grad.data_ptr() for param in params]
        if not self.are_in_place() or (self.find_gradients() and tensors["grad"].tolist() != in_python):
            raise LookupError(f"torch {torch.__version__}")

    def are_in_place(self) -> bool:
        """Return whether weights and moments are where the table says, and weights contiguous and as large as they were."""
        self._check(self._address)
        return bool(self._result[0])

    def find_gradients(self) -> bool:
        """Write the addresses of gradients into the table; False: one is not as its weight, ask Python."""
        self._find(self._address)
        return bool(self._result[0])

    def has_all_gradients(self) -> bool:
        """Return whether `find_gradients` found none missing."""
        return not self._missing[0]


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
        self._lists = [(found, len(found)) for found in lists]
        self.mapping, self._values = mapping, list(mapping.values())
        places: list[tuple[Any, Any]] = [(found, key) for found, keys in dictionaries for key in keys]
        self._items = [(found, key, found[key]) for found, key in places]
        self._items += [(found, k, found[k]) for found, length in self._lists for k in range(length)]
        self._look = None
        containers = [mapping, *(found for found, _, _ in self._items)]
        if compiled and all(isinstance(found, dict | list) for found in containers):
            self._look = _look()[2]
            self._write_tables()

    def _write_tables(self) -> None:
        python = ctypes.pythonapi
        in_dict, in_list = address(python.PyDict_GetItemWithError), address(python.PyList_GetItem)
        rows = [
            (in_list, id(found), key, id(value))
            if isinstance(found, list)
            else (in_dict, id(found), id(key), id(value))
            for found, key, value in self._items
        ]
        self._table = np.array(rows, ITEM_RECORD)
        self._known = np.array([id(value) for value in self._values], np.int64)
        self._contents = np.zeros(1, CONTENTS_RECORD)
        for name, number in (
            ("items", self._table.ctypes.data), ("item_count", len(rows)), ("mapping", id(self.mapping)),
            ("values", self._known.ctypes.data), ("value_count", len(self._known)), ("next", address(python.PyDict_Next)),
        ):  # fmt: skip
            self._contents[name] = number
        self._address, self._result = self._contents.ctypes.data, self._contents["result"]

    def are_same(self) -> bool:
        """Return whether everything holds what it held."""
        if len(self.mapping) != len(self._values):
            return False
        for found, length in self._lists:
            if len(found) != length:
                return False
        if self._look is None:
            return all(
                (found.get(key) if isinstance(found, dict) else found[key]) is value
                for found, key, value in self._items
            ) and all(map(operator.is_, self.mapping.values(), self._values))
        self._look(self._address)
        return bool(self._result[0])


@cache
def _look() -> tuple[Any, Any, Any]:
    """Return the compiled functions; they keep Python's lock, so no other thread changes anything meanwhile."""
    form = ctypes.PYFUNCTYPE(None, ctypes.c_int64)
    check, find, same = importlib.import_module("halfstep.optim.kernels.look").functions()
    return form(check.address), form(find.address), form(same.address)


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
