"""Episodes on disk: a folder with a header, the bars once, and one file per group of passes.

    header.json                 format, hashes of bars and rules, feature set, instrument, discount; sealed
    bars.parquet                the bars, once for all episodes
    shard-r0-g0.safetensors     one group of episodes, see `halfstep.experience.shard`
    dropped.json                what the bound of the store removed

65 bytes per step. The folder listing is the index and names are deterministic, so writers need no lock; files are
whole or absent. Opening checks every byte; afterwards only facts of episodes are in memory, and steps are read from
the files as they are asked for.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from halfstep import files
from halfstep.broker.rules import AccountRules
from halfstep.errors import MissingInputError, StoreDamagedError, StoreError, StoreMismatchError
from halfstep.experience.episode import SOURCES, STEP, Doubles, Episode, Floats, Group, Indices, Steps
from halfstep.experience.retention import all_kept, published_kept
from halfstep.experience.shard import (
    FACTS,
    FORMAT,
    RowReader,
    Shard,
    check_format,
    check_seal,
    damaged,
    read_shard,
    sealed,
    write_shard,
)
from halfstep.market.bars import Bars
from halfstep.market.instruments import Instrument
from halfstep.market.read import read_bars
from halfstep.market.write import write_bars

_NAME = re.compile(r"(r|s|i)(\d+)-g(\d+)")  # research round, signals or imported; group
Keep = Literal["all", "published"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreHeader:
    """What the episodes of a store were made with.

    Attributes:
        bars_hash: `Bars.hash`.
        feature_set: `Features.set_id` of what the policies read.
        rules: of the account, without ``zero_level``, so that signals and policies share a store.
        instrument: what was traded.
        discount: per bar, of the returns stored with each episode.
        other_bars: hashes of further bars that decided what was filled and earned, by their use; without any, the header
            is as it was before there were such.
    """

    bars_hash: str
    feature_set: str
    rules: Mapping[str, Any]
    instrument: Mapping[str, Any]
    discount: float
    other_bars: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bars: Bars,
        *,
        feature_set: str,
        rules: AccountRules,
        instrument: Instrument,
        discount: float,
        other_bars: Mapping[str, Bars] = MappingProxyType({}),
    ) -> "StoreHeader":
        """Return the header of episodes over these bars."""
        plain = {name: value for name, value in asdict(rules).items() if name != "zero_level"}
        return cls(
            bars_hash=bars.hash, feature_set=feature_set, rules=_as_json(plain),
            instrument=_as_json(asdict(instrument)), discount=discount,
            other_bars={name: other.hash for name, other in sorted(other_bars.items())},
        )  # fmt: skip

    @property
    def rules_hash(self) -> str:
        """SHA-256 of every rule but ``zero_level`` and of the instrument."""
        return _sha256({"rules": self.rules, "instrument": self.instrument})

    @property
    def digest(self) -> str:
        """What every shard of the store carries."""
        return _sha256(self.values())

    def values(self) -> dict[str, Any]:
        """Return all fields as JSON holds them; ``other_bars`` only if there are any."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return found if self.other_bars else {k: v for k, v in found.items() if k != "other_bars"}

    def differences(self, wanted: "StoreHeader") -> list[str]:
        """Return a sentence part for each field that differs; rules and instrument with both hashes."""
        found = [
            f"{name} {getattr(self, name)!r}, wanted {getattr(wanted, name)!r}"
            for name in ("bars_hash", "feature_set", "discount", "other_bars")
            if getattr(self, name) != getattr(wanted, name)
        ]
        parts = [
            f"{name} {ours.get(name)!r}, wanted {theirs.get(name)!r}"
            for ours, theirs in ((self.rules, wanted.rules), (self.instrument, wanted.instrument))
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
        if parts:
            hashes = f"rules_hash {self.rules_hash}, wanted {wanted.rules_hash}"
            found.append(f"{hashes} ({'; '.join(parts)})")
        return found


class EpisodeStore:
    """A folder of episodes; `create` or `open` it.

    Attributes:
        length, first_bar, seed, trades: of each episode, ``(episode,)`` int64.
        terminated: ended by ruin, ``(episode,)``; otherwise truncated by its span.
        source: index into `SOURCES`, ``(episode,)``.
        policy: hash of what acted, one an episode.
        initial_balance, final_equity: account currency, ``(episode,)`` float64.
        last_account: the account after the last step, ``(episode, 7)``.
        discounted_return: sum of discount^k r_k for each reward component, ``(episode, 3)`` float64.
        reward_sum: the same without discount.
        damaged: what ``drop_damaged`` left out: file and failed check.
        dropped: episodes that the bound removed.
    """

    length: Indices
    first_bar: Indices
    seed: Indices
    trades: Indices
    terminated: npt.NDArray[np.bool_]
    source: npt.NDArray[np.uint8]
    initial_balance: Doubles
    final_equity: Doubles
    last_account: Floats
    discounted_return: Doubles
    reward_sum: Doubles

    def __init__(
        self, folder: Path, header: StoreHeader, bars: int, shards: dict[str, Shard], damaged: tuple[str, ...]
    ) -> None:
        self.folder, self.header, self.damaged = folder, header, damaged
        self._bars, self._shards = bars, shards
        self._index()

    @classmethod
    def create(cls, folder: Path, header: StoreHeader, bars: Bars) -> "EpisodeStore":
        """Make a store, or open the one that stands there if it has the same header.

        Raises:
            StoreMismatchError: a store with another header stands there, or the bars are not those of the header.
        """
        if bars.hash != header.bars_hash:
            raise StoreMismatchError(
                f"bars: {bars.hash}, the header has {header.bars_hash}. Make it with StoreHeader.of(bars, ...)."
            )
        if (folder / "header.json").exists():
            return cls.open(folder, expect=header)
        table = folder / "bars.parquet"
        write_bars(bars, table)
        checked = {"bars": len(bars), "bars_sha256": files.sha256(table)}
        values = {"format": FORMAT, **header.values(), "rules_hash": header.rules_hash, **checked}
        text = json.dumps(values | {"checksum": "0" * 64}, indent=2, allow_nan=False) + "\n"
        files.write_text(folder / "header.json", sealed(text))
        return cls(folder, header, len(bars), {}, ())

    @classmethod
    def open(
        cls, folder: Path, *, expect: StoreHeader | None = None, drop_damaged: bool = False
    ) -> "EpisodeStore":
        """Open a store and check every byte of it.

        Args:
            expect: what the episodes must have been made with.
            drop_damaged: leave damaged shards out; `damaged` names them.

        Raises:
            MissingInputError: no store stands there.
            StoreMismatchError: made with other bars, features, rules or discount than ``expect``.
            StoreDamagedError: a file fails its checks.
        """
        header, bars = _read_header(folder)
        if expect is not None and (differing := header.differences(expect)):
            raise StoreMismatchError(
                f"{folder}: made with {'; '.join(differing)}. Collect trajectories anew with --out."
            )
        emptied, shards, lost = _emptied(folder), {}, []
        for name in _listed(folder):
            if name in emptied:
                continue
            try:
                shards[name] = read_shard(_path(folder, name), store=header.digest)
            except StoreDamagedError as error:
                if not drop_damaged:
                    raise
                lost.append(str(error))
        return cls(folder, header, bars, shards, tuple(lost))

    def __len__(self) -> int:
        return len(self.length)

    @property
    def steps(self) -> int:
        """Steps of all episodes."""
        return int(self.length.sum())

    @property
    def dropped(self) -> int:
        """Episodes that the bound removed, over the life of the store."""
        return sum(shard.left_out for shard in self._shards.values()) + sum(_emptied(self.folder).values())

    @property
    def zero_levels(self) -> frozenset[str]:
        """Meanings of a level of 0 under which the episodes were executed."""
        return frozenset(shard.zero_level for shard in self._shards.values())

    def bars(self) -> Bars:
        """Read the bars of all episodes; times are int64 seconds."""
        path = self.folder / "bars.parquet"
        bars = read_bars(path)
        if bars.hash != self.header.bars_hash:
            raise damaged(path, "checksum: not the bars of header.json")
        return bars

    def up_to(self, rounds: int) -> "EpisodeStore":
        """Return the store as it was before research round ``rounds``; signals and imported episodes are in it."""
        kept = {
            name: shard for name, shard in self._shards.items() if name[0] != "r" or _key(name)[1] < rounds
        }
        return EpisodeStore(self.folder, self.header, self._bars, kept, self.damaged)

    def finished(self, name: str) -> bool:
        """Return whether a shard is written, also where the bound has emptied it since."""
        return _path(self.folder, name).exists() or name in _emptied(self.folder)

    def write(self, name: str, group: Group) -> None:
        """Write one group of episodes as a shard, whole or not at all, and take it up.

        Args:
            name: ``r<round>-g<group>`` of research, ``s<number>-g<group>`` of signals, ``i...`` of imported ones.

        Raises:
            StoreError: the group contradicts itself, leaves the bars, or holds numbers that are not finite.
        """
        _key(name)
        group.check(name, self._bars)
        self._shards[name] = write_shard(
            _path(self.folder, name), map(group.rows, range(len(group))), _facts(group, self.header.discount),
            store=self.header.digest, policies=_distinct(group.policy), zero_level=group.zero_level,
        )  # fmt: skip
        self._index()

    def read(self, episode: int) -> Episode:
        """Return all steps of one episode."""
        length = int(self.length[episode])
        place = np.array([episode])
        rows = self._reader.read(self._shard[place], self._row[place], length)[0]
        return Episode(
            bar=self.first_bar[episode] + np.arange(length),
            account=np.concatenate([rows["account"], self.last_account[place]]),
            **{name: rows[name].copy() for name in ("action", "reward", "mark")},
        )

    def episodes(self) -> Iterator[Episode]:
        """Return every episode in turn, in the order of shards; one at a time is in memory."""
        return map(self.read, range(len(self)))

    def gather(self, episode: Indices, step: Indices, *, horizon: int = 1) -> Steps:
        """Return steps by episode and position, with the rewards of ``horizon`` steps from each on.

        Args:
            episode: ``(batch,)``.
            step: ``(batch,)``; ``length`` asks for the account after the end, without action and reward.
            horizon: at least 1.
        """
        length = self.length[episode]
        count = np.minimum(horizon, length - step)
        reach = int(count.max(initial=1))
        rows = self._reader.read(self._shard[episode], self._row[episode] + step - 1, reach + 2)
        place = np.arange(len(episode))

        def account(k: Indices) -> Floats:
            found: Floats = rows["account"][place, np.minimum(k - step + 1, reach + 1)]
            is_last = k == length
            found[is_last] = self.last_account[episode[is_last]]
            return found

        reward = np.zeros((len(episode), horizon, rows["reward"].shape[-1]), np.float32)
        inside = np.arange(reach) < count[:, None]
        reward[:, :reach][inside] = rows["reward"][:, 1 : reach + 1][inside]
        return Steps(
            bar=self.first_bar[episode] + step,
            now=account(step),
            previous=account(np.maximum(step - 1, 0)),
            action=np.where((count > 0)[:, None], rows["action"][:, 1], np.float32(0)),
            reward=reward,
            count=count,
            after=account(step + count),
            after_previous=account(np.maximum(step + count - 1, 0)),
            terminated=self.terminated[episode] & (step + count == length),
        )

    def column(self, name: Literal["account", "action", "reward", "mark"]) -> npt.NDArray[Any]:
        """Return one array of all episodes, end to end: for looking at small stores, because it is all in memory."""
        found = [getattr(episode, name) for episode in self.episodes()]
        return np.concatenate(found) if found else np.zeros((0, *STEP[name].shape), STEP[name].base)

    def bound(self, *, keep: Keep = "all", max_episodes: int = 5000) -> int:
        """Remove episodes beyond the bound from the folder and return how many; ``dropped.json`` records them.

        ``"all"``: beyond ``max_episodes`` the oldest of policies and noise go first, then the oldest of scripts and
        imports, signals never. ``"published"``: see `halfstep.experience.retention.published_kept`.
        """
        if keep == "published":
            kept = published_kept(self.source, self.final_equity - self.initial_balance, self.final_equity)
        else:
            kept = all_kept(self.source, max_episodes)
        if kept.all():
            return 0
        emptied, first = _emptied(self.folder), 0
        for name, shard in list(self._shards.items()):
            present = len(shard.facts["length"])
            chosen = first + np.flatnonzero(kept[first : first + present])
            if not len(chosen):
                emptied[name] = shard.left_out + present
            elif len(chosen) < present:
                self._shards[name] = self._rewritten(shard, chosen, first)
            first += present
        rewritten = {name: shard.left_out for name, shard in self._shards.items() if name not in emptied}
        files.write_json(
            self.folder / "dropped.json",
            {"emptied": emptied, "rewritten": {name: n for name, n in rewritten.items() if n}},
        )
        for name in emptied:  # recorded first, so that an interruption loses no record
            _path(self.folder, name).unlink(missing_ok=True)
            self._shards.pop(name, None)
        self._index()
        return int((~kept).sum())

    def _rewritten(self, shard: Shard, chosen: Indices, first: int) -> Shard:
        """Write a shard anew with some of its episodes, whose numbers in the store begin at ``first``."""
        facts = {name: array[chosen - first] for name, array in shard.facts.items()}
        facts["offset"] = np.cumsum(facts["length"]) - facts["length"]
        rows = (
            self._reader.read(self._shard[[e]], self._row[[e]], int(self.length[e]))[0]
            for e in chosen.tolist()
        )
        return write_shard(
            shard.path, rows, facts, store=self.header.digest, policies=shard.policies,
            zero_level=shard.zero_level, left_out=shard.left_out + len(shard.facts["length"]) - len(chosen),
        )  # fmt: skip

    def _index(self) -> None:
        """Join the facts of all shards, in their order."""
        self._shards = {name: self._shards[name] for name in sorted(self._shards, key=_key)}
        shards = list(self._shards.values())
        joined: dict[str, npt.NDArray[Any]] = {}
        for name, (kind, shape) in FACTS.items():
            empty = np.zeros((0, *shape), kind)
            joined[name] = np.concatenate([empty, *(shard.facts[name] for shard in shards)])
            if name not in ("offset", "policy"):
                setattr(self, name, joined[name])
        sizes = [len(shard.facts["length"]) for shard in shards]
        self._shard = np.repeat(np.arange(len(shards)), sizes)
        self._row: Indices = joined["offset"]
        self.policy = tuple(
            shard.policies[number] for shard in shards for number in shard.facts["policy"].tolist()
        )
        self._reader = RowReader(shards)


def _facts(group: Group, discount: float) -> dict[str, npt.NDArray[Any]]:
    """Return the facts of a group's episodes, the sums over their rewards in float64."""
    weights = discount ** np.arange(int(group.length.max()))
    rewards = [group.reward[path, :length].astype(np.float64) for path, length in enumerate(group.length)]
    policies = _distinct(group.policy)
    return {
        **{name: getattr(group, name) for name in FACTS if hasattr(group, name)},
        "offset": np.cumsum(group.length) - group.length,
        "discounted_return": np.stack([weights[: len(reward)] @ reward for reward in rewards]),
        "reward_sum": np.stack([reward.sum(axis=0) for reward in rewards]),
        "last_account": group.account[np.arange(len(group)), group.length],
        "policy": np.array([policies.index(name) for name in group.policy]),
        "source": np.array([SOURCES.index(name) for name in group.source]),
    }


def _read_header(folder: Path) -> tuple[StoreHeader, int]:
    """Return the header and the number of bars, once header and bars are what they were when written."""
    path = folder / "header.json"
    if not path.is_file():
        raise MissingInputError(
            f"no trajectories at {folder}. Collect them with: halfstep research --out {folder.parent}"
        )
    text = path.read_bytes()
    try:
        values = json.loads(text)
        check_format(path, values.pop("format"))
        check_seal(path, text, values.pop("checksum"))
        values.setdefault("other_bars", {})
        header = StoreHeader(**{each.name: values[each.name] for each in fields(StoreHeader)})
        expected, bars = values["bars_sha256"], values["bars"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"magic: not the header of a store ({type(error).__name__})") from None
    table = folder / "bars.parquet"
    if not table.is_file() or files.sha256(table) != expected:
        raise damaged(table, "checksum: absent, or not the bars that header.json names")
    return header, bars


def _listed(folder: Path) -> list[str]:
    names = [path.stem.removeprefix("shard-") for path in folder.glob("shard-*.safetensors")]
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_key)


def _emptied(folder: Path) -> dict[str, int]:
    """Return the shards that the bound emptied, and how many episodes were in each."""
    path = folder / "dropped.json"
    if not path.exists():
        return {}
    found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["emptied"]
    return found


def _path(folder: Path, name: str) -> Path:
    return folder / f"shard-{name}.safetensors"


def _key(name: str) -> tuple[str, int, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise StoreError(
            f"shard: {name!r}, must read r0-g0, s0-g0 or i0-g0: kind and round, group. Rename it."
        )
    return match[1], int(match[2]), int(match[3])


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as they read back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _sha256(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
