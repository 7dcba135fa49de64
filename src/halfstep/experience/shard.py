"""One file of a store: a group of episodes in the safetensors layout, sealed by a checksum over every byte.

    8 bytes     length of the header, little-endian
    header      JSON: metadata (format, store, version, policies, checksum), then name, type, shape and place of arrays
    arrays      the facts of each episode, then ``step``: one record of `halfstep.experience.episode.STEP` per row

The checksum is the BLAKE2b of the whole file with 64 zeros in its own place. Files are written row by row under a
temporary name, so a writer needs no more memory than its group and a killed one leaves nothing behind. Readers take
rows by position from the open file: unlike a memory map, which counts every page ever touched as the reader's own,
that leaves the resident size as it is, and the operating system's cache serves both alike.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from halfstep import files
from halfstep._version import __version__
from halfstep.errors import StoreDamagedError
from halfstep.experience.episode import ACCOUNT_SIZE, REWARD_SIZE, STEP, Indices, Rows

FORMAT = "halfstep-store/1"
REMEDY = "Leave it out with --drop-damaged, or delete it and collect these trajectories again."
FACTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "length": ("<i8", ()),
    "first_bar": ("<i8", ()),
    "offset": ("<i8", ()),
    "seed": ("<i8", ()),
    "trades": ("<i8", ()),
    "initial_balance": ("<f8", ()),
    "final_equity": ("<f8", ()),
    "discounted_return": ("<f8", (REWARD_SIZE,)),
    "reward_sum": ("<f8", (REWARD_SIZE,)),
    "last_account": ("<f4", (ACCOUNT_SIZE,)),
    "policy": ("<i4", ()),
    "source": ("|u1", ()),
    "terminated": ("|b1", ()),
}
"""Type and shape of each fact of an episode. ``offset`` is its first row, ``policy`` an index into the metadata."""

_NAMES = {"<i8": "I64", "<f8": "F64", "<f4": "F32", "<i4": "I32", "|u1": "U8", "|b1": "BOOL"}
_ZEROS = "0" * 64
_BLOCK = 1 << 20
_MOST_OPEN = 200  # files; systems allow a process about 1,000 or 250

Facts = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A checked file.

    Attributes:
        path: the file.
        rows_at: where its first step begins, bytes.
        facts: arrays of `FACTS`, one row an episode.
        policies: hashes that ``facts["policy"]`` points to.
        zero_level: rule under which its actions were executed.
        left_out: episodes that the bound of the store removed from it.
        identity: size, time and number of the file when it was checked.
    """

    path: Path
    rows_at: int
    facts: Facts
    policies: tuple[str, ...]
    zero_level: str
    left_out: int
    identity: tuple[int, int, int]


def write_shard(
    path: Path,
    rows: Iterable[Rows],
    facts: Facts,
    *,
    store: str,
    policies: Sequence[str],
    zero_level: str,
    left_out: int = 0,
) -> Shard:
    """Write a shard whole or not at all, holding the rows of one episode at a time.

    Args:
        rows: the steps of each episode, ``(length,)`` of `STEP`.
        facts: arrays of `FACTS`.
        store: digest of the store's header.
    """
    metadata = {
        "format": FORMAT, "store": store, "version": __version__, "policies": list(policies),
        "zero_level": zero_level, "left_out": left_out, "checksum": _ZEROS,
    }  # fmt: skip
    arrays = {name: np.ascontiguousarray(facts[name], kind) for name, (kind, _) in FACTS.items()}
    head = _head(metadata, arrays, int(arrays["length"].sum()))
    digest = hashlib.blake2b(head, digest_size=32)
    with files.replacing(path) as temporary:
        with temporary.open("wb") as stream:
            stream.write(head)
            for part in (*arrays.values(), *rows):  # rows are made one by one
                data = part.tobytes()
                digest.update(data)
                stream.write(data)
            stream.seek(head.index(_ZEROS.encode()))
            stream.write(digest.hexdigest().encode())
        status = temporary.stat()
    return Shard(
        path=path, rows_at=len(head) + sum(array.nbytes for array in arrays.values()), facts=arrays,
        policies=tuple(policies), zero_level=zero_level, left_out=left_out, identity=_identity(status),
    )  # fmt: skip


def read_shard(path: Path, *, store: str) -> Shard:
    """Check every byte of a shard and return its facts; its steps stay on the disk.

    Raises:
        StoreDamagedError: it is no shard, of a newer format, of another store, cut or changed; the message names
            the file and what failed.
    """
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        head, tensors, metadata = _parsed_head(path, stream, status.st_size)
        check_format(path, metadata.get("format"))
        check_seal(path, head, str(metadata.get("checksum")), stream)
        if metadata["store"] != store:
            raise damaged(path, "made for another store: its bars, features or rules differ from header.json")
        arrays: Facts = {}
        at = len(head)
        for name, (kind, shape) in FACTS.items():
            begin, end = tensors[name]["data_offsets"]
            stream.seek(len(head) + begin)
            arrays[name] = np.frombuffer(stream.read(end - begin), kind).reshape(-1, *shape)
            at = len(head) + end
    return Shard(
        path=path, rows_at=at, facts=arrays, policies=tuple(metadata["policies"]),
        zero_level=metadata["zero_level"], left_out=metadata["left_out"], identity=_identity(status),
    )  # fmt: skip


