"""The whole chain from bars to a traded test span, as short as a test can have it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from halfstep.broker.engine import Run, run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.cli.programs.models import model_config, noise_policy
from halfstep.config.recipes import default
from halfstep.experience.policy import Policy
from halfstep.experience.research import research
from halfstep.experience.rollout import trade
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.bars import Bars
from halfstep.market.features import compute_features
from halfstep.market.indicators import atr_points
from halfstep.market.instruments import Instrument
from halfstep.training.encoder import train_encoder
from halfstep.training.policy import NeuralPolicy, encode_contexts
from halfstep.training.settings import EncoderTraining, OptimizerSettings, StudySettings
from halfstep.training.study import StudyData, StudyResult, study
from halfstep.training.windows import EncoderData

RULES = AccountRules(close_at_end=True)
SIZES = model_config(default())
Span = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What a chain ends with: the last round's study, and the test span traded with its mean action."""

    study: StudyResult
    run: Run
    table: MarketTable
    span: Span


def chain(
    bars: Bars,
    traded: Instrument,
    spans: tuple[Span, Span, Span],
    folder: Path,
    *,
    seed: int,
    settings: StudySettings,
    rounds: int = 2,
    passes: int = 64,
    epochs: int = 5,
) -> Outcome:
    """Train an encoder, collect trajectories, train critic and actor, collect again with that actor, train on, and trade."""
    train, validation, test = spans
    features = compute_features(bars, "robust9")
    table = market_table(bars, traded, RULES, atr_points=atr_points(bars))
    values = torch.from_numpy(features.values)
    encoder = train_encoder(
        SIZES,
        EncoderData(
            values=values, names=features.names, train=train, validation=validation, settled=features.settled,
            data_hash=bars.hash,
        ),
        EncoderTraining(epochs=epochs), optimizer="adam_mini", optimizer_settings=OptimizerSettings(), seed=seed,
        folder=folder,
    ).encoder  # fmt: skip
    contexts = encode_contexts(encoder, values, train[0], settled=features.settled)
    header = StoreHeader.of(
        bars, feature_set=features.set_id, rules=RULES, instrument=traded, discount=settings.discount
    )
    store = EpisodeStore.create(folder / "store", header, bars)
    policy: Policy = noise_policy(default())
    result: StudyResult | None = None
    for number in range(rounds):
        research(
            table=table, rules=RULES, policy=policy, settings=ResearchSettings(passes=passes, group=passes),
            store=store, round_number=number, span=train, seed=seed,
        )  # fmt: skip
        data = StudyData(
            store=store, contexts=contexts, table=table, rules=RULES, train=train, validation=validation
        )
        result = study(
            SIZES, data, settings, optimizer="adam_mini", optimizer_settings=OptimizerSettings(),
            seed=seed, folder=folder / f"round-{number}",
            previous=None if number == 0 else folder / f"round-{number - 1}",
        )  # fmt: skip
        policy = NeuralPolicy(result.actor, contexts)
    assert result is not None
    _, run = trade(policy, table, RULES, first=test[0] - 1, stop=test[1] - 1)
    return Outcome(result, run, table, test)


def follow(table: MarketTable, sign: np.ndarray, span: Span, lots: float = 1.0) -> Run:
    """Return the run of holding a volume on the side of a sign, bar by bar."""
    rows = sign[span[0] - 1 : span[1] - 1]
    actions = np.zeros((len(rows), 6))
    actions[rows > 0, :3] = (lots, 1.0, 1.0)
    actions[rows < 0, 3:] = (lots, 1.0, 1.0)
    return run_actions(table, RULES, actions, span[0] - 1)


def profit(run: Run) -> float:
    """Return what a run earned, account currency."""
    return float(run.equity[-1]) - RULES.deposit
