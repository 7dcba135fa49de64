"""`halfstep research` and `halfstep replay-signals` as a person meets them."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from halfstep.cli.flags import parse
from halfstep.cli.inputs import NoInputs
from halfstep.cli.main import main
from halfstep.cli.programs.episodes import trainable_store
from halfstep.cli.programs.market import load_market
from halfstep.config.tables import Config
from halfstep.errors import StoreDamagedError, StoreError
from halfstep.experience.store import EpisodeStore
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe
from halfstep.market.write import write_bars

Captured = pytest.CaptureFixture[str]
SMALL = ("--recipe", "smoke", "--research.passes", "6", "--research.length", "200", "--run.jobs", "1")
HEADER = "Time;Type;Volume;Symbol;Price;S/L;T/P;Time;Price;Commission;Swap;Profit;Comment"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def episodes(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / "episodes").iterdir())}


def test_research_needs_no_model(capsys: Captured) -> None:
    assert main(["research", *SMALL, "--out", "a", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert sum(metrics["research"]["outcomes"].values()) == metrics["research"]["decisions"] == 1200
    assert metrics["clock"]["decisions_per_second"] > 0
    assert set(metrics["research"]["results"]) == {"long", "short"}
    assert len(EpisodeStore.open(Path("a/episodes"))) == 6
    (line,) = Path("a/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["decisions"] == 1200
    # processes and an interruption leave no trace
    assert main(["research", *SMALL, "--research.group", "2", "--run.jobs", "2", "--out", "b"]) == 0
    assert main(["research", *SMALL, "--research.group", "2", "--out", "c"]) == 0
    assert episodes("b") == episodes("c")
    (Path("c") / "episodes" / "shard-r0-g1.safetensors").unlink()
    assert main(["research", "--resume", "c"]) == 0
    assert episodes("b") == episodes("c")


def test_a_further_round_begins_with_the_rounds_before(capsys: Captured) -> None:
    assert main(["research", *SMALL, "--out", "a"]) == 0
    assert main(["research", *SMALL, "--out", "b", "--previous", "a"]) == 0
    first, second = episodes("a"), episodes("b")
    assert second["shard-r0-g0.safetensors"] == first["shard-r0-g0.safetensors"]
    assert second["shard-r1-g0.safetensors"] != first["shard-r0-g0.safetensors"]
    assert len(EpisodeStore.open(Path("b/episodes"))) == 12
    assert main(["research", *SMALL, "--out", "c", "--previous", "b", "--round", "1"]) == 2
    assert "round: 1, must be at least 2" in capsys.readouterr().err
    assert not Path("c").exists()


@pytest.mark.pitfall("D20")
def test_other_finer_bars_are_no_continuation(tmp_path: Path, capsys: Captured) -> None:
    hours = random_bars(2600, seed=1)
    finer = replace(hours.slice(1000, 1100), timeframe=Timeframe.M15)  # the first quarters of some hours
    write_bars(hours, tmp_path / "EURUSD_H1.parquet")
    write_bars(finer, tmp_path / "EURUSD_M15.parquet")
    files = (
        "--bars",
        str(tmp_path / "EURUSD_H1.parquet"),
        "--data.detail",
        str(tmp_path / "EURUSD_M15.parquet"),
    )
    assert main(["research", *SMALL, *files, "--out", "a"]) == 0
    assert main(["research", "--resume", "a"]) == 0
    write_bars(finer.slice(0, 99), tmp_path / "EURUSD_M15.parquet")
    capsys.readouterr()
    assert main(["research", "--resume", "a"]) == 2
    assert re.search(
        r"a cannot be continued: data\.detail: EURUSD M15 \w+ became EURUSD M15 \w+\. ",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--encoder", "nowhere"), "encoder: .*nowhere, but no actor"),
        (("--actor", "nowhere"), "no encoder in .*nowhere: run halfstep study-encoder"),
        (("--previous", "nowhere"), "no trajectories in .*nowhere: run halfstep research"),
        (("--research.start", "random", "--research.length", "None"), "length: not given"),
        (("--research.length", "9999"), r"research\.length: 9999 decisions asked of a span"),
    ],
)
def test_wrong_input_of_research_is_named(flags: tuple[str, ...], words: str, capsys: Captured) -> None:
    assert main(["research", *SMALL, *flags, "--out", "a"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(words, message), message
    assert not Path("a").exists()


def test_research_plans_without_writing(capsys: Captured) -> None:
    assert main(["research", *SMALL, "--out", "a", "--dry-run"]) == 0
    assert "# 1. trajectories" in capsys.readouterr().out
    assert not Path("a").exists()


@pytest.fixture
def signals(tmp_path: Path) -> tuple[str, ...]:
    """Return flags that name bars and a history of two deals on them."""
    bars = random_bars(2600, seed=1)
    write_bars(bars, tmp_path / "EURUSD_H1.parquet")
    lines = [HEADER]
    for k, side in ((700, "Buy"), (900, "Sell")):
        opened, closed = (_stamp(int(bars.server_time[bar]) + 600) for bar in (k, k + 5))
        prices = round(float(bars.open[k]), 5), round(float(bars.open[k + 5]), 5)
        lines.append(f"{opened};{side};0.10;EURUSDm;{prices[0]};;;{closed};{prices[1]};-0.70;;5.00;")
    (tmp_path / "deals.csv").write_text("\n".join(lines), encoding="utf-8")
    return "--bars", str(tmp_path / "EURUSD_H1.parquet"), "--signals", str(tmp_path / "deals.csv")


def _stamp(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y.%m.%d %H:%M:%S}"


def test_signals_become_episodes_and_a_table(signals: tuple[str, ...], capsys: Captured) -> None:
    assert main(["replay-signals", "--recipe", "smoke", *signals, "--out", "s", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    (history,) = metrics["histories"]
    assert history["deals"] == {"used": 2}
    assert history["rows"]["buy"] == history["rows"]["sell"] == 1
    assert history["fidelity"]["deals"] == 2
    table = pl.read_parquet("s/tables/deals.parquet")
    assert table["entry_bar"].to_list() == [701, 901]
    assert table["exit_bar"].to_list() == [706, 906]
    assert len(EpisodeStore.open(Path("s/episodes"))) == 1
    assert main(["replay-signals", "--resume", "s"]) == 0
    # research adds to them, and a second history gets a name of its own
    small = (*SMALL, *signals[:2])
    assert main(["research", *small, "--previous", "s", "--out", "r"]) == 0
    assert len(EpisodeStore.open(Path("r/episodes"))) == 7
    assert main(["replay-signals", "--recipe", "smoke", *signals, "--previous", "r", "--out", "t"]) == 0
    assert {"shard-s0-g0.safetensors", "shard-s1-g0.safetensors", "shard-r0-g0.safetensors"} <= set(
        episodes("t")
    )


def test_wrong_signals_are_named(signals: tuple[str, ...], tmp_path: Path, capsys: Captured) -> None:
    begin = ["replay-signals", "--recipe", "smoke", *signals[:2], "--out", "s"]
    assert main(begin) == 2
    assert "signals: no file given" in capsys.readouterr().err
    assert main([*begin, "--signals", signals[3], signals[3]]) == 2
    assert "is the same as" in capsys.readouterr().err
    assert main([*begin, "--signals", signals[3], "--zone", "Asia/Tokyo"]) == 2
    assert "open prices lie in their bar" in capsys.readouterr().err
    page = tmp_path / "page.csv"
    page.write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    assert main([*begin, "--signals", str(page)]) == 2
    assert "this is the login page" in capsys.readouterr().err
    assert main([*begin, "--signals", signals[3], "--lot-scale", "0"]) == 2
    assert "lot_scale: 0.0, must be above 0" in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.pitfall("R8")
def test_a_leaking_store_is_refused(signals: tuple[str, ...]) -> None:
    flags = ("--recipe", "smoke", *signals)
    assert main(["replay-signals", *flags, "--out", "honest"]) == 0
    assert main(["replay-signals", *flags, "--impute-levels", "exit_price", "--out", "leak"]) == 0
    assert main(["research", *SMALL, *signals[:2], "--previous", "leak", "--out", "more"]) == 0
    market = load_market(flags_of(signals))
    assert len(trainable_store(Path("honest"), market, allow_leak=False)) == 1
    for folder in ("leak", "more"):  # the mark travels with the episodes
        with pytest.raises(StoreError, match=r"exit_price' know later prices.*--allow-leak"):
            trainable_store(Path(folder), market, allow_leak=False)
        trainable_store(Path(folder), market, allow_leak=True)


def flags_of(signals: tuple[str, ...]) -> Config:
    return parse("research", "", ["--recipe", "smoke", *signals[:2]], NoInputs).config


def test_damaged_shards_are_left_out_on_request(signals: tuple[str, ...]) -> None:
    assert main(["replay-signals", "--recipe", "smoke", *signals, "--out", "s"]) == 0
    market, shard = load_market(flags_of(signals)), next(Path("s/episodes").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreDamagedError, match=f"{shard.name}.*--drop-damaged"):
        trainable_store(Path("s"), market, allow_leak=False)
    with pytest.warns(UserWarning, match=f"1 damaged shards left out; 0 episodes remain.*{shard.name}"):
        trainable_store(Path("s"), market, allow_leak=False, drop_damaged=True)
