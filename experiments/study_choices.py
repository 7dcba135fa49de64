"""Trains critic and actor under every target and objective on the same stores, and writes the table that chooses the defaults.

Usage: python experiments/study_choices.py --bars EURUSD_H1.csv.gz [--seeds 2] [--updates 400] [--passes 48] [--only NAME ...]

Two sets of bars: EURUSD of 2023 (MetaTrader 5 export, H1; trajectories January to October, weights chosen in November, growth
of December), and one with a planted edge, seen in the volume. Each set has one encoder and one store of
trajectories by noise, frozen before the studies begin, so that combinations differ in nothing else. December belongs to the
validation span of the reference split: the test month is not read.
"""

import argparse
import dataclasses
import json
import math
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.cli.programs.models import model_config, noise_policy
from halfstep.config.recipes import default
from halfstep.experience.research import research
from halfstep.experience.rollout import trade
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.bars import Bars
from halfstep.market.features import compute_features
from halfstep.market.indicators import atr_points
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.splits import Split, split_spans
from halfstep.market.synthetic import planted_bars
from halfstep.training.encoder import train_encoder
from halfstep.training.policy import NeuralPolicy, encode_contexts
from halfstep.training.settings import PUBLISHED_STUDY, EncoderTraining, OptimizerSettings, StudySettings
from halfstep.training.study import StudyData, study
from halfstep.training.windows import EncoderData

CHOICE = Split(
    train=("2023-01-01", "2023-11-01"),
    validation=("2023-11-01", "2023-12-01"),
    test=("2023-12-01", "2024-01-01"),
)
PLANTED = {"train": (700, 4000), "validation": (4000, 4500), "judged": (4500, 5500)}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "published, corrected": dict(PUBLISHED_STUDY),
    "one_step": {},
    "one_step, cloning 1": {"cloning": 1.0},
    "one_step, kl 0.01": {"kl": 0.01},
    "n_step, 24 bars": {"target": "n_step"},
    "n_step, 24 bars, bootstrap": {"target": "n_step", "bootstrap": True},
    "td": {"target": "td"},
    "return_to_go": {"target": "return_to_go"},
    "awr": {"target": "value", "objective": "awr"},
    "oracle": {"objective": "oracle"},
}
RULES = AccountRules(close_at_end=True)
SIZES = model_config(default())


@dataclasses.dataclass(frozen=True)
class Field:
    """One set of bars, ready for studies."""

    name: str
    data: StudyData
    judged: tuple[int, int]
    perfect: float | None  # log growth of following the planted sign


def field(
    name: str,
    bars: Bars,
    spans: dict[str, tuple[int, int]],
    sign: np.ndarray | None,
    given: argparse.Namespace,
    folder: Path,
) -> Field:
    """Train the encoder and collect the trajectories of a set of bars."""
    features = compute_features(bars, "robust9")
    traded = instrument(bars.symbol)
    table = market_table(bars, traded, RULES, atr_points=atr_points(bars))
    values = torch.from_numpy(features.values)
    encoder_data = EncoderData(
        values=values, names=features.names, train=spans["train"], validation=spans["validation"],
        settled=features.settled, data_hash=bars.hash,
    )  # fmt: skip
    encoder = train_encoder(
        SIZES, encoder_data, EncoderTraining(epochs=given.epochs), optimizer="adam_mini",
        optimizer_settings=OptimizerSettings(), seed=1, folder=folder / "encoder",
    ).encoder  # fmt: skip
    header = StoreHeader.of(bars, feature_set=features.set_id, rules=RULES, instrument=traded, discount=0.99)
    store = EpisodeStore.create(folder / "store", header, bars)
    research(
        table=table, rules=RULES, policy=noise_policy(default()), store=store, round_number=0, span=spans["train"],
        settings=ResearchSettings(passes=given.passes, group=given.passes), seed=1,
    )  # fmt: skip
    contexts = encode_contexts(encoder, values, spans["train"][0], settled=features.settled)
    data = StudyData(
        store=store,
        contexts=contexts,
        table=table,
        rules=RULES,
        train=spans["train"],
        validation=spans["validation"],
    )
    perfect = None if sign is None else follow(table, sign, spans["judged"])
    return Field(name, data, spans["judged"], perfect)


