"""Files that are either whole or absent.

Every result is written under a temporary name in its own folder, flushed to the disk and then renamed, so
that a process killed at any moment leaves the old file or the new one, never half of either.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TEMPORARY_SUFFIX = ".halfstep-tmp"


def as_words(*words: str | Path) -> str:
    """Return words, such as paths with spaces in them, as a POSIX shell takes them: quoted where they need it."""
    return shlex.join(str(word) for word in words)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and takes the name ``path``.

    On an exception the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a name for a temporary folder beside ``path``; on success it is synced and takes the name ``path``.

    A folder of that name is replaced. A process killed at any moment leaves the old folder, the new one or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (
        path.with_name(f".{path.name}.{word}{os.getpid()}{TEMPORARY_SUFFIX}") for word in ("", "old.")
    )
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        for each in (temporary, old):
            shutil.rmtree(each, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically as JSON; NaN and infinities are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_json_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    """Append one line for each value, each in one write, so that processes may append beside each other.

    Half a line of a killed process is closed first; `read_json_lines` passes over it.
    """
    if not values:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if not path.read_bytes().endswith(b"\n") and path.stat().st_size:
            os.write(descriptor, b"\n")
        for value in values:
            os.write(descriptor, json.dumps(value, allow_nan=False).encode() + b"\n")
    finally:
        os.close(descriptor)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that `append_json_lines` wrote; none where there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # half a line of a killed process
            continue
    return found


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_tree(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of all files below a folder."""
    if path.is_file():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what writers that no longer live left below ``folder``."""
    for temporary in sorted(folder.rglob(f".*{TEMPORARY_SUFFIX}")):
        pid = temporary.name.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[2]
        if pid.isdecimal() and is_alive(int(pid)):
            continue
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Return whether a process with this id exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, where the system can."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
