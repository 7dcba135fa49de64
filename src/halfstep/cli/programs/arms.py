"""The arms of a comparison: one optimizer with one seed does the whole chain, in a process of its own.

An arm's folder holds its networks, its curves and ``arm.json``, which is written last: an arm with that file is
finished, another one continues where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from halfstep import files
from halfstep.backtest.metrics import compute_metrics
from halfstep.backtest.registry import sharpe_by_observation
from halfstep.backtest.run import make_test_run
from halfstep.broker.engine import Run
from halfstep.cli.programs.market import Market, load_market
from halfstep.cli.programs.models import contexts_of
from halfstep.cli.programs.processes import Failure, Task, run_side_by_side
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import fit_encoder
from halfstep.cli.user_code import imported
from halfstep.config.load import validated
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.experience.policy import Policy
from halfstep.experience.rollout import trade
from halfstep.experience.store import EpisodeStore
from halfstep.market.timeframes import DAY
from halfstep.progress import SILENT, Progress
from halfstep.training.encoder import EncoderResult
from halfstep.training.optimizers import optimizer_names
from halfstep.training.policy import NeuralPolicy
from halfstep.training.study import StudyResult

Scope = Literal["encoder", "study", "chain"]
"""How far an arm goes: the encoder alone; critic and actor too; the test as well."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One optimizer with one seed."""

    optimizer: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the arm's folder."""
        return f"{self.optimizer}-s{self.seed}"


class ArmResults(NamedTuple):
    """Records of the arms that ended well, in the order that was asked for, and why the others did not."""

    records: list[dict[str, Any]]
    failures: dict[str, Failure]


def arms_of(config: Config) -> list[Arm]:
    """Return the arms of a comparison, seed by seed."""
    return [
        Arm(name, seed) for seed in range(1, config.compare.seeds + 1) for name in config.compare.optimizers
    ]


def check_optimizers(config: Config) -> None:
    """Refuse names of optimizers that nobody registered, before anything is trained.

    Raises:
        ConfigError: a name is unknown; or a file of ``compare.code`` cannot be imported.
    """
    for path in config.compare.code:
        imported(str(path), flag="--compare.code")
    known = optimizer_names()
    for name in config.compare.optimizers:
        if name not in known:
            raise ConfigError(
                f"compare.optimizers: {name!r}, must be one of {', '.join(known)}. "
                "Register others in a Python file named by --compare.code."
            )


def run_arm(
    config: Config,
    market: Market,
    arm: Arm,
    store_folder: Path,
    folder: Path,
    progress: Progress = SILENT,
    *,
    scope: Scope = "chain",
) -> None:
    """Do one arm: encoder; contexts and study; one pass over the test span. ``scope`` says how far."""
    encoder = fit_encoder(config, market, folder, progress, optimizer=arm.optimizer, seed=arm.seed)
    record = _encoder_record(arm, encoder)
    if scope != "encoder":
        contexts = contexts_of(encoder.encoder, market, folder)
        store = EpisodeStore.open(store_folder, expect=market.store_header)
        policy = study_policy(
            config, market, folder, progress, encoder_folder=folder, contexts=contexts, store=store,
            optimizer=arm.optimizer, seed=arm.seed,
        )  # fmt: skip
        _add_policy(record, policy, market, NeuralPolicy(policy.actor, contexts))
        if scope == "chain":
            record["test"] = test_record(market, NeuralPolicy(policy.actor, contexts))
    files.write_json(folder / "arm.json", record)


def run_arms(
    config: Config,
    arms: Sequence[Arm],
    store_folder: Path,
    folder: Path,
    progress: Progress,
    *,
    scope: Scope = "chain",
) -> ArmResults:
    """Run every unfinished arm, several side by side; the records of all that ended well, and what failed."""
    tasks = {arm.name: arm_task(config, arm, store_folder, folder / arm.name, scope=scope) for arm in arms}
    progress.start(f"{len(arms)} arms (optimizer, seed)", 100 * len(arms), "%")
    failures = run_unfinished(config, tasks, folder, progress)
    progress.finish()
    return ArmResults([read_arm(folder / arm.name) for arm in arms if arm.name not in failures], failures)


