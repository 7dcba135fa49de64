"""What ``halfstep bench`` measures: names, pieces of work, and the bars of two processor cores.

A *measurement* has a name and gives one or more *figures*: the median over rounds beside its bar.
"""

import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from halfstep.backtest.baselines import Span, random_band
from halfstep.backtest.metrics import compute_metrics
from halfstep.broker.rules import AccountRules
from halfstep.cli.programs import bench_works as works
from halfstep.cli.programs.bench_markets import empty_store, market, random_group, traded
from halfstep.cli.programs.stopwatch import interleaved, ratio
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.sampling import uniform_rows, usable_origins
from halfstep.market.features import compute_features
from halfstep.market.synthetic import random_bars
from halfstep.training.settings import StudySettings

MILLION = 1_000_000
YEAR_RUNS, YEAR_BARS, BATCH = 500, 6200, 256
RESEARCH_BAR = YEAR_RUNS * YEAR_BARS / 120  # 500 passes over 6,200 bars in 120 seconds
LIMIT = 6.0  # seconds after which no further round begins


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        what: was measured, with its size.
        value: in ``unit``.
        bar: to reach.
        bound: whether the value should be at least the bar (rates, ratios) or at most (times).
        rounds: that the value is the median of.
    """

    what: str
    value: float
    unit: str
    bar: float
    bound: Literal["at least", "at most"]
    rounds: int

    @property
    def is_reached(self) -> bool:
        """Whether the value is on the right side of the bar."""
        return self.value >= self.bar if self.bound == "at least" else self.value <= self.bar


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Something to measure.

    Attributes:
        name: on the command line.
        what: for the plan.
        measure: from rounds to figures.
        rounds: that the median is taken of, fewer where a machine is so slow that they would take long.
        seconds: about how long it takes on two cores.
    """

    name: str
    what: str
    measure: Callable[[int], list[Figure]]
    rounds: int
    seconds: float


def optimizer_step(rounds: int) -> list[Figure]:
    """Compare a step of AdamMini with torch's fused AdamW over equal models, gradients given, in turns."""
    sizes = (
        ("48 tensors, 50 thousand parameters", (4, 32, 4), 4.0),
        ("48 tensors, 0.8 million", (4, 128, 4), 2.0),
        ("72 tensors, 19 million", (6, 512, 8), 1.5),
    )
    found = []
    for what, sides, bar in sizes:
        steps = works.optimizer_steps(works.transformer(*sides))
        times = interleaved(steps, rounds=rounds, limit=LIMIT)
        found.append(
            Figure(
                what=f"step, {what}", value=ratio(times, works.FUSED, works.OURS), unit="× AdamW fused", bar=bar,
                bound="at least", rounds=len(times[works.OURS]),
            )
        )  # fmt: skip
    return found


def broker(rounds: int) -> list[Figure]:
    """Time accounts in lockstep on all threads."""
    work = works.account_steps(4096, 100)
    return [_rate("4,096 accounts, random actions", work, "steps/s", 40e6, rounds=rounds)]


def features(rounds: int) -> list[Figure]:
    """Time the default features of a million bars."""
    bars = random_bars(MILLION, seed=0)
    return [_time("robust9 of 1 million bars", lambda: compute_features(bars, "robust9"), 0.4, rounds=rounds)]


def collecting(rounds: int) -> list[Figure]:
    """Time trajectories from bars to files, in one process of one thread."""
    with tempfile.TemporaryDirectory() as folder, _threads(1):
        noise = works.collecting(NoisePolicy(1.0), Path(folder) / "noise", passes=250, length=2000)
        actor = works.collecting(None, Path(folder) / "actor", passes=250, length=500)
        return [
            _rate("250 passes of 2,000 bars, noise", noise, "decisions/s", 1e6, rounds=rounds),
            _rate("250 passes of 500 bars, default actor", actor, "decisions/s", RESEARCH_BAR, rounds=rounds),
        ]


def encoder(rounds: int) -> list[Figure]:
    """Time the training of the default encoder."""
    with _threads(1):
        work = works.encoder_updates(works.encoder_setting())
        return [_rate_of_core("training of the encoder", work, "samples/s", 2000, rounds=rounds)]


def context(rounds: int) -> list[Figure]:
    """Time the encoding of each bar."""
    with _threads(1):
        work = works.context_table(works.encoder_setting())
        return [_rate_of_core("encoding of each bar", work, "bars/s", 5000, rounds=rounds)]


