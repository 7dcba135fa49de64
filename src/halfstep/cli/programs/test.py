"""`halfstep test`: trained models → one pass each over the test span, and what the seeds say together.

Each model trades once, from the deposit, with its most likely action; ``--sampled`` draws actions instead, from a seed
that must be named, so that every test can be repeated to the byte.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from rich.table import Table

from halfstep import files
from halfstep.backtest.figures import number
from halfstep.backtest.registry import record_trials
from halfstep.backtest.statistics import interquartile_mean, seed_interval
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import TestInputs
from halfstep.cli.programs.arms import test_record
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import contexts_of, load_actor, load_encoder, needed_model
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.report import write_report
from halfstep.cli.programs.summary import record_name, summarise
from halfstep.cli.programs.trials import arm_trials
from halfstep.cli.programs.words import command_line
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.experience.policy import ACTION_SIZE, Policy
from halfstep.experience.seeds import generator
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor
from halfstep.training.policy import NeuralPolicy, weights_hash

SHOWN_ROWS = (
    "net_profit", "profit_factor", "equity_dd_maximal", "total_trades", "profit_trades", "sharpe_ratio", "log_growth",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained policy and where it comes from."""

    folder: Path
    encoder: Encoder
    actor: Actor
    optimizer: str | None
    seed: int | None


class SampledPolicy:
    """A policy that draws its actions, one set of noise for each decision; the same seed gives the same actions."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self._policy, self._random = policy, generator(seed, "sampled test")
        self.hash = policy.hash

    def prepare(self, first: int, last: int) -> Any:
        """Return what the policy prepares."""
        return self._policy.prepare(first, last)

    def act(
        self,
        account: Float32[np.ndarray, "path 12"],
        prepared: Any,
        row: int,
        noise: Float32[np.ndarray, "path 6"] | None,  # noqa: ARG002  # replaced by its own
    ) -> Float64[np.ndarray, "path 6"]:
        """Return netted actions drawn from the policy's distribution."""
        drawn = self._random.standard_normal((len(account), ACTION_SIZE), np.float32)
        return self._policy.act(account, prepared, row, drawn)


def open_models(folders: Sequence[Path], config: Config, market: Market) -> tuple[Model, ...]:
    """Return the models of folders.

    Raises:
        ConfigError: no folder, or one twice.
        MissingInputError: a folder has no encoder or no actor.
        CheckpointError: of other sizes or features, or trained on other bars or days.
    """
    if not folders:
        raise ConfigError("models: none given. Name their folders with --models; halfstep study makes one.")
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise ConfigError(f"models: {twice[0]} is named twice. Name each folder once; a seed counts once.")
    return tuple(_open_model(folder, config, market) for folder in folders)


def _open_model(folder: Path, config: Config, market: Market) -> Model:
    encoder = load_encoder(folder, config, market)
    about: dict[str, Any] = {}
    for name in ("arm.json", "metrics.json"):
        if (folder / name).is_file():
            about = json.loads((folder / name).read_text(encoding="utf-8"))
            break
    return Model(
        folder=folder, encoder=encoder, actor=load_actor(folder, config, weights_hash(encoder)),
        optimizer=about.get("optimizer"), seed=about.get("seed"),
    )  # fmt: skip


def record_of_model(model: Model, market: Market, *, sampling_seed: int | None) -> dict[str, Any]:
    """Return the record of one model's pass over the test span; its actions are drawn where a seed is given."""
    contexts = contexts_of(model.encoder, market, None, model.folder)
    policy: Policy = NeuralPolicy(model.actor, contexts)
    record = test_record(market, policy if sampling_seed is None else SampledPolicy(policy, sampling_seed))
    about = {"models": str(model.folder), "optimizer": model.optimizer, "seed": model.seed}
    return about | {"test": record}


