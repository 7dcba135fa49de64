"""What makes two results the same trial, and that programs tell the registry of theirs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.trials import arm_trials, configuration_hash
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.config.tables import Config
from halfstep.market.bars import Bars
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe
from halfstep.market.write import write_bars


@pytest.mark.pitfall("T25")
@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({"run": {"seed": 7, "jobs": 2}}, False),
        ({"compare": {"seeds": 9}, "tune": {"trials": 3}, "walk_forward": {"seeds": 2}}, False),
        ({"test": {"random_runs": 200}}, False),
        ({"run": {"rounds": 3}}, True),
        ({"optim": {"lr": 2e-3}}, True),
        ({"study": {"updates": 51}}, True),
        ({"broker": {"leverage": 50.0}}, True),
        ({"data": {"features": "published9"}}, True),
    ],
)
def test_what_decides_a_result_makes_another_trial(
    changes: dict[str, dict[str, object]], is_another: bool
) -> None:
    base = configuration_hash(smoke(), "bars", "adamw")
    changed = configuration_hash(merged(smoke(), changes, source="test"), "bars", "adamw")
    assert (changed != base) is is_another


def test_optimizers_bars_and_plans_make_another_trial() -> None:
    base = configuration_hash(smoke(), "bars", "adamw")
    assert configuration_hash(smoke(), "bars", "sgd") != base
    assert configuration_hash(smoke(), "other bars", "adamw") != base
    assert configuration_hash(smoke(), "bars", "adamw", {"train_months": 2}) != base


def market_in_pounds(folder: Path, *, intrabar: str, volume: float = 1.0, rate: float = 1.3) -> Config:
    """Return the configuration of bars with finer ones (of that volume) and two rates (profits at that one), all files."""
    hours = random_bars(2700, seed=1)
    traded = hours.slice(100, 2700)
    finer = replace(traded.slice(1000, 1100), timeframe=Timeframe.M15, volume=np.full(100, volume))
    series = {
        "bars": traded, "detail": finer, "profit_rate": constant_price(hours, "GBPUSD", rate),
        "margin_rate": constant_price(hours, "EURGBP", 0.9),
    }  # fmt: skip
    files = {name: folder / f"{bars.symbol}_{bars.timeframe.name}.parquet" for name, bars in series.items()}
    for name, path in files.items():
        write_bars(series[name], path)
    changes = {"data": {"made_up": 0, **files}, "broker": {"currency": "GBP", "intrabar": intrabar}}
    return merged(smoke(), changes, source="test")


def constant_price(bars: Bars, symbol: str, price: float) -> Bars:
    """Return bars of the same times that all stand at one price."""
    column = np.full(len(bars), price)
    return replace(bars, symbol=symbol, open=column, high=column, low=column, close=column)


@pytest.mark.pitfall("T25")
@pytest.mark.parametrize(
    ("intrabar", "changes", "is_another"),
    [
        ("stop_first", {"rate": 1.4}, True),
        ("stop_first", {"volume": 2.0}, False),  # they serve the report's sensitivity alone
        ("m1", {"volume": 2.0}, True),
    ],
)
def test_other_rates_and_finer_bars_make_another_trial(
    intrabar: str, changes: dict[str, float], is_another: bool, tmp_path: Path
) -> None:
    """Regression: two markets that differed in these alone counted as one trial."""

    def trial(**changes: float) -> str:
        config = market_in_pounds(tmp_path, intrabar=intrabar, **changes)
        record = {"optimizer": "adamw", "seed": 1, "encoder": {"validation_loss": 1.0}}
        return arm_trials(config, load_market(config), [record], program="test", run=tmp_path)[
            0
        ].configuration

    base = trial()
    assert trial() == base
    assert (trial(**changes) != base) is is_another


@pytest.mark.pitfall("T25")
def test_a_single_stage_is_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    flags = ("--recipe", "smoke", "--data.made-up", "1500", "--study-encoder.epochs", "1")
    for seed in ("1", "2"):
        assert main(["study-encoder", *flags, "--run.seed", seed, "--out", f"encoder-{seed}"]) == 0
    torch.set_num_threads(threads)
    lines = [json.loads(line) for line in Path("runs/registry.jsonl").read_text().splitlines()]
    assert [(line["program"], line["seed"], line["figure"]) for line in lines] == [
        ("study-encoder", 1, "validation_loss"), ("study-encoder", 2, "validation_loss"),
    ]  # fmt: skip
    assert len({line["configuration"] for line in lines}) == 1
