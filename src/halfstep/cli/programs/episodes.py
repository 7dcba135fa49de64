"""The trajectories of a run folder: ``episodes/`` is a store that holds every round so far.

A further round begins with the shards of the rounds before it, as links to the same files where the disk has them, so
each folder is complete and none is ever changed by a later program.
"""

import os
import shutil
import warnings
from pathlib import Path

from halfstep import files
from halfstep.cli.programs.market import Market
from halfstep.errors import MissingInputError, StoreError
from halfstep.experience.signals import leaking
from halfstep.experience.store import EpisodeStore


def episodes_folder(folder: Path) -> Path:
    """Return the store of a run folder, or the folder itself where it is a store.

    Raises:
        MissingInputError: there is no store.
    """
    for path in (folder / "episodes", folder):
        if (path / "header.json").is_file():
            return path
    raise MissingInputError(f"no trajectories in {folder}: run halfstep research --out {folder}")


def begin_store(folder: Path, market: Market, *, previous: Path | None = None) -> EpisodeStore:
    """Return the store of a run folder for writing; with ``previous``, it begins with that folder's shards.

    Raises:
        StoreMismatchError: the previous store was made with other bars, features or rules.
    """
    if previous is not None:
        source = EpisodeStore.open(episodes_folder(previous), expect=market.store_header).folder
        for shard in sorted(source.glob("shard-*")):
            _link(shard, folder / "episodes" / shard.name)
    return EpisodeStore.create(folder / "episodes", market.store_header, market.bars)


def trainable_store(
    folder: Path, market: Market, *, allow_leak: bool, drop_damaged: bool = False
) -> EpisodeStore:
    """Return the store of a folder for training.

    Raises:
        StoreError: some of its actions know the future (`replay-signals --impute-levels exit_price`).
        StoreMismatchError: made with other bars, features or rules.
        StoreDamagedError: a shard fails its checks, unless ``drop_damaged`` leaves it out with a warning.
    """
    store = EpisodeStore.open(episodes_folder(folder), expect=market.store_header, drop_damaged=drop_damaged)
    if store.damaged:
        warnings.warn(
            f"{len(store.damaged)} damaged shards left out; {len(store)} episodes remain. {store.damaged[0]}",
            stacklevel=2,
        )
    leaks = leaking(store.policy)
    if leaks and not allow_leak:
        raise StoreError(
            f"{store.folder}: the actions of {leaks[0]!r} know later prices, so a result would mean nothing. "
            "Replay the signals without --impute-levels, or give --allow-leak to reproduce the published form."
        )
    return store


def next_number(previous: Path | None, kind: str) -> int:
    """Return the first number after those of a folder's shards of one kind: ``r`` rounds, ``s`` signals; 0 without.

    Raises:
        MissingInputError: there is no store.
    """
    if previous is None:
        return 0
    shards = episodes_folder(previous).glob(f"shard-{kind}*-g*.safetensors")
    numbers = [int(path.stem.removeprefix(f"shard-{kind}").partition("-")[0]) for path in shards]
    return max(numbers, default=-1) + 1


def _link(source: Path, target: Path) -> None:
    """Give a finished file a second name; where the disk knows no links, copy it."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
