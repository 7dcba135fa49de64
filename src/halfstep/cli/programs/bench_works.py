"""What is measured: pieces of work on made-up bars, for ``halfstep bench`` and for the scripts in ``benchmarks/``.

A `Work` is how many units (samples, bars, decisions) one call makes, and the call. Everything is made from fixed
seeds, so that two machines measure the same.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from halfstep.broker.engine import BatchedAccounts
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import market_table
from halfstep.cli.programs.bench_markets import EURUSD, empty_store, market
from halfstep.cli.programs.models import model_config
from halfstep.config.recipes import default
from halfstep.experience.policy import NoisePolicy, Policy
from halfstep.experience.research import research
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore
from halfstep.market.bars import Bars
from halfstep.market.features import compute_features
from halfstep.market.synthetic import random_bars
from halfstep.nn.build import build_actor, build_encoder
from halfstep.nn.encoder import Encoder
from halfstep.nn.loss import fredf_loss
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import partition_model
from halfstep.training.batches import make_batches
from halfstep.training.loop import Learner
from halfstep.training.networks import build_networks
from halfstep.training.policy import NeuralPolicy, encode_contexts
from halfstep.training.samples import Batches
from halfstep.training.settings import EncoderTraining, OptimizerSettings, StudySettings
from halfstep.training.study import StudyData, Trainer
from halfstep.training.windows import EncoderData, WindowTable, standardised_target, window_origins

OURS, FUSED = "AdamMini", "AdamW fused"
SIZES = model_config(default())
BARS, TRAIN, VALIDATION = 3600, (630, 3300), (3300, 3600)
YEAR = 6207  # hourly bars
UPDATES = 20  # in one call


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One piece of work.

    Attributes:
        units: samples, bars, steps or decisions of one call.
        call: makes them.
        before: makes ready for a call, untimed.
    """

    units: int
    call: Callable[[], object]
    before: Callable[[], object] = lambda: None


def transformer(layers: int, width: int, heads: int) -> nn.Module:
    """Return a stack of encoder layers; each has 12 tensors."""
    return nn.Sequential(
        *(nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True) for _ in range(layers))
    )


def optimizer_steps(model: nn.Module) -> dict[str, Callable[[], object]]:
    """Return a step of AdamMini and one of torch's fused AdamW over equal models with random gradients."""
    models = {OURS: model, FUSED: copy.deepcopy(model)}
    for each in models.values():
        generator = torch.Generator().manual_seed(0)
        for param in each.parameters():
            param.grad = torch.randn(param.shape, generator=generator)
    return {
        OURS: AdamMini(models[OURS].parameters(), partition=partition_model(models[OURS])).step,
        FUSED: torch.optim.AdamW(models[FUSED].parameters(), fused=True).step,
    }


def account_steps(accounts: int, calls: int) -> Work:
    """Return steps of accounts in lockstep under random actions, under the default rules."""
    rules, kinds = AccountRules(), 8  # so many arrays of actions that they are not always in the cache
    table = market(YEAR, rules)
    batch = BatchedAccounts(table, rules, accounts)
    actions = np.random.default_rng(0).random((kinds, accounts, 6))

    def step() -> None:
        for number in range(calls):
            batch.step(actions[number % kinds])

    return Work(
        units=accounts * calls, call=step, before=lambda: batch.reset(first=1, stop=len(table.bars) - 1)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The default encoder, and made-up bars for it."""

    bars: Bars
    encoder: Encoder
    data: EncoderData


def encoder_setting(bars: int = BARS) -> Setting:
    """Return an untrained default encoder whose reference is set, with features and spans."""
    made = random_bars(bars, seed=1)
    features = compute_features(made, "robust9")
    data = EncoderData(
        values=torch.from_numpy(features.values), names=features.names, train=TRAIN, validation=VALIDATION,
        settled=features.settled, data_hash=made.hash,
    )  # fmt: skip
    encoder = build_encoder(SIZES, feature_names=features.names, seed=0)
    encoder.norm.reference_std.fill_(1.0)
    return Setting(bars=made, encoder=encoder, data=data)


def encoder_updates(setting: Setting) -> Work:
    """Return updates of the encoder by Adam-mini: windows, loss, gradients, clipping, step."""
    encoder, data, settings = setting.encoder, setting.data, EncoderTraining()
    windows = WindowTable(encoder, data, VALIDATION[0])
    origins = window_origins(TRAIN, encoder, data.settled)
    batches = make_batches(encoder, windows, origins, settings, 1)
    learner = Learner(encoder, "adam_mini", OptimizerSettings(), 10_000)

    def train() -> None:
        for number in range(UPDATES):
            output, y, _, _ = batches.forecast(0, number)
            target = standardised_target(encoder, y, output.stats)
            learner.update(fredf_loss(output.latent, target, settings.alpha).total)

    return Work(units=UPDATES * settings.batch, call=train)


def context_table(setting: Setting) -> Work:
    """Return the encoding of every bar from the training span on."""
    values, settled, first = setting.data.values, setting.data.settled, TRAIN[0]
    return Work(
        units=len(values) - first,
        call=lambda: encode_contexts(setting.encoder, values, first, settled=settled),
    )


def study_data(setting: Setting, folder: Path) -> StudyData:
    """Return trajectories of noise over the training span, kept in a folder, and the context of each bar."""
    rules = AccountRules()
    table = market_table(setting.bars, EURUSD, rules)
    store = empty_store(folder, table, rules)
    research(
        table=table, rules=rules, policy=NoisePolicy(1.0), settings=ResearchSettings(passes=64, group=64), store=store,
        round_number=0, span=TRAIN, seed=1,
    )  # fmt: skip
    contexts = encode_contexts(setting.encoder, setting.data.values, TRAIN[0], settled=setting.data.settled)
    return StudyData(
        store=store, contexts=contexts, table=table, rules=rules, train=TRAIN, validation=VALIDATION
    )


def study_updates(data: StudyData, settings: StudySettings) -> Work:
    """Return updates of critic and actor by Adam-mini on stored steps."""
    networks = build_networks(SIZES, settings, seed=1)
    trainer = Trainer(networks, Batches(data, settings, 1), settings, "adam_mini", OptimizerSettings(), 1)
    return Work(
        units=UPDATES * settings.batch,
        call=lambda: [trainer.update(number) for number in range(UPDATES)],
    )


def collecting(policy: Policy | None, folder: Path, *, passes: int, length: int) -> Work:
    """Return passes that are collected and written; nobody is ruined (large deposit), so every decision is made.

    Args:
        policy: acts; None: the default actor, for which the bars are encoded first.
        folder: takes one store per call.
    """
    rules, setting = AccountRules(deposit=1e7), encoder_setting()
    table = market_table(setting.bars, EURUSD, rules)
    settings = ResearchSettings(passes=passes, group=passes, length=length)
    actor, stores = build_actor(SIZES, seed=0), list[EpisodeStore]()
    span = (TRAIN[0], TRAIN[0] + length + 1)

    def collect() -> None:
        acting = policy
        if acting is None:
            values, settled = setting.data.values[: span[1]], setting.data.settled
            acting = NeuralPolicy(actor, encode_contexts(setting.encoder, values, span[0], settled=settled))
        research(
            table=table, rules=rules, policy=acting, settings=settings, store=stores[-1], round_number=0,
            span=span, seed=1,
        )  # fmt: skip

    return Work(
        units=passes * length,
        call=collect,
        before=lambda: stores.append(empty_store(folder / f"store-{len(stores)}", table, rules)),
    )
