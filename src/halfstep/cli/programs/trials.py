"""What a program tells the registry of trials."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from halfstep.backtest.registry import Trial
from halfstep.cli.programs.market import Market
from halfstep.cli.run_folder import versions
from halfstep.config.load import plain
from halfstep.config.tables import Config

if TYPE_CHECKING:
    from halfstep.cli.programs.arms import Arm

DECIDES_NOTHING = ("compare", "test", "run", "walk_forward", "tune")
"""Tables that say how often and how a result is looked at; of ``run``, the rounds decide."""


def configuration_hash(
    config: Config,
    bars_hash: str,
    optimizer: str,
    plan: Mapping[str, Any] | None = None,
    *,
    other_bars: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a hash of everything that decides an arm's result but its seed: settings, optimizer, bars, program.

    Args:
        other_bars: hashes of finer bars and of conversion rates, as far as they decide what is filled and earned.
        plan: what decides in place of the split: months of a program that trains on many spans, trained models.
    """
    tree = {name: table for name, table in plain(config).items() if name not in DECIDES_NOTHING}
    tree.pop("recipe")
    if plan is not None:
        tree["split"] = dict(plan)
    found = versions()
    tree |= {
        "data": {"features": config.data.features, "hash": bars_hash, **other_bars},
        "optimizer": optimizer, "rounds": config.run.rounds,
        "program": [found["halfstep"], found.get("commit", "")],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def arm_trials(
    config: Config,
    market: Market,
    records: Iterable[dict[str, Any]],
    *,
    program: str,
    run: Path,
    plan: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Return the trials that finished arms are: the furthest figure of each that was looked at."""
    return [_trial(config, market, record, program, run, plan) for record in records]


def failed_trials(
    config: Config,
    market: Market,
    arms: Iterable["Arm"],
    *,
    program: str,
    run: Path,
    plan: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Return the trials of arms that gave no figure: they were tried all the same."""
    return [
        Trial(
            program=program, run=str(run.absolute()), optimizer=arm.optimizer, seed=arm.seed,
            configuration=_configuration(config, market, arm.optimizer, plan),
            is_made_up=config.data.made_up > 0, span="validation", days=market.split.validation, figure="none",
            value=None, sharpe={},
        )
        for arm in arms
    ]  # fmt: skip


def _configuration(config: Config, market: Market, optimizer: str, plan: Mapping[str, Any] | None) -> str:
    others = {name: bars.hash for name, bars in market.other_bars.items()}
    return configuration_hash(config, market.bars.hash, optimizer, plan, other_bars=others)


def _trial(
    config: Config,
    market: Market,
    record: dict[str, Any],
    program: str,
    run: Path,
    plan: Mapping[str, Any] | None,
) -> Trial:
    span: Literal["validation", "test"] = "test" if "test" in record else "validation"
    if "test" in record or "study" in record:
        part = record["test"] if "test" in record else record["study"]
        figure, value, sharpe = "log_growth", part["log_growth"], part.get("sharpe", {})
    else:
        figure, value, sharpe = "validation_loss", record["encoder"]["validation_loss"], {}
    return Trial(
        program=program, run=str(run.absolute()), optimizer=str(record["optimizer"]), seed=int(record["seed"] or 0),
        configuration=_configuration(config, market, str(record["optimizer"]), plan),
        is_made_up=config.data.made_up > 0, span=span, days=getattr(market.split, span), figure=figure,
        value=value, sharpe=sharpe,
    )  # fmt: skip
