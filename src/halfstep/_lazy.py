"""Lazy public names for packages whose modules are slow to import (PEP 562).

``halfstep --help`` must answer at once, so importing a package must not import torch, numba or polars.
A package lists which of its modules defines each public name; the module is imported at first use.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Args:
        package: the package's ``__name__``.
        homes: public name to the full name of the module that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    def names() -> list[str]:
        return sorted(homes)

    return get, names
