"""`halfstep study`: trajectories and an encoder → a critic and an actor, chosen on the validation span."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from halfstep.backtest.registry import record_trials
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import StudyInputs
from halfstep.cli.programs.episodes import episodes_folder, trainable_store
from halfstep.cli.programs.estimates import study_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import (
    carry_encoder,
    check_optimizer,
    contexts_of,
    load_encoder,
    model_config,
    needed_model,
)
from halfstep.cli.programs.trials import arm_trials
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.experience.store import EpisodeStore
from halfstep.nn.encoder import Encoder
from halfstep.progress import Progress
from halfstep.training.networks import build_networks, load_networks
from halfstep.training.policy import Contexts, weights_hash
from halfstep.training.ranks import ALONE, Ranks
from halfstep.training.study import StudyData, StudyResult, study


def study_policy(
    config: Config,
    market: Market,
    folder: Path,
    progress: Progress,
    *,
    encoder_folder: Path,
    contexts: Contexts,
    store: EpisodeStore,
    optimizer: str,
    seed: int,
    previous: Path | None = None,
    ranks: Ranks = ALONE,
) -> StudyResult:
    """Train critic and actor in a folder, and carry their encoder on; continues what was interrupted there.

    Args:
        previous: folder of the study of the round before, whose networks this one goes on from; None: fresh ones.
    """
    if ranks.is_first:
        carry_encoder(encoder_folder, folder)
    data = StudyData(
        store=store, contexts=contexts, table=market.test_table, rules=market.test_rules,
        train=market.spans.train, validation=market.spans.validation,
    )  # fmt: skip
    return study(
        model_config(config), data, config.study, optimizer=optimizer, optimizer_settings=config.optim,
        seed=seed, folder=folder, previous=previous, progress=progress, ranks=ranks,
    )  # fmt: skip


def study_metrics(result: StudyResult, *, optimizer: str, seed: int) -> dict[str, Any]:
    """Return the figures of a study; times of the clock stand under ``clock``."""
    modules = (result.actor, result.critic)
    return {
        "optimizer": optimizer,
        "seed": seed,
        "study": {
            "validation": result.validation, "log_growth": result.log_growth, "curve": result.curve,
            "state_bytes": result.state_bytes, "updates": result.updates, "warnings": list(result.warnings),
            "parameters": sum(param.numel() for module in modules for param in module.parameters()),
        },
        "clock": {"study_seconds": result.seconds},
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Opened:
    encoder_folder: Path
    encoder: Encoder
    store: EpisodeStore


def _open(request: Request[StudyInputs], market: Market) -> _Opened:
    check_optimizer(request.config)
    given = request.inputs
    if given.encoder is None:
        raise ConfigError(
            "encoder: not given. Name its folder with --encoder; halfstep study-encoder makes one."
        )
    if given.episodes is None:
        raise ConfigError(
            "episodes: not given. Name their folder with --episodes; halfstep research makes one."
        )
    encoder = load_encoder(given.encoder, request.config, market)
    if given.previous is not None:
        _check_previous(given.previous, request.config, encoder)
    return _Opened(
        encoder_folder=given.encoder,
        encoder=encoder,
        store=trainable_store(
            given.episodes, market, allow_leak=given.allow_leak, drop_damaged=given.drop_damaged
        ),
    )


def _check_previous(folder: Path, config: Config, encoder: Encoder) -> None:
    """Refuse networks of an earlier study that this one cannot go on from.

    Raises:
        MissingInputError: one is absent.
        CheckpointError: of other sizes, or of another encoder.
    """
    networks = build_networks(model_config(config), config.study, seed=config.run.seed)
    needed_model(folder, "actor")
    load_networks(networks, folder / "models", encoder_hash=weights_hash(encoder), scale=1.0)


def _parents(inputs: StudyInputs) -> dict[str, Path]:
    assert inputs.encoder is not None  # _open has looked
    assert inputs.episodes is not None
    found = {
        "encoder": needed_model(inputs.encoder, "encoder"),
        "episodes": episodes_folder(inputs.episodes),
    }
    return found if inputs.previous is None else {**found, "previous": inputs.previous / "models"}


def _plan(job: Job[StudyInputs]) -> list[Step]:
    return study_steps(job.config)


def _work(job: Job[StudyInputs]) -> Outcome:
    opened: _Opened = job.opened
    optimizer, seed = job.config.run.optimizer, job.config.run.seed
    contexts = job.ranks.from_first(contexts_of, opened.encoder, job.market, job.path, opened.encoder_folder)
    result = study_policy(
        job.config, job.market, job.path, job.progress, encoder_folder=opened.encoder_folder, contexts=contexts,
        store=opened.store, optimizer=optimizer, seed=seed, previous=job.inputs.previous, ranks=job.ranks,
    )  # fmt: skip
    if not job.ranks.is_first:
        return Outcome(metrics={})
    metrics = study_metrics(result, optimizer=optimizer, seed=seed)
    record_trials(arm_trials(job.config, job.market, [metrics], program="study", run=job.path))
    return Outcome(
        metrics=_encoder_figures(opened.encoder_folder) | metrics,
        shown=(_validation_table(result), *result.warnings),
    )


def _encoder_figures(folder: Path) -> dict[str, Any]:
    """Return what the encoder's own program wrote about it, so that a later report needs one folder alone."""
    path = folder / "metrics.json"
    figures = json.loads(path.read_text(encoding="utf-8")).get("encoder") if path.is_file() else None
    return {} if figures is None else {"encoder": figures}


def _validation_table(result: StudyResult) -> Table:
    table = Table(title="The mean action on the validation span")
    for heading in ("update", "log growth", "deals", ""):
        table.add_column(heading, justify="right")
    best = max(result.validation, key=lambda point: point["log_growth"])  # the first of equals
    for point in result.validation:
        kept = "kept" if point is best else ""
        table.add_row(f"{point['update']:,}", f"{point['log_growth']:+.5f}", f"{point['deals']:.0f}", kept)
    return table


def _shared(config: Config) -> dict[str, int]:
    return {"study.batch": config.study.batch}


PROGRAM = Program(verb="study", open=_open, parents=_parents, plan=_plan, work=_work, shared=_shared)
