"""Configurations from recipes, TOML files and flags, and back to TOML.

Order: recipe < file < flags. A wrong value is one `ConfigError` with the key's path, its value and the way out.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from pydantic import BaseModel, ValidationError

from halfstep.config.tables import Config
from halfstep.errors import ConfigError, MissingInputError

FREE = (("run", "jobs"), ("run", "threads"), ("run", "tensorboard"))
"""Settings that a continued run may change: they say how the work is shared out and shown."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file."""
    if not path.is_file():
        raise MissingInputError(f"no configuration at {path}. Write one with: halfstep show-config > {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not a TOML file: {error}. See halfstep show-config for the form."
        ) from error


def merged(base: Config, changes: Mapping[str, Any], *, source: str) -> Config:
    """Return ``base`` with the tables of ``changes`` laid over it.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range; the message names ``source``.
    """
    tree = base.model_dump()
    _overlay(tree, changes, path=(), source=source)
    return validated(tree, source=source)


def validated(tree: Mapping[str, Any], *, source: str) -> Config:
    """Return the configuration that a tree of plain values describes."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise ConfigError(_unknown_key(first["loc"], source=source)) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":  # of a table's own check, which begins with the setting's name
            raise ConfigError(f"{key}.{message} ({source})") from None
        raise ConfigError(f"{key}: {first['input']!r}, {message} ({source}).") from None


def to_toml(config: Config) -> str:
    """Return the configuration as TOML; settings without a value (None) are left out."""
    return tomli_w.dumps(plain(config))


def plain(config: BaseModel) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of strings, numbers and lists, without empty settings."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return {name: _without_none(table) for name, table in tree.items()}


class Changes(NamedTuple):
    """What makes one configuration of another: settings that `merged` lays over it, and settings without a value."""

    settings: dict[str, dict[str, Any]]
    emptied: list[str]


def changes_from(base: Config, config: Config) -> Changes:
    """Return the settings of a configuration that differ from another's."""
    before, after = plain(base), plain(config)
    tables = [name for name, table in after.items() if isinstance(table, dict)]
    changed = {
        name: {key: value for key, value in after[name].items() if before[name].get(key) != value}
        for name in tables
    }
    emptied = [f"{name}.{key}" for name in tables for key in before[name] if key not in after[name]]
    return Changes({name: table for name, table in changed.items() if table}, emptied)


def digest(config: Config) -> str:
    """Return a SHA-256 of what influences results: everything but the number of processes and how curves are shown."""
    tree = plain(config)
    for key in ("jobs", "tensorboard"):
        tree["run"].pop(key)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def differences(a: Config, b: Config) -> list[str]:
    """Return a line for each setting that influences results and differs: ``study.updates: 600 became 500``."""
    lines = []
    left, right = a.model_dump(mode="json"), b.model_dump(mode="json")
    for table in left:
        if not isinstance(left[table], dict):
            continue
        for key, value in left[table].items():
            if value != right[table][key] and (table, key) not in FREE:
                lines.append(f"{table}.{key}: {value!r} became {right[table][key]!r}")
    return lines


def _overlay(tree: dict[str, Any], changes: Mapping[str, Any], *, path: tuple[str, ...], source: str) -> None:
    for key, value in changes.items():
        if key not in tree:
            raise ConfigError(_unknown_key((*path, key), source=source, known=list(tree)))
        if isinstance(tree[key], dict):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}: {value!r}, must be a table of settings ({source}).")
            _overlay(tree[key], value, path=(*path, key), source=source)
        else:
            tree[key] = value


def _unknown_key(loc: tuple[int | str, ...], *, source: str, known: list[str] | None = None) -> str:
    names = known or _names_at(loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), names, n=1, cutoff=0.0)
    near = ".".join([*map(str, loc[:-1]), *close])
    return f"{'.'.join(map(str, loc))}: unknown key ({source}). The nearest known key is {near}."


def _names_at(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that exist at a place in the tree."""
    if not loc:
        return list(Config.model_fields)
    return list(getattr(getattr(Config(), str(loc[0])), "__dataclass_fields__", ()))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
