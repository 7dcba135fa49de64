"""How long the steps of a plan take: measured rates of two cores, for ``--dry-run``. Estimates, never promises."""

from types import MappingProxyType

from halfstep.cli.frame import Step
from halfstep.cli.programs.market import Market
from halfstep.config.tables import Config
from halfstep.nn.presets import preset

START_SECONDS = 8.0  # reading, checking, features, first compilation
SAMPLES_PER_SECOND = MappingProxyType({"tiny": 12_000.0, "default": 2_400.0, "reference": 60.0})
UPDATES_PER_SECOND = MappingProxyType({"tiny": 90.0, "default": 35.0, "reference": 4.0})
DECISIONS_PER_SECOND = MappingProxyType({"tiny": 100_000.0, "default": 60_000.0, "reference": 15_000.0})


def encoder_steps(config: Config, market: Market) -> list[Step]:
    """Return the plan of an encoder's training."""
    settings = config.study_encoder
    first, stop = market.spans.train
    windows = max(0, stop - first - preset(config.model.preset).encoder.horizon)
    samples = settings.epochs * windows
    return [
        Step(
            what=f"encoder, {settings.epochs} epochs of {windows:,} windows",
            seconds=samples / SAMPLES_PER_SECOND[config.model.preset],
            stop=f"after {settings.patience} epochs without a better validation loss",
        )
    ]


def research_steps(config: Config, market: Market, rounds: int = 1) -> list[Step]:
    """Return the plan of rounds of trajectories."""
    first, stop = market.spans.train
    decisions = config.research.passes * (config.research.length or stop - first - 1)
    return [
        Step(
            what=f"trajectories, round {number}: {config.research.passes} passes, {decisions:,} decisions",
            seconds=decisions / DECISIONS_PER_SECOND[config.model.preset],
        )
        for number in range(rounds)
    ]


def study_steps(config: Config) -> list[Step]:
    """Return the plan of a study."""
    return [
        Step(
            what=f"critic and actor, {config.study.updates:,} updates of {config.study.batch} steps",
            seconds=config.study.updates / UPDATES_PER_SECOND[config.model.preset],
        )
    ]


def run_steps(config: Config, market: Market) -> list[Step]:
    """Return the plan of the whole chain."""
    start = Step(what=f"read, check and compute features of {len(market.bars):,} bars", seconds=START_SECONDS)
    encoder, study = encoder_steps(config, market), study_steps(config)
    rounds = research_steps(config, market, config.run.rounds)
    steps = [start, rounds[0]]
    if len(rounds) > 1:
        steps += encoder
        for further in rounds[1:]:
            steps += [*study, further]
    arms = len(config.compare.optimizers) * config.compare.seeds
    each = sum(step.seconds or 0.0 for step in (*encoder, *study))
    processes = min(config.run.processes, arms)
    return [
        *steps,
        Step(
            what=f"{arms} arms ({', '.join(config.compare.optimizers)}; {config.compare.seeds} seeds), each an encoder "
            f"and a study, {processes} side by side",
            seconds=arms * each / processes,
            stop=encoder[0].stop,
        ),
        Step(what="time of a step, test, report", seconds=15.0),
    ]
