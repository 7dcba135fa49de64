"""Training rates of the default networks on one core: encoder, context table, critic and actor, one batch of stored steps.

Usage: python benchmarks/bench_study.py [--rounds 10] [--json] [--out FILE]

Rates are per second of processor time of one thread, so that other work on the machine does not count; the median over rounds
that take turns. Bars and trajectories are made up.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import market_table
from halfstep.cli.programs.models import model_config
from halfstep.config.recipes import default
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.research import research
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.features import compute_features
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars
from halfstep.nn.build import build_encoder
from halfstep.nn.loss import fredf_loss
from halfstep.training.batches import make_batches
from halfstep.training.loop import Learner
from halfstep.training.networks import build_networks
from halfstep.training.policy import encode_contexts
from halfstep.training.samples import Batches
from halfstep.training.settings import PUBLISHED_STUDY, EncoderTraining, OptimizerSettings, StudySettings
from halfstep.training.study import StudyData, Trainer
from halfstep.training.windows import EncoderData, WindowTable, standardised_target, window_origins
from measure import arguments, machine, report

BARS, TRAIN, VALIDATION = 3600, (630, 3300), (3300, 3600)
UPDATES = 20  # in each round
SIZES = model_config(default())
STUDIES: dict[str, StudySettings] = {
    "study, guided (default)": StudySettings(),
    "study, published": StudySettings(**PUBLISHED_STUDY),
    "study, td": StudySettings(target="td"),
    "study, awr": StudySettings(target="value", objective="awr"),
    "study, oracle": StudySettings(objective="oracle"),
}
BOUNDS = {"study, guided (default)": 9_000, "encoder": 2_000, "context table": 5_000}


def works(folder: Path) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return pieces of work by name, with the samples each makes."""
    bars = random_bars(BARS, seed=1)
    features, rules, traded = compute_features(bars, "robust9"), AccountRules(), instrument("EURUSD")
    table = market_table(bars, traded, rules)
    data = EncoderData(
        values=torch.from_numpy(features.values), names=features.names, train=TRAIN, validation=VALIDATION,
        settled=features.settled, data_hash=bars.hash,
    )  # fmt: skip
    encoder = build_encoder(SIZES, feature_names=features.names, seed=0)
    encoder.norm.reference_std.fill_(1.0)
    windows, origins = (
        WindowTable(encoder, data, VALIDATION[0]),
        window_origins(TRAIN, encoder, features.settled),
    )
    settings = EncoderTraining()
    batches = make_batches(encoder, windows, origins, settings, 1)
    learner = Learner(encoder, "adam_mini", OptimizerSettings(), 10_000)

    def train_encoder() -> None:
        for number in range(UPDATES):
            output, y, _, _ = batches.forecast(0, number)
            learner.update(
                fredf_loss(output.latent, standardised_target(encoder, y, output.stats), settings.alpha).total
            )

    header = StoreHeader.of(bars, feature_set=features.set_id, rules=rules, instrument=traded, discount=0.99)
    store = EpisodeStore.create(folder / "store", header, bars)
    research(
        table=table, rules=rules, policy=NoisePolicy(1.0), settings=ResearchSettings(passes=64, group=64), store=store,
        round_number=0, span=TRAIN, seed=1,
    )  # fmt: skip
    contexts = encode_contexts(encoder, data.values, TRAIN[0], settled=features.settled)
    study_data = StudyData(
        store=store, contexts=contexts, table=table, rules=rules, train=TRAIN, validation=VALIDATION
    )
    found: dict[str, tuple[int, Callable[[], object]]] = {
        "encoder": (UPDATES * settings.batch, train_encoder),
        "context table": (
            BARS - TRAIN[0],
            lambda: encode_contexts(encoder, data.values, TRAIN[0], settled=features.settled),
        ),
    }
    for name, study_settings in STUDIES.items():
        made = Batches(study_data, study_settings, 1)
        trainer = Trainer(
            build_networks(SIZES, study_settings, seed=1), made, study_settings, "adam_mini",
            OptimizerSettings(), 1,
        )  # fmt: skip
        found[name] = (
            UPDATES * study_settings.batch,
            lambda trainer=trainer: [trainer.update(k) for k in range(UPDATES)],  # type: ignore[misc]
        )
    plain = Batches(study_data, StudySettings(), 1)
    found["one batch of stored steps"] = (256, lambda: plain.at(0))
    return found


def main() -> None:
    """Time everything, and print rates."""
    parser = arguments("Training rates.", rounds=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pieces = works(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in pieces}
        for number in range(given.rounds + 1):
            for name, (_, work) in pieces.items():
                began = time.process_time()
                work()
                if number > 0:
                    seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: samples / medians[name] for name, (samples, _) in pieces.items()}
    lines = [
        "",
        "| work | samples per second of one core | bound | ms per call |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {rate:,.0f} | {BOUNDS.get(name, '--')} | {1000 * medians[name]:.2f} |"
        for name, rate in rates.items()
    ]
    figures = {"machine": machine(), "samples_per_second": rates, "seconds": seconds, "bounds": BOUNDS}
    report(figures, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