class RowReader:
    """Reads steps of many shards by position; a process may hold any number, each used by one thread."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._open: dict[int, IO[bytes]] = {}

    def read(self, shard: Indices, row: Indices, count: int) -> Rows:
        """Return ``count`` consecutive rows from each place, ``(places, count)`` of `STEP`.

        Rows before the first or after the last of a shard hold anything; the caller knows which those are.
        """
        size = count * STEP.itemsize
        raw = np.zeros(len(shard) * size, np.uint8)
        view = raw.data
        places = row * STEP.itemsize
        for i in np.argsort(shard, kind="stable").tolist():  # each file is opened once at most
            number = int(shard[i])
            stream = self._open.get(number) or self._opened(number)
            at = self._shards[number].rows_at + int(places[i])
            missing = size - _read_at(stream, view[i * size : (i + 1) * size], at)
            if missing and at + size - missing < self._shards[number].identity[0]:
                raise damaged(self._shards[number].path, "ended while it was read")
        return raw.view(STEP).reshape(len(shard), count)

    def __getstate__(self) -> dict[str, Any]:
        return {"_shards": self._shards, "_open": {}}  # another process opens its own files

    def __del__(self) -> None:
        for stream in self._open.values():
            stream.close()

    def _opened(self, number: int) -> IO[bytes]:
        if len(self._open) >= _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        shard = self._shards[number]
        stream = shard.path.open("rb", buffering=0)
        if _identity(os.fstat(stream.fileno())) != shard.identity:
            stream.close()
            raise damaged(shard.path, "changed since the store was opened")
        self._open[number] = stream
        return stream


def check_format(path: Path, found: object) -> None:
    """Raise StoreDamagedError unless a file is of the format that this version reads."""
    name, _, version = str(found).partition("/")
    ours = FORMAT.rpartition("/")[2]
    if name != FORMAT.partition("/")[0] or not version.isdecimal() or int(version) < 1:
        raise damaged(path, f"magic: {found!r}, must be {FORMAT!r}")
    if int(version) > int(ours):
        raise StoreDamagedError(
            f"{path}: version: {found}, this halfstep ({__version__}) reads up to {FORMAT}. Install a newer halfstep."
        )


def check_seal(path: Path, head: bytes, checksum: str, rest: IO[bytes] | None = None) -> None:
    """Raise StoreDamagedError unless the checksum inside ``head`` fits it and the rest of the file."""
    digest = hashlib.blake2b(head.replace(checksum.encode(), _ZEROS.encode(), 1), digest_size=32)
    while rest is not None and (block := rest.read(_BLOCK)):
        digest.update(block)
    if digest.hexdigest() != checksum:
        raise damaged(path, "checksum: does not fit the content")


def sealed(text: str) -> str:
    """Return a text that holds 64 zeros with its checksum in their place."""
    return text.replace(_ZEROS, hashlib.blake2b(text.encode(), digest_size=32).hexdigest(), 1)


def damaged(path: Path, what: str) -> StoreDamagedError:
    """Return the error about a file that fails a check."""
    return StoreDamagedError(f"{path}: {what}. {REMEDY}")


def _head(metadata: dict[str, Any], arrays: Facts, steps: int) -> bytes:
    """Return the header with its length, for arrays in the order of `FACTS` and then the steps."""
    tensors: dict[str, Any] = {"__metadata__": {"halfstep": json.dumps(metadata)}}
    at = 0
    for name, array in arrays.items():
        tensors[name] = _tensor(_NAMES[array.dtype.str], array.shape, at, at + array.nbytes)
        at += array.nbytes
    tensors["step"] = _tensor("U8", (steps, STEP.itemsize), at, at + steps * STEP.itemsize)
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _tensor(kind: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


def _parsed_head(path: Path, stream: IO[bytes], size: int) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Return the header's bytes, the places of the arrays and the metadata, once they describe a file of this size."""
    first = stream.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= size - 8:
        raise damaged(path, f"length: {size} bytes hold no header of {length}; it is cut, or not a shard")
    text = stream.read(length)
    try:
        tensors = json.loads(text)
        metadata = json.loads(tensors.pop("__metadata__")["halfstep"])
        check_format(path, metadata["format"])
        episodes, steps = tensors["length"]["shape"][0], tensors["step"]["shape"][0]
        shapes = {name: np.empty((episodes, *shape), kind) for name, (kind, shape) in FACTS.items()}
        expected = json.loads(_head({}, shapes, steps)[8:])
        expected.pop("__metadata__")
        end = 8 + length + tensors["step"]["data_offsets"][1]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, MemoryError) as error:
        raise damaged(path, f"magic: the header is not that of a shard ({type(error).__name__})") from None
    if end != size:
        raise damaged(path, f"length: {size} bytes, must be {end}")
    if tensors != expected:
        raise damaged(path, "magic: the arrays are not those of a shard")
    return first + text, tensors, metadata


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _read_at(stream: IO[bytes], buffer: memoryview, at: int) -> int:
    """Fill a buffer from a position and return the bytes read: fewer at the end of the file only."""
    if hasattr(os, "preadv"):  # leaves the position alone, which forked processes share
        return os.preadv(stream.fileno(), [buffer], at)
    stream.seek(at)
    return int(stream.readinto(buffer))  # type: ignore[attr-defined]  # a raw file
