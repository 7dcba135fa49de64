"""`halfstep study-encoder`: bars → an encoder that forecasts the next bars of every feature, and its contexts."""

from pathlib import Path
from typing import Any

from rich.table import Table

from halfstep.backtest.registry import record_trials
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.estimates import encoder_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import check_optimizer, contexts_of, encoder_data, model_config
from halfstep.cli.programs.trials import arm_trials
from halfstep.config.tables import Config
from halfstep.nn.config import TpmStatefulConfig
from halfstep.progress import Progress
from halfstep.training.encoder import EncoderResult, train_encoder
from halfstep.training.policy import Contexts
from halfstep.training.ranks import ALONE, Ranks


def study_encoder(
    config: Config, market: Market, folder: Path, progress: Progress, *, optimizer: str, seed: int
) -> tuple[EncoderResult, Contexts]:
    """Train an encoder in a folder, and encode every bar with it."""
    result = fit_encoder(config, market, folder, progress, optimizer=optimizer, seed=seed)
    return result, contexts_of(result.encoder, market, folder)


def fit_encoder(
    config: Config,
    market: Market,
    folder: Path,
    progress: Progress,
    *,
    optimizer: str,
    seed: int,
    ranks: Ranks = ALONE,
) -> EncoderResult:
    """Train an encoder in a folder; continues what was interrupted there."""
    return train_encoder(
        model_config(config), encoder_data(market), config.study_encoder, optimizer=optimizer,
        optimizer_settings=config.optim, seed=seed, folder=folder, progress=progress, ranks=ranks,
    )  # fmt: skip


def encoder_metrics(result: EncoderResult, *, optimizer: str, seed: int) -> dict[str, Any]:
    """Return the figures of an encoder; times of the clock stand under ``clock``."""
    return {
        "optimizer": optimizer,
        "seed": seed,
        "encoder": {
            "curve": result.curve, "validation_loss": result.validation_loss, "mse": result.mse,
            "naive_mse": result.naive_mse, "skill": result.skill, "updates": result.updates,
            "state_bytes": result.state_bytes,
            "parameters": sum(param.numel() for param in result.encoder.parameters()),
        },
        "clock": {"encoder_seconds": result.seconds},
    }  # fmt: skip


def _plan(job: Job[NoInputs]) -> list[Step]:
    return encoder_steps(job.config, job.market)


def _work(job: Job[NoInputs]) -> Outcome:
    optimizer, seed = job.config.run.optimizer, job.config.run.seed
    result = fit_encoder(
        job.config, job.market, job.path, job.progress, optimizer=optimizer, seed=seed, ranks=job.ranks
    )
    if not job.ranks.is_first:
        return Outcome(metrics={})
    contexts_of(result.encoder, job.market, job.path)
    metrics = encoder_metrics(result, optimizer=optimizer, seed=seed)
    record_trials(arm_trials(job.config, job.market, [metrics], program="study-encoder", run=job.path))
    return Outcome(
        metrics=metrics,
        shown=(_skill_table(job.market, result), _in_words(job.market, result)),
    )


def _skill_table(market: Market, result: EncoderResult) -> Table:
    table = Table(
        title="Forecast of the next bars on the validation span, in units of the window's deviation"
    )
    for heading in ("feature", "error", "best naive error", "skill"):
        table.add_column(heading, justify="left" if heading == "feature" else "right")
    for name, mse, naive, skill in zip(
        market.features.names, result.mse, result.naive_mse, result.skill, strict=True
    ):
        table.add_row(name, f"{mse:.3f}", f"{naive:.3f}", f"{skill:+.3f}")
    return table


def _in_words(market: Market, result: EncoderResult) -> str:
    without = [name for name, skill in zip(market.features.names, result.skill, strict=True) if skill <= 0]
    words = f"No skill above 0: {', '.join(without)}. " if without else "Every feature has a skill above 0. "
    return (
        f"{words}Validation loss {result.validation_loss:.4f} after {len(result.curve)} epochs; "
        f"optimizer state {result.state_bytes:,} bytes."
    )


def _open(request: Request[NoInputs], market: Market) -> None:  # noqa: ARG001  # the form of all programs
    check_optimizer(request.config)


def _shared(config: Config) -> dict[str, int]:
    if isinstance(model_config(config).encoder, TpmStatefulConfig):
        return {"study_encoder.streams": config.study_encoder.streams}
    return {"study_encoder.batch": config.study_encoder.batch}


PROGRAM = Program(verb="study-encoder", open=_open, plan=_plan, work=_work, shared=_shared)