def arm_task(
    config: Config, arm: Arm, store_folder: Path, folder: Path, *, scope: Scope, with_test: bool = True
) -> Task:
    """Return the task of one arm in a folder; ``config`` may differ from that of other arms."""
    return Task(
        name=folder.name, call=_run_arm, log=folder / "log.txt",
        arguments=(config.model_dump(mode="json"), arm, store_folder, folder, scope, with_test),
    )  # fmt: skip


def run_unfinished(
    config: Config, tasks: Mapping[str, Task], folder: Path, progress: Progress
) -> dict[str, Failure]:
    """Run the tasks of the arms below a folder that are not finished; counts all, a hundred for each."""
    todo = [task for name, task in tasks.items() if not (folder / name / "arm.json").exists()]
    progress.advance(100 * (len(tasks) - len(todo)))
    return run_side_by_side(
        todo, processes=config.run.processes, threads=config.run.threads, code=config.compare.code,
        progress=progress,
    )  # fmt: skip


def read_arm(folder: Path) -> dict[str, Any]:
    """Return the record of a finished arm."""
    record: dict[str, Any] = json.loads((folder / "arm.json").read_text(encoding="utf-8"))
    return record


def _encoder_record(arm: Arm, encoder: EncoderResult) -> dict[str, Any]:
    return {
        "optimizer": arm.optimizer,
        "seed": arm.seed,
        "encoder": {
            "curve": encoder.curve, "losses": encoder.losses, "validation_loss": encoder.validation_loss, "mse": encoder.mse,
            "naive_mse": encoder.naive_mse, "skill": encoder.skill, "updates": encoder.updates,
        },
        "state_bytes": encoder.state_bytes,
        "parameters": _count(encoder.encoder),
        "clock": {"encoder_seconds": encoder.seconds},
    }  # fmt: skip


def _add_policy(record: dict[str, Any], policy: StudyResult, market: Market, trader: NeuralPolicy) -> None:
    first, stop = market.spans.validation
    _, run = trade(trader, market.test_table, market.test_rules, first=first, stop=stop - 1)
    record["study"] = {
        "validation": policy.validation, "log_growth": policy.log_growth, "curve": policy.curve,
        "sharpe": sharpe_of_run(market, run),
    }  # fmt: skip
    record["state_bytes"] += policy.state_bytes
    record["parameters"] += _count(policy.actor) + _count(policy.critic)
    record["clock"]["study_seconds"] = policy.seconds


def test_record(market: Market, trader: Policy) -> dict[str, Any]:
    """Return what a policy's pass over the test span gave."""
    first, stop = market.spans.test
    actions, run = trade(trader, market.test_table, market.test_rules, first=first - 1, stop=stop - 1)
    metrics = compute_metrics(make_test_run(run, actions, market.test_table, market.test_rules))
    return {
        "actions": actions.tolist(),
        "rows": metrics.values(),
        "path": {"first": int(run.bar[0]), "log_growth": run.reward.tolist()},
        "net_profit": float(run.equity[-1] - market.rules.deposit),
        "log_growth": float(run.reward.sum()),
        "sharpe": sharpe_of_run(market, run),
        "status": run.status,
    }


def sharpe_of_run(market: Market, run: Run) -> dict[str, float | None]:
    """Return a run's Sharpe ratios per bar and per day of the server's clock, not annualised."""
    return sharpe_by_observation(run.reward, market.bars.server_time[run.bar] // DAY)


def _count(module: torch.nn.Module) -> int:
    return sum(param.numel() for param in module.parameters())


def _run_arm(
    tree: dict[str, Any],
    arm: Arm,
    store_folder: Path,
    folder: Path,
    scope: Scope,
    with_test: bool,
    progress: Progress,
) -> None:
    config, market = market_of(json.dumps(tree), with_test)
    run_arm(config, market, arm, store_folder, folder, progress, scope=scope)


@lru_cache(maxsize=1)
def market_of(text: str, with_test: bool) -> tuple[Config, Market]:
    """Return a configuration and its market from JSON; a worker process keeps its last."""
    config = validated(json.loads(text), source="the run")
    return config, load_market(config, with_test=with_test)
