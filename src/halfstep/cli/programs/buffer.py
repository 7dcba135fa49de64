"""``halfstep data import FILE.bd --bars BARS --out FOLDER``: trajectories of the published programs as a store."""

from pathlib import Path

from halfstep.broker.rules import AccountRules
from halfstep.errors import MissingInputError, OutputExistsError
from halfstep.experience.published import buffer_discount, import_buffer
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.bars import Bars
from halfstep.market.features import feature_set
from halfstep.market.instruments import instrument


def store_of_buffer(path: Path, bars: Bars, folder: Path, *, features: str) -> EpisodeStore:
    """Return a new store with the trajectories of a buffer file.

    Its header holds the default account rules, which the file does not tell, and the file's discount.

    Args:
        features: set that the models to be trained on it read; the steps themselves hold no features.

    Raises:
        MissingInputError: there is no such file.
        OutputExistsError: a store stands in the folder.
        StoreDamagedError, StoreMismatchError, StoreError: see `import_buffer`.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file. Give a buffer file (.bd) of the published programs.")
    if (folder / "header.json").exists():
        raise OutputExistsError(f"{folder}: a store stands there. Choose another folder with --out.")
    header = StoreHeader.of(
        bars, feature_set=feature_set(features).id, rules=AccountRules(),
        instrument=instrument(bars.symbol, digits=bars.digits), discount=buffer_discount(path),
    )  # fmt: skip
    return import_buffer(path, EpisodeStore.create(folder, header, bars), bars)


def describe_import(path: Path, store: EpisodeStore) -> dict[str, object]:
    """Return what was imported, for people and machines."""
    return {
        "file": str(path), "written": str(store.folder), "episodes": len(store), "steps": store.steps,
        "terminated": int(store.terminated.sum()), "trades": int(store.trades.sum()),
        "profit": float((store.final_equity - store.initial_balance).sum()), "discount": store.header.discount,
        "feature_set": store.header.feature_set, "bars": store.header.bars_hash,
    }  # fmt: skip
