"""Episodes on disk: a folder with a header and one file per group of passes.

    header.json                 format, hashes of bars and rules, feature set, symbol, discount
    shard-r0-g0.safetensors     the arrays of one group; metadata holds the header's hashes and a checksum

65 bytes per step. The folder listing is the index and names are deterministic, so writers need no lock; files are
whole or absent. Opening checks every header and checksum.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from halfstep import files
from halfstep.errors import MissingInputError, StoreDamagedError, StoreError, StoreMismatchError

FORMAT = "halfstep-store/1"
ACCOUNT_SIZE = 7  # balance, equity, buy lots, sell lots, buy profit, sell profit, discount
STEP_ARRAYS = {
    "account": (np.float32, ACCOUNT_SIZE),
    "action": (np.float32, 6),
    "reward": (np.float32, 3),
    "mark": (np.uint8, 0),
}
EPISODE_ARRAYS = {"first_bar": np.int64, "length": np.int64, "terminated": np.bool_, "source": np.uint8}
SOURCES = ("policy", "noise", "scripted")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreHeader:
    """What the episodes of a store were made with."""

    bars_hash: str
    feature_set: str
    rules_hash: str
    symbol: str
    discount: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Episodes over one span, as arrays ``(path, step, ...)``; steps after an episode's length are not kept.

    Attributes:
        first_bar: newest closed bar at the first decision.
        account: the account at each decision, ``(path, step + 1, 7)``; the last row is the account after the end.
        action: executed, netted, ``(path, step, 6)``.
        reward: relative components, ``(path, step, 3)``.
        mark: outcome in the low three bits, flags above, ``(path, step)``.
        length: steps of each path, ``(path,)``.
        terminated: ended by ruin, ``(path,)``.
        source: index into `SOURCES`, ``(path,)``.
    """

    first_bar: int
    account: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    reward: npt.NDArray[np.float32]
    mark: npt.NDArray[np.uint8]
    length: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    source: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A batch of steps.

    Attributes:
        bar: bar of the decision, ``(batch,)``.
        now, previous: the account at the decision and one bar before, ``(batch, 7)``.
        action: executed, ``(batch, 6)``.
        reward: of this step and the following ones, 0 after the episode's end, ``(batch, horizon, 3)``.
    """

    bar: npt.NDArray[np.int64]
    now: npt.NDArray[np.float32]
    previous: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    reward: npt.NDArray[np.float32]


class EpisodeStore:
    """A folder of episodes; create or open it with the class methods.

    Args:
        rounds: read only the first rounds; None = all.
    """

    def __init__(self, folder: Path, header: StoreHeader, *, rounds: int | None = None) -> None:
        self.folder, self.header, self._rounds = folder, header, rounds
        self._load()

    @classmethod
    def create(cls, folder: Path, header: StoreHeader) -> "EpisodeStore":
        """Make a store, or open the one that stands there if it has the same header."""
        if (folder / "header.json").exists():
            return cls.open(folder, expect=header)
        files.write_json(folder / "header.json", {"format": FORMAT, **asdict(header)})
        return cls(folder, header)

    @classmethod
    def open(cls, folder: Path, *, expect: StoreHeader | None = None) -> "EpisodeStore":
        """Open a store.

        Raises:
            MissingInputError: no store stands there.
            StoreMismatchError: made with other bars, features or rules than ``expect``.
            StoreDamagedError: a shard fails its checks.
        """
        path = folder / "header.json"
        if not path.is_file():
            raise MissingInputError(
                f"no trajectories at {folder}. Collect them with: halfstep research --out {folder.parent}"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            kind = values.pop("format")
            header = StoreHeader(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreDamagedError(
                f"{path}: not a store's header ({error}). Collect the trajectories again."
            ) from None
        if kind != FORMAT:
            raise StoreDamagedError(
                f"{path}: format {kind!r}, must be {FORMAT!r}. Use the version that wrote it."
            )
        if expect is not None and header != expect:
            differing = [
                f"{name} {value!r}, wanted {getattr(expect, name)!r}"
                for name, value in asdict(header).items()
                if value != getattr(expect, name)
            ]
            raise StoreMismatchError(
                f"{folder}: made with {'; '.join(differing)}. Collect trajectories anew with --out."
            )
        return cls(folder, header)

    def __len__(self) -> int:
        return len(self.length)

    def finished(self, name: str) -> bool:
        """Return whether a shard is written."""
        return (self.folder / f"shard-{name}.safetensors").exists()

    def write(self, name: str, group: Group) -> None:
        """Write one group of episodes as a shard, atomically, and open it."""
        if not np.isfinite(group.account).all() or not np.isfinite(group.reward).all():
            raise StoreError(f"shard {name}: accounts or rewards are not finite; nothing was written.")
        arrays = {"account": [], "action": [], "reward": [], "mark": []}  # type: dict[str, list[npt.NDArray[np.generic]]]
        for path, length in enumerate(group.length):
            arrays["account"].append(group.account[path, : length + 1])
            for key in ("action", "reward", "mark"):
                arrays[key].append(getattr(group, key)[path, :length])
        flat = {key: np.concatenate(parts) for key, parts in arrays.items()}
        flat |= {
            "length": group.length,
            "first_bar": np.full(len(group.length), group.first_bar, np.int64),
            "terminated": group.terminated,
            "source": group.source,
        }
        metadata = {"format": FORMAT, "header": _digest(self.header), "checksum": _checksum(flat)}
        with files.replacing(self.folder / f"shard-{name}.safetensors") as temporary:
            # one key, because the library writes several in random order
            save_file(flat, temporary, metadata={"halfstep": json.dumps(metadata)})
        self._load()

    def gather(
        self, episode: npt.NDArray[np.int64], step: npt.NDArray[np.int64], *, horizon: int = 1
    ) -> Steps:
        """Return steps by episode and position, with the rewards of ``horizon`` steps from each on.

        A step equal to the episode's length gives the account after its end; action and reward mean nothing there.
        """
        account = self._account_start[episode] + step
        at = np.minimum(self._start[episode] + step, len(self._arrays["reward"]) - 1)
        ahead = np.arange(horizon)
        inside = step[:, None] + ahead < self.length[episode][:, None]
        rows = np.minimum(at[:, None] + ahead, len(self._arrays["reward"]) - 1)
        return Steps(
            bar=self.first_bar[episode] + step,
            now=self._arrays["account"][account],
            previous=self._arrays["account"][np.maximum(account - 1, self._account_start[episode])],
            action=self._arrays["action"][at],
            reward=np.where(inside[..., None], self._arrays["reward"][rows], np.float32(0)),
        )

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """Return one array over all steps of all episodes, in the order of shards."""
        return self._arrays[name]

    def _load(self) -> None:
        shards = [self._shard(path) for path in _shards(self.folder, self._rounds)]
        empty = {
            name: np.zeros((0, width) if width else 0, kind) for name, (kind, width) in STEP_ARRAYS.items()
        }
        empty |= {name: np.zeros(0, kind) for name, kind in EPISODE_ARRAYS.items()}
        self._arrays = {
            name: np.concatenate([empty[name], *(shard[name] for shard in shards)]) for name in empty
        }
        self.length: npt.NDArray[np.int64] = self._arrays["length"]
        self.first_bar: npt.NDArray[np.int64] = self._arrays["first_bar"]
        self.terminated: npt.NDArray[np.bool_] = self._arrays["terminated"]
        self.source: npt.NDArray[np.uint8] = self._arrays["source"]
        self._start = np.concatenate([[0], np.cumsum(self.length)[:-1]]) if len(self.length) else self.length
        self._account_start = self._start + np.arange(len(self.length))

    def _shard(self, path: Path) -> dict[str, npt.NDArray[np.generic]]:
        remedy = "Delete it and continue the run, or collect the trajectories again."
        try:
            with safe_open(path, framework="numpy") as stream:
                metadata = json.loads((stream.metadata() or {}).get("halfstep", "{}"))
                arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise StoreDamagedError(f"{path}: not a whole shard ({error}). {remedy}") from None
        if metadata.get("format") != FORMAT or metadata.get("header") != _digest(self.header):
            raise StoreDamagedError(f"{path}: not a shard of this store. {remedy}")
        if set(arrays) != {*STEP_ARRAYS, *EPISODE_ARRAYS} or metadata.get("checksum") != _checksum(arrays):
            raise StoreDamagedError(f"{path}: the checksum does not fit the arrays. {remedy}")
        return arrays


def _shards(folder: Path, rounds: int | None) -> list[Path]:
    """Return the shards of the first rounds, by round and group."""
    found = []
    for path in folder.glob("shard-r*-g*.safetensors"):
        round_number, group = (int(part[1:]) for part in path.stem.split("-")[1:])
        if rounds is None or round_number < rounds:
            found.append((round_number, group, path))
    return [path for _, _, path in sorted(found)]


def _digest(header: StoreHeader) -> str:
    return hashlib.sha256(json.dumps(asdict(header), sort_keys=True).encode()).hexdigest()


def _checksum(arrays: dict[str, npt.NDArray[np.generic]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
