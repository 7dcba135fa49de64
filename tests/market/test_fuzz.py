"""Readers survive everything: bars that keep their invariants, or one clear error, in time and memory."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mutations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfstep.errors import HalfstepError
from halfstep.market.check import check_bars

DEFAULT_SEED = 20240131
SLOW_SEEDS = range(8)
FILES_PER_SEED = 25_000
MEMORY_MB = 200
MADE_UP = {
    "EURUSD_H1.csv": "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
    + "".join(f"2022.01.03\t{h:02d}:00:00\t1.13693\t1.13742\t1.13645\t1.1372{h % 10}\t57{h}\t0\t{h}\r\n" for h in range(12)),
    "EURUSD_M1_ask.csv": "".join(f"20170102 02{m:02d}00;1.05155;1.05197;1.05155;1.0519{m % 8};0\n" for m in range(12)),
    "bars.csv": "Datetime,Close,High,Low,Open,Volume\n"
    + "".join(f"2023-09-04 {h:02d}:00:00+01:00,1.0778,1.0779,1.0774,1.0775,0\n" for h in range(12)),
    "EURUSD_D1.csv": "Gmt time;Open;High;Low;Close;Vol\n"
    + "".join(f"{d}/01/2023;1,0778;1,0779;1,0774;1,0775;{d}\n" for d in range(9, 21)),
}  # fmt: skip


def made_up() -> dict[str, bytes]:
    return {name: text.encode() for name, text in MADE_UP.items()}


def real(shared_data: Callable[[str], Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(shared_data("formats").iterdir())}


def test_the_files_read_before_they_are_damaged() -> None:
    assert {mutations.judge(name, data, ()) for name, data in made_up().items()} == {"bars"}


def test_damaged_files_give_bars_or_a_clear_error() -> None:
    outcomes = mutations.run(made_up(), DEFAULT_SEED, 1000)
    assert min(outcomes.values()) > 100  # the damage reaches both sides


def test_damaged_format_samples_give_bars_or_a_clear_error(shared_data: Callable[[str], Path]) -> None:
    outcomes = mutations.run(real(shared_data), DEFAULT_SEED, 1000)
    assert min(outcomes.values()) > 100


@pytest.mark.parametrize(
    "mutation", [*mutations.SMALL[:14], mutations.encode_again, mutations.megabyte], ids=lambda m: m.__name__
)
def test_every_kind_of_damage_alone(mutation: mutations.Mutation) -> None:
    for seed in range(6):
        random = np.random.default_rng(seed)
        for name, data in made_up().items():
            mutations.judge(name, bytes(mutation(bytearray(data), random)), ())


@settings(max_examples=60)
@given(st.binary(max_size=300), st.sampled_from(["EURUSD_H1.csv", "a.gz", "b.parquet"]))
def test_any_bytes_give_a_clear_error(data: bytes, name: str) -> None:
    assert mutations.judge(name, data, ()) == "error"


def test_checks_survive_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    data = made_up()["EURUSD_H1.csv"]
    found = set()
    for number in range(300):
        path.write_bytes(mutations.mutate(data, np.random.default_rng([7, number])))
        try:
            found |= {finding.code for finding in check_bars(path).findings if finding.level == "error"}
        except HalfstepError:
            found.add("unreadable")
    assert found >= {"cell", "time", "price", "ohlc", "order", "duplicate", "unreadable"}


def _work(samples: dict[str, bytes], seed: int, count: int) -> tuple[dict[str, int], float]:
    """Judge files in a process of its own; returns the outcomes and the growth of its memory, MB."""
    mutations.run(samples, seed + 1_000_000, 200)  # compile and warm up
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    outcomes = mutations.run(samples, seed, count)
    return outcomes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before


@pytest.mark.slow
def test_two_hundred_thousand_damaged_files(
    shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    samples = real(shared_data) | made_up()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        jobs = {seed: pool.submit(_work, samples, seed, FILES_PER_SEED) for seed in SLOW_SEEDS}
        for seed, job in jobs.items():
            outcomes, growth = job.result()
            with capsys.disabled():
                print(f"seed {seed}: {outcomes}, {growth:.0f} MB more", flush=True)
            assert sum(outcomes.values()) == FILES_PER_SEED
            assert min(outcomes.values()) > FILES_PER_SEED // 20
            assert growth < MEMORY_MB
