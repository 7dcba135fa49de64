"""A small made-up market with features, trajectories and contexts for every test of training."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.research import research
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.features import compute_features
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars
from halfstep.nn.build import build_encoder
from halfstep.nn.presets import preset
from halfstep.training.policy import Contexts, encode_contexts
from halfstep.training.study import StudyData
from halfstep.training.windows import EncoderData

torch.set_num_threads(1)  # networks this small lose more to waiting for each other than they gain

TRAIN, VALIDATION, TEST = (630, 900), (900, 1000), (1000, 1100)
RULES = AccountRules(close_at_end=True)


@dataclass(frozen=True)
class World:
    """What the tests train on."""

    table: MarketTable
    encoder_data: EncoderData
    study_data: StudyData
    contexts: Contexts


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "store")


def make_world(folder: Path) -> World:
    """Return the market, with the trajectories of a folder; they are made where there are none."""
    bars = random_bars(1100, seed=3)
    features = compute_features(bars, "robust9")
    table = market_table(bars, instrument("EURUSD"), RULES)
    encoder_data = EncoderData(
        values=torch.from_numpy(features.values), names=features.names, train=TRAIN, validation=VALIDATION,
        settled=features.settled, data_hash=bars.hash,
    )  # fmt: skip
    header = StoreHeader.of(
        bars, feature_set=features.set_id, rules=RULES, instrument=table.instrument, discount=0.99
    )
    if folder.exists():
        store = EpisodeStore.open(folder, expect=header)
    else:
        store = EpisodeStore.create(folder, header, bars)
        research(
            table=table, rules=RULES, policy=NoisePolicy(RULES.lot_cap),
            settings=ResearchSettings(passes=12, group=12), store=store, round_number=0, span=TRAIN, seed=1,
        )  # fmt: skip
    encoder = build_encoder(preset("tiny"), feature_names=features.names, seed=0)
    encoder.norm.reference_std.fill_(1.0)
    contexts = encode_contexts(encoder, encoder_data.values, TRAIN[0], settled=features.settled)
    study_data = StudyData(
        store=store, contexts=contexts, table=table, rules=RULES, train=TRAIN, validation=VALIDATION
    )
    return World(table, encoder_data, study_data, contexts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "training"
