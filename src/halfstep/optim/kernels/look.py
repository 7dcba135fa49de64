"""Where tensors are, asked for many at once from compiled code.

Torch's stable C interface is asked, which C++ programs compiled by ``torch.compile`` use too; from Python a question costs
ten times as much, and more after a backward pass, when its objects have left the caches.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from halfstep.optim.kernels.compiling import hash_of, inner, python_function
from halfstep.optim.kernels.storage import (
    address_of,
    ask,
    call,
    call_for_word,
    fetch,
    get,
    load,
    put,
    record_at,
)
from halfstep.optim.table import (
    CONTAINER_RECORD,
    CONTENTS_RECORD,
    ITEM_RECORD,
    LOOK_RECORD,
    TENSOR_RECORD,
    WATCHED_RECORD,
)

_SOURCES = [Path(__file__), Path(__file__).with_name("storage.py"), Path(__file__).parents[1] / "table.py"]
_HASH = hash_of(*_SOURCES)


@inner
def _is_at(look, handle, expected):
    """Return whether a tensor's memory is where it is expected."""
    code = ask(get(LOOK_RECORD, look, "data_ptr"), handle, address_of(LOOK_RECORD, look, "answer"))
    return code == 0 and get(LOOK_RECORD, look, "answer") == expected


@inner
def _contiguous_elements(look, handle):
    """Return a tensor's number of elements, or -1 where it is not contiguous."""
    answer = address_of(LOOK_RECORD, look, "answer")
    code = ask(get(LOOK_RECORD, look, "dim"), handle, answer)
    dims = get(LOOK_RECORD, look, "answer")
    code |= ask(get(LOOK_RECORD, look, "sizes"), handle, answer)
    sizes = get(LOOK_RECORD, look, "answer")
    code |= ask(get(LOOK_RECORD, look, "strides"), handle, answer)
    strides = get(LOOK_RECORD, look, "answer")
    if code != 0:
        return -1
    elements = 1
    for k in range(dims - 1, -1, -1):
        size = load(np.int64, sizes, k)
        if size != 1 and load(np.int64, strides, k) != elements:
            return -1
        elements *= size
    return elements


@inner
def _is_kind(look, handle):
    """Return whether a tensor is strided and of the dtype that is expected."""
    answer = address_of(LOOK_RECORD, look, "answer")
    put(LOOK_RECORD, look, "answer", 0)
    code = ask(get(LOOK_RECORD, look, "layout"), handle, answer)
    layout = get(LOOK_RECORD, look, "answer")
    code |= ask(get(LOOK_RECORD, look, "dtype"), handle, answer)
    return (
        code == 0
        and layout == get(LOOK_RECORD, look, "expected_layout")
        and get(LOOK_RECORD, look, "answer") == get(LOOK_RECORD, look, "expected_dtype")
    )


@inner
def _fetch_tensor(handle):
    """Ask for the lines of memory in which torch keeps a tensor's form and place."""
    itself = load(np.int64, handle, 0)
    for line in range(4):
        fetch(itself + 64 * line)


def _check_places(look):
    """Return whether all weights and moments are where the table says; weights must be contiguous."""
    for k in range(get(LOOK_RECORD, look, "count")):  # out of the caches, waits would follow one another
        watched = record_at(WATCHED_RECORD, get(LOOK_RECORD, look, "watched"), k)
        _fetch_tensor(get(WATCHED_RECORD, watched, "param"))
        _fetch_tensor(get(WATCHED_RECORD, watched, "exp_avg"))
        _fetch_tensor(get(WATCHED_RECORD, watched, "exp_avg_sq"))
        _fetch_tensor(get(WATCHED_RECORD, watched, "step"))
    for k in range(get(LOOK_RECORD, look, "count")):
        tensor = record_at(TENSOR_RECORD, get(LOOK_RECORD, look, "tensors"), k)
        watched = record_at(WATCHED_RECORD, get(LOOK_RECORD, look, "watched"), k)
        param = get(WATCHED_RECORD, watched, "param")
        if not (
            _is_at(look, param, get(TENSOR_RECORD, tensor, "param"))
            and _is_at(look, get(WATCHED_RECORD, watched, "exp_avg"), get(TENSOR_RECORD, tensor, "exp_avg"))
            and _is_at(
                look, get(WATCHED_RECORD, watched, "exp_avg_sq"), get(TENSOR_RECORD, tensor, "exp_avg_sq")
            )
            and _is_at(look, get(WATCHED_RECORD, watched, "step"), get(TENSOR_RECORD, tensor, "step"))
            and _contiguous_elements(look, param) == get(WATCHED_RECORD, watched, "elements")
        ):
            return False
    return True


