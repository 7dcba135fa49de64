"""Python files and modules of the person at the command line."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from halfstep.errors import ConfigError, MissingInputError


def imported(place: str, *, flag: str) -> ModuleType:
    """Import a module by its dotted name, or a file; both find what lies beside them, as under ``python``.

    Args:
        flag: that named it, for messages.

    Raises:
        MissingInputError: no such file.
        ConfigError: it cannot be imported, or ends the process.
    """
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise MissingInputError(f"{flag}: no file at {Path(place).absolute()}. Check the path.")
    beside = str(Path(place).absolute().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.insert(0, beside)
    try:
        if not is_file:
            return importlib.import_module(place)
        name = f"halfstep_user_{Path(place).stem}"  # takes the place of no module that the file imports
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{flag}: {place} cannot be imported: {first_line(error)}.") from None
    return module


def first_line(error: BaseException) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