def study(rounds: int) -> list[Figure]:
    """Time the training of critic and actor."""
    with tempfile.TemporaryDirectory() as folder, _threads(1):
        data = works.study_data(works.encoder_setting(), Path(folder) / "store")
        work = works.study_updates(data, StudySettings())
        return [_rate_of_core("training of critic and actor", work, "samples/s", 9000, rounds=rounds)]


def sampling(rounds: int) -> list[Figure]:
    """Time one batch from the files of 500 year-long passes."""
    rules = AccountRules()
    with tempfile.TemporaryDirectory() as folder:
        store = empty_store(Path(folder) / "store", market(YEAR_BARS + 30, rules), rules)
        group = random_group(YEAR_RUNS // 2, YEAR_BARS)
        for number in range(2):
            store.write(f"r0-g{number}", group)
        origins = usable_origins(store, 24, (0, YEAR_BARS + 50))
        numbers = itertools.count()

        def batch() -> object:
            rows = uniform_rows(len(origins), next(numbers), BATCH, seed=1)
            return store.gather(*origins.at(rows), horizon=24)

        return [
            _time(f"batch of {BATCH} steps from {YEAR_RUNS} year-runs", batch, 2.0, unit="ms", rounds=rounds)
        ]


def report(rounds: int) -> list[Figure]:
    """Time the rows of a report, and what random policies earn in a month."""
    rules = AccountRules(close_at_end=True)
    run = traded(market(MILLION, rules), rules, MILLION, 20_000)
    table, span = market(1000, rules), Span(first=10, bars=528)
    month = traded(table, rules, span.bars, 40)
    return [
        _time("rows, 1 million bars, 20,000 trades", lambda: compute_metrics(run), 0.5, rounds=rounds),
        _time(
            "1,000 random policies × a month", lambda: random_band(table, rules, month, span, runs=1000, seed=1), 1.0,
            rounds=rounds,
        ),
    ]  # fmt: skip


def help_text(rounds: int) -> list[Figure]:
    """Time a fresh process that prints its help."""
    command = [sys.executable, "-m", "halfstep", "--help"]
    call = functools.partial(subprocess.run, command, check=True, capture_output=True)
    return [_time("halfstep --help", call, 0.35, rounds=rounds)]


MEASUREMENTS = (
    Measurement(name="step", what="optimizer step, three sizes", measure=optimizer_step, rounds=60, seconds=8),
    Measurement(name="broker", what="account steps", measure=broker, rounds=20, seconds=1),
    Measurement(name="features", what="features of 1 million bars", measure=features, rounds=5, seconds=3),
    Measurement(name="research", what="trajectories, noise and actor", measure=collecting, rounds=5, seconds=8),
    Measurement(name="encoder", what="training of the encoder", measure=encoder, rounds=7, seconds=10),
    Measurement(name="context", what="encoding of each bar", measure=context, rounds=7, seconds=4),
    Measurement(name="study", what="training of critic and actor", measure=study, rounds=7, seconds=6),
    Measurement(name="sample", what="a batch of stored steps", measure=sampling, rounds=100, seconds=5),
    Measurement(name="report", what="rows and random policies", measure=report, rounds=5, seconds=5),
    Measurement(name="help", what="the time to the first help", measure=help_text, rounds=7, seconds=2),
)  # fmt: skip


def _time(
    what: str, call: Callable[[], object], bar: float, *, rounds: int, unit: Literal["s", "ms"] = "s"
) -> Figure:
    """Return the median time of a call."""
    seconds = _seconds(works.Work(units=1, call=call), rounds)
    value = statistics.median(seconds) * (1000 if unit == "ms" else 1)
    return Figure(what=what, value=value, unit=unit, bar=bar, bound="at most", rounds=len(seconds))


def _rate(
    what: str, work: works.Work, unit: str, bar: float, *, rounds: int, clock: Callable[[], float] | None = None
) -> Figure:  # fmt: skip
    """Return how many units are made in a second, by the median time of a call."""
    seconds = _seconds(work, rounds, clock)
    value = work.units / statistics.median(seconds)
    return Figure(what=what, value=value, unit=unit, bar=bar, bound="at least", rounds=len(seconds))


def _rate_of_core(what: str, work: works.Work, unit: str, bar: float, *, rounds: int) -> Figure:
    """Return the rate in processor time, for one thread: waits for other programs do not count."""
    return _rate(what, work, f"{unit} of a core", bar, rounds=rounds, clock=time.process_time)


def _seconds(work: works.Work, rounds: int, clock: Callable[[], float] | None = None) -> list[float]:
    """Return the times of calls, after one that does not count."""
    before = {"work": work.before}
    return interleaved({"work": work.call}, rounds=rounds, warmup=1, before=before, clock=clock, limit=LIMIT)[
        "work"
    ]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
