"""Collecting trajectories in layers, and a whole round of 500 year-long passes, encoding and writing included.

Layers: the account alone; with vectors, noise and record; with the network. Real hourly bars.
Nobody is ruined (large deposit), so every decision is made.

Usage: python benchmarks/bench_research.py [--rounds 5] [--bars 300] [--jobs 2] [--no-whole] [--json] [--out FILE]
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halfstep.broker.engine import BatchedAccounts
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.cli.programs.models import model_config
from halfstep.cli.programs.processes import Task, run_side_by_side
from halfstep.config.recipes import default
from halfstep.experience.policy import NoisePolicy, Policy
from halfstep.experience.research import ResearchTask, collect_group, play
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.features import compute_features
from halfstep.market.instruments import instrument
from halfstep.market.read import default_bars
from halfstep.nn.build import build_actor, build_encoder
from halfstep.progress import SILENT
from halfstep.training.policy import NeuralPolicy, encode_contexts
from measure import arguments, interleaved, machine, report

PASSES, GROUP = 500, 250
RULES = AccountRules(deposit=1e7)


def encoded(table: MarketTable) -> tuple[NeuralPolicy, int, float]:
    """Return an untrained default actor, its first bar with a context, and the seconds of encoding all bars."""
    config, features = model_config(default()), compute_features(table.bars)
    encoder = build_encoder(config, feature_names=features.names, seed=0)
    encoder.norm.reference_std.fill_(1.0)
    begin = time.perf_counter()
    first = features.settled + encoder.first_row
    contexts = encode_contexts(encoder, torch.from_numpy(features.values), first, settled=features.settled)
    return NeuralPolicy(build_actor(config, seed=0), contexts), first, time.perf_counter() - begin


def task_of(
    table: MarketTable, policy: Policy, first: int, *, passes: int, length: int | None
) -> ResearchTask:
    """Return a round of passes from one bar on."""
    return ResearchTask(
        table=table, rules=RULES, policy=policy, round_number=0, span=(first, len(table)), seed=1,
        settings=ResearchSettings(passes=passes, group=GROUP, length=length),
    )  # fmt: skip


def layers(table: MarketTable, network: NeuralPolicy, first: int, bars: int, rounds: int) -> dict[str, float]:
    """Return median seconds of ``bars`` bars of one group, by layer; one thread."""
    actions = np.random.default_rng(0).random((bars, GROUP, 6))
    accounts = BatchedAccounts(table, RULES, GROUP)

    def account() -> None:
        accounts.reset(first=first, stop=first + bars)
        for action in actions:
            accounts.step(action)

    def played(policy: Policy) -> Any:
        return lambda: play(task_of(table, policy, first, passes=GROUP, length=bars), 0)

    works = {
        "account": account,
        "+ vectors, noise, record": played(NoisePolicy(1.0)),
        "+ network": played(network),
    }
    times = interleaved(works, rounds=rounds, warmup=1)
    return {name: statistics.median(values) for name, values in times.items()}


def whole(table: MarketTable, policy: Policy, first: int, jobs: int) -> tuple[float, int]:
    """Return the seconds and decisions of one round of 500 passes to the last bar, shards on disk."""
    task = task_of(table, policy, first, passes=PASSES, length=None)
    header = StoreHeader.of(
        table.bars, feature_set="robust9/1", rules=RULES, instrument=table.instrument, discount=0.99
    )
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder), header, table.bars)
        begin = time.perf_counter()
        if jobs == 1:
            for number in range(len(task.groups)):
                collect_group(number, task, store, SILENT)
        else:
            tasks = [
                Task(
                    name=str(k), call=collect_group, arguments=(k, task, store), log=Path(folder) / "log.txt"
                )
                for k in range(len(task.groups))
            ]
            failures = run_side_by_side(tasks, processes=jobs, threads=1, code=(), progress=SILENT)
            assert not failures, failures
        return time.perf_counter() - begin, PASSES * task.steps


def main() -> None:
    """Time the layers and a whole round."""
    parser = arguments("Collecting trajectories.", rounds=5)
    parser.add_argument("--bars", type=int, default=300, help="bars of a layer's round (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes of the whole round")
    parser.add_argument("--no-whole", action="store_true", help="only the layers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = market_table(default_bars(), instrument("EURUSD"), RULES)
    network, first, encoding = encoded(table)
    seconds = layers(table, network, first, given.bars, given.rounds)
    lines = ["", f"| {GROUP} passes, one thread | decisions/s |", "|---|---:|"]
    lines += [f"| {name} | {GROUP * given.bars / s:,.0f} |" for name, s in seconds.items()]
    figures: dict[str, Any] = {
        "machine": machine() | {"load_average": os.getloadavg()[0]}, "bars": given.bars, "passes": GROUP, "seconds": seconds,
        "decisions_per_second": {name: GROUP * given.bars / s for name, s in seconds.items()},
    }  # fmt: skip
    if not given.no_whole:
        rounds = {}
        for name, policy, jobs in (
            ("noise, 1 process", NoisePolicy(1.0), 1),
            (f"default actor, {given.jobs} processes", network, given.jobs),
        ):
            taken, decisions = whole(table, policy, first, jobs)
            extra = encoding if policy is network else 0.0
            rounds[name] = {"seconds": taken + extra, "decisions": decisions, "encoding_seconds": extra}
            lines.append(
                f"| whole round of {PASSES} passes, {name}: {taken + extra:.1f} s | {decisions / (taken + extra):,.0f} |"
            )
        figures["whole"] = rounds
    report(figures, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