def _find_gradients(look):
    """Write the addresses of all gradients, 0 where there is none; return how many are missing, -1 if one is not as its weight."""
    answer = address_of(LOOK_RECORD, look, "answer")
    missing = 0
    for k in range(get(LOOK_RECORD, look, "count")):
        tensor = record_at(TENSOR_RECORD, get(LOOK_RECORD, look, "tensors"), k)
        watched = record_at(WATCHED_RECORD, get(LOOK_RECORD, look, "watched"), k)
        itself = load(np.int64, get(WATCHED_RECORD, watched, "param"), 0)
        grad = call_for_word(get(LOOK_RECORD, look, "grad"), (itself,))
        put(LOOK_RECORD, look, "answer", 0)
        if ask(get(LOOK_RECORD, look, "is_defined"), grad, answer) != 0:
            return -1
        if get(LOOK_RECORD, look, "answer") == 0:
            missing += 1
            put(TENSOR_RECORD, tensor, "grad", 0)
            continue
        if (
            not _is_kind(look, grad)
            or _contiguous_elements(look, grad) != get(WATCHED_RECORD, watched, "elements")
            or ask(get(LOOK_RECORD, look, "data_ptr"), grad, answer) != 0
        ):
            return -1
        put(TENSOR_RECORD, tensor, "grad", get(LOOK_RECORD, look, "answer"))
    return missing


def _count_changes(look):
    """Renew the version of every parameter that has a gradient in the table."""
    for k in range(get(LOOK_RECORD, look, "count")):
        if get(TENSOR_RECORD, record_at(TENSOR_RECORD, get(LOOK_RECORD, look, "tensors"), k), "grad") != 0:
            watched = record_at(WATCHED_RECORD, get(LOOK_RECORD, look, "watched"), k)
            call(get(LOOK_RECORD, look, "bump_version"), get(WATCHED_RECORD, watched, "param"))


@inner
def _version(address):
    """Return a dictionary's version, or -1 where there is none."""
    return np.int64(-1) if address == 0 else load(np.int64, address, 0)


@inner
def _holds(contents, begin, end):
    """Return whether items are what they were."""
    for k in range(begin, end):
        item = record_at(ITEM_RECORD, get(CONTENTS_RECORD, contents, "items"), k)
        place = (get(ITEM_RECORD, item, "container"), get(ITEM_RECORD, item, "key"))
        if call_for_word(get(ITEM_RECORD, item, "getter"), place) != get(ITEM_RECORD, item, "value"):
            return False
    return True


@inner
def _maps_to_same(contents):
    """Return whether the mapping's values are what they were, in their order."""
    values, held = address_of(CONTENTS_RECORD, contents, "held"), get(CONTENTS_RECORD, contents, "values")
    position = address_of(CONTENTS_RECORD, contents, "position")
    put(CONTENTS_RECORD, contents, "position", 0)
    arguments = (get(CONTENTS_RECORD, contents, "mapping"), position, np.int64(0), values)
    for k in range(get(CONTENTS_RECORD, contents, "value_count")):
        if call_for_word(get(CONTENTS_RECORD, contents, "next"), arguments) & 0xFFFFFFFF == 0:  # an int
            return False
        if get(CONTENTS_RECORD, contents, "held") != load(np.int64, held, k):
            return False
    return call_for_word(get(CONTENTS_RECORD, contents, "next"), arguments) & 0xFFFFFFFF == 0


def _check_contents(contents):
    """Return whether dictionaries and lists hold what they held."""
    containers = get(CONTENTS_RECORD, contents, "containers")
    for k in range(get(CONTENTS_RECORD, contents, "container_count")):
        fetch(get(CONTAINER_RECORD, record_at(CONTAINER_RECORD, containers, k), "version"))
    for k in range(get(CONTENTS_RECORD, contents, "container_count")):
        container = record_at(CONTAINER_RECORD, containers, k)
        now = _version(get(CONTAINER_RECORD, container, "version"))
        if now < 0 or now != get(CONTAINER_RECORD, container, "seen"):
            if not _holds(
                contents, get(CONTAINER_RECORD, container, "begin"), get(CONTAINER_RECORD, container, "end")
            ):
                return False
            put(CONTAINER_RECORD, container, "seen", now)
    now = _version(get(CONTENTS_RECORD, contents, "mapping_version"))
    if now < 0 or now != get(CONTENTS_RECORD, contents, "mapping_seen"):
        if not _maps_to_same(contents):
            return False
        put(CONTENTS_RECORD, contents, "mapping_seen", now)
    return True


@cache
def functions() -> tuple[Any, Any, Any, Any]:
    """Return the four functions, compiled or taken from the disk; they keep Python's lock: nothing changes meanwhile."""
    yes_or_no, number = types.boolean(types.int64), types.int64(types.int64)
    forms = (
        (_check_places, yes_or_no), (_find_gradients, number), (_count_changes, types.void(types.int64)),
        (_check_contents, yes_or_no),
    )  # fmt: skip
    places, gradients, changes, contents = (
        python_function(function, _HASH, form, lock=True) for function, form in forms
    )
    return places, gradients, changes, contents