def follow(table: MarketTable, sign: np.ndarray, span: tuple[int, int]) -> float:
    """Return the log growth of holding one lot on the side of a sign, bar by bar."""
    rows = sign[span[0] - 1 : span[1] - 1]
    actions = np.zeros((len(rows), 6))
    actions[rows > 0, :3] = 1.0
    actions[rows < 0, 3:] = 1.0
    return float(run_actions(table, RULES, actions, span[0] - 1).reward.sum())


def one(place: Field, name: str, seed: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one combination with one seed, and trade the bars that judge it."""
    settings = StudySettings(
        updates=given.updates, eval_every=max(1, given.updates // 4), **COMBINATIONS[name]
    )
    began = time.process_time()
    result = study(
        SIZES, place.data, settings, optimizer="adam_mini", optimizer_settings=OptimizerSettings(),
        seed=seed, folder=folder,
    )  # fmt: skip
    seconds = time.process_time() - began
    data = place.data
    _, run = trade(
        NeuralPolicy(result.actor, data.contexts), data.table, data.rules, first=place.judged[0] - 1,
        stop=place.judged[1] - 1,
    )  # fmt: skip
    kept = max(result.validation, key=lambda point: point["log_growth"])
    return {
        "bars": place.name, "combination": name, "seed": seed, "growth": float(run.reward.sum()),
        "chosen_on": kept["log_growth"], "deals": int(run.log.counts[0]), "in_position": float((run.lots != 0).mean()),
        "outside": kept["outside"], "update": kept["update"], "seconds": seconds, "perfect": place.perfect,
    }  # fmt: skip


def fields(given: argparse.Namespace, folder: Path) -> list[Field]:
    """Prepare all sets of bars."""
    found = []
    if given.planted:
        bars = planted_bars(5500, seed=11)
        sign = np.where(bars.volume > 1000, 1, -1)
        found.append(field("planted in the volume", bars, PLANTED, sign, given, folder / "planted"))
    if given.bars is not None:
        bars = read_bars(given.bars)
        spans = split_spans(bars, CHOICE)
        real = {"train": spans.train, "validation": spans.validation, "judged": spans.test}
        found.append(field("EURUSD 2023", bars, real, None, given, folder / "real"))
    return found


def interval(values: list[float]) -> str:
    """Return mean and 95 % t-interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{mean:+.4f} ± {half:.4f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table for each set of bars."""
    lines = []
    for name in dict.fromkeys(row["bars"] for row in rows):
        mine = [row for row in rows if row["bars"] == name]
        perfect = mine[0]["perfect"]
        share = "" if perfect is None else f" (following the sign: {perfect:+.4f})"
        lines += [
            f"### {name}{share}", "",
            "| combination | log growth, judged (95 %) | share of perfect | worst seed | growth where chosen | deals | in position | outside the data | core s |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]  # fmt: skip
        for combination in dict.fromkeys(row["combination"] for row in mine):
            these = [row for row in mine if row["combination"] == combination]
            growth = [row["growth"] for row in these]
            mean = {
                key: np.mean([row[key] for row in these])
                for key in ("chosen_on", "deals", "in_position", "outside", "seconds")
            }
            of_perfect = "--" if perfect is None else f"{np.mean(growth) / perfect:.0%}"
            lines.append(
                f"| {combination} | {interval(growth)} | {of_perfect} | {min(growth):+.4f} | {mean['chosen_on']:+.4f} | "
                f"{mean['deals']:.0f} | {mean['in_position']:.0%} | {mean['outside']:.0%} | {mean['seconds']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Train, and print the tables after each seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bars", type=Path)
    parser.add_argument(
        "--planted", action=argparse.BooleanOptionalAction, default=True, help="use the planted bars"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--passes", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=list(COMBINATIONS), choices=list(COMBINATIONS))
    parser.add_argument("--out", type=Path, help="also write every row here, one JSON object per line")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = fields(given, Path(folder))
        for seed in range(1, given.seeds + 1):
            for place in places:
                for name in given.only:
                    rows.append(one(place, name, seed, given, Path(folder) / f"{place.name}-{name}-{seed}"))
                    if given.out is not None:
                        with given.out.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(rows[-1]) + "\n")
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, {given.seeds} seeds, {given.updates} updates of 256 "
          f"samples, {given.passes} passes\n")  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