def rows_over_models(
    records: Sequence[dict[str, Any]], *, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return each row of the report over all models: interquartile mean, 95 % bootstrap interval, least and greatest.

    A model whose row is undefined does not count in that row; ``models`` says how many did.
    """
    rows = {}
    for key in records[0]["test"]["rows"]:
        values = np.array(
            [value for record in records if (value := record["test"]["rows"][key]) is not None], np.float64
        )
        values = values[np.isfinite(values)]
        row: dict[str, Any] = {"models": len(values), "values": values.tolist()}
        if len(values):
            low, high = seed_interval(values, draws=draws, seed=seed)
            row |= {
                "mean": interquartile_mean(values), "low": float(low), "high": float(high),
                "least": float(values.min()), "greatest": float(values.max()),
            }  # fmt: skip
        rows[key] = row
    return rows


def _open(request: Request[TestInputs], market: Market) -> tuple[Model, ...]:
    if request.inputs.sampled and request.inputs.seed is None:
        raise ConfigError("sampled: actions are drawn, but no seed is given. Name one with --seed.")
    return open_models(request.inputs.models, request.config, market)


def _parents(inputs: TestInputs) -> dict[str, Path]:
    return {
        f"{kind} {number}": needed_model(folder, kind)
        for number, folder in enumerate(inputs.models, 1)
        for kind in ("encoder", "actor")
    }


def _plan(job: Job[TestInputs]) -> list[Step]:
    first, stop = job.market.spans.test
    return [
        Step(
            what=f"test of {len(job.inputs.models)} models on {stop - first:,} bars, "
            f"{job.market.split.test[0]} to {job.market.split.test[1]}; opens the test span",
            seconds=1.0 * len(job.inputs.models),
        )
    ]


def _work(job: Job[TestInputs]) -> Outcome:
    models: tuple[Model, ...] = job.opened
    config, market, folder = job.config, job.market, job.folder.path
    openings = open_test(config, market, folder)  # before a model trades it
    sampling = job.inputs.seed if job.inputs.sampled else None
    job.progress.start("test", len(models), "models")
    records = []
    for place, model in enumerate(models, 1):
        path = folder / "tests" / f"model-{place}.json"
        if not path.exists():
            with torch.inference_mode():
                record = record_of_model(model, market, sampling_seed=sampling)
            files.write_json(path, record)
        records.append(json.loads(path.read_text(encoding="utf-8")))
        job.progress.advance(1, net_profit=records[-1]["test"]["net_profit"])
    job.progress.finish()
    plan = {"models": sorted(weights_hash(model.actor) for model in models)}  # seeds of one configuration
    record_trials(arm_trials(config, market, records, program="test", run=folder, plan=plan))
    report = summarise(
        config, market, (named := _as_seeds(records)), None, openings=openings, command=command_line("test", config, *words_of(job.inputs)),
        folders={record_name(record): model.folder for record, model in zip(named, models, strict=True)},
        as_tested=lambda policy: policy if sampling is None else SampledPolicy(policy, sampling),
    )  # fmt: skip
    page = write_report(report, folder)
    rows = rows_over_models(records, draws=config.test.bootstrap_draws, seed=config.run.seed)
    metrics = {
        "sampling_seed": sampling,
        "openings": openings,
        "span": list(market.split.test),
        "rows": rows,
        "models": [
            {**record, "test": {k: v for k, v in record["test"].items() if k != "actions"}}
            for record in records
        ],
    }
    shown = (_table(market, records, rows), _in_words(records, openings), report.verdict, f"Report: {page}")
    return Outcome(metrics=metrics, shown=shown)


def words_of(inputs: TestInputs) -> list[str]:
    """Return the words of the command line that name the inputs."""
    sampled = ["--sampled", "--seed", str(inputs.seed)] if inputs.sampled else []
    return ["--models", *map(str, inputs.models), *sampled]


def _as_seeds(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records that the report takes for seeds of one training; numbered, where their own seeds do not tell."""
    optimizers, seeds = {record["optimizer"] for record in records}, [record["seed"] for record in records]
    optimizer = next(iter(optimizers)) if len(optimizers) == 1 else None
    if None in seeds or len(set(seeds)) < len(seeds):
        seeds = list(range(1, len(records) + 1))
    return [
        record | {"optimizer": optimizer or "models", "seed": seed}
        for record, seed in zip(records, seeds, strict=True)
    ]


def _table(market: Market, records: Sequence[dict[str, Any]], rows: dict[str, dict[str, Any]]) -> Table:
    days = " to ".join(market.split.test)
    table = Table(
        title=f"{market.bars.symbol} {market.bars.timeframe.name}, test {days}, {len(records)} models"
    )
    for heading in ("row", "interquartile mean", "95 %", "least", "greatest"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    for key in (key for key in SHOWN_ROWS if key in rows):
        row = rows[key]
        if row["models"]:
            interval = f"{number(row['low'])} … {number(row['high'])}"
            table.add_row(key, number(row["mean"]), interval, number(row["least"]), number(row["greatest"]))
        else:
            table.add_row(key, "--", "--", "--", "--")
    return table


def _in_words(records: Sequence[dict[str, Any]], openings: int) -> str:
    nets = [record["test"]["net_profit"] for record in records]
    worst, best = int(np.argmin(nets)), int(np.argmax(nets))
    times = "once" if openings == 1 else f"{openings} times"
    sentence = f"The test span was opened {times} so far."
    if len(records) > 1:
        sentence = (
            f"Least net profit {number(nets[worst])} ({records[worst]['models']}), greatest {number(nets[best])} "
            f"({records[best]['models']}); never quote the best alone. {sentence}"
        )
    return sentence


PROGRAM = Program(verb="test", open=_open, parents=_parents, plan=_plan, work=_work)
