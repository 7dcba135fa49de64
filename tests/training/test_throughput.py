"""Collecting trajectories is fast enough. Times are generous: the machine of a test does other things, too."""

import time
from pathlib import Path

import pytest
import torch

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.experience.policy import NoisePolicy, Policy
from halfstep.experience.research import ResearchTask, collect_group, play, report_round
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.features import compute_features
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars
from halfstep.nn.build import build_actor, build_encoder
from halfstep.nn.presets import preset
from halfstep.progress import SILENT
from halfstep.training.policy import Contexts, NeuralPolicy, encode_contexts

RULES = AccountRules(deposit=1e7)  # nobody is ruined: every decision is made
YEAR = 6200


def task_of(table: MarketTable, policy: Policy, *, steps: int, passes: int) -> ResearchTask:
    return ResearchTask(
        table=table, rules=RULES, policy=policy, settings=ResearchSettings(passes=passes, length=steps),
        round_number=0, span=(630, len(table)), seed=1,
    )  # fmt: skip


@pytest.mark.pitfall("U16")
def test_small_research_throughput() -> None:
    table = market_table(random_bars(1100, seed=1), instrument("EURUSD"), RULES)
    config = preset("default")
    contexts = Contexts(first=0, rows=torch.randn(1100, 9, config.encoder.context_width), encoder_hash="")
    for policy, bound in (
        (NoisePolicy(1.0), 1_000_000 / 9),
        (NeuralPolicy(build_actor(config, seed=0), contexts), 3_100_000 / 120 / 3),
    ):
        play(task_of(table, policy, steps=5, passes=250), 0)  # compiles
        task = task_of(table, policy, steps=300, passes=250)
        begin = time.process_time()
        _, tally = play(task, 0)
        assert tally.decisions == 75_000
        assert tally.decisions / (time.process_time() - begin) > bound


@pytest.mark.slow
@pytest.mark.pitfall("U16")
def test_research_throughput(tmp_path: Path) -> None:
    bars = random_bars(631 + YEAR, seed=1)
    table, features, config = (
        market_table(bars, instrument("EURUSD"), RULES),
        compute_features(bars),
        preset("default"),
    )
    header = StoreHeader.of(
        bars, feature_set=features.set_id, rules=RULES, instrument=table.instrument, discount=0.99
    )
    store = EpisodeStore.create(tmp_path, header, bars)
    begin = time.perf_counter()
    encoder = build_encoder(config, feature_names=features.names, seed=0)
    encoder.norm.reference_std.fill_(1.0)
    contexts = encode_contexts(encoder, torch.from_numpy(features.values), 630, settled=features.settled)
    task = task_of(table, NeuralPolicy(build_actor(config, seed=0), contexts), steps=YEAR, passes=500)
    for number in range(2):
        collect_group(number, task, store, SILENT)
    seconds = time.perf_counter() - begin
    assert report_round(task, store, [0, 1], seconds).tally.decisions == 500 * YEAR
    assert seconds < 120
