"""Walk-forward: every month once, fresh models on earlier months, intervals by hand, resumable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.walk_forward import (
    Fold,
    WalkForwardResult,
    in_words,
    interval_over_months,
    overall,
    plan_folds,
)
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.errors import CoverageError
from halfstep.market.splits import Split

SHORT = {"train_months": 1, "validation_months": 1, "seeds": 2}


@pytest.mark.pitfall("U9")
def test_walk_forward_covers_every_month_once() -> None:
    config = merged(smoke(), {"data": {"made_up": 5200}, "walk_forward": SHORT}, source="test")
    market = load_market(config)
    folds, skipped = plan_folds(config, market)
    assert skipped == ()
    assert [fold.name for fold in folds] == sorted({fold.name for fold in folds})
    tested: list[int] = []
    for fold in folds:
        spans = load_market(fold.config).spans
        assert spans.train[1] <= spans.validation[0] < spans.validation[1] <= spans.test[0]
        tested += range(*spans.test)
    assert tested == list(range(tested[0], tested[-1] + 1))  # no bar twice, none left out
    months = np.unique(market.bars.server_time[tested].astype("datetime64[s]").astype("datetime64[M]"))
    assert [str(month) for month in months] == [fold.name for fold in folds]
    assert len(folds) >= 6


def test_only_the_months_that_were_asked_for() -> None:
    config = merged(smoke(), {"data": {"made_up": 5200}, "walk_forward": SHORT}, source="test")
    market = load_market(config)
    names = [fold.name for fold in plan_folds(config, market)[0]]
    chosen = merged(config, {"walk_forward": {"months": (names[1], names[3])}}, source="test")
    assert [fold.name for fold in plan_folds(chosen, market)[0]] == names[1:4]
    late = merged(config, {"walk_forward": {"months": ("2031-01", "2031-12")}}, source="test")
    with pytest.raises(
        CoverageError, match=rf"no test month from 2031-01 to 2031-12; .* {names[-1]}\. Choose"
    ):
        plan_folds(late, market)


def result(growth: list[list[float]]) -> WalkForwardResult:
    """Return the result of folds with this log growth, by month and seed."""
    split = Split(
        train=("2022-01-01", "2022-02-01"),
        validation=("2022-02-01", "2022-03-01"),
        test=("2022-03-01", "2022-04-01"),
    )
    config = merged(smoke(), {"test": {"bootstrap_draws": 200}}, source="test")
    folds = tuple(
        Fold(
            name=f"2022-{month + 3:02d}", split=split, config=config,
            records=tuple({"seed": seed + 1, "test": {"log_growth": g}} for seed, g in enumerate(row)),
        )
        for month, row in enumerate(growth)
    )  # fmt: skip
    return WalkForwardResult(config=config, folds=folds, skipped=(), failures={})


def test_months_are_chained_and_intervals_are_those_of_the_textbook() -> None:
    figures = overall(result([[0.01, 0.03], [-0.02, 0.00], [0.04, 0.06]]))
    # seeds end at ln growth 0.03 and 0.09; months have means 0.02, -0.01, 0.05
    assert figures["growth"] == pytest.approx(np.expm1(0.06))
    assert (figures["worst_seed"], figures["best_seed"]) == pytest.approx((np.expm1(0.03), np.expm1(0.09)))
    assert figures["mean_month"] == pytest.approx(0.02)
    half = 4.302653 * 0.03 / np.sqrt(3)  # t(0.975, 2), deviation of the months
    assert figures["mean_month_over_months"] == pytest.approx([0.02 - half, 0.02 + half], rel=1e-6)
    assert (figures["months_up"], figures["months"], figures["seeds"]) == (2, 3, 2)
    assert in_words(figures).endswith("(95 % over months -0.05452 … +0.09452): no growth is shown.")
    assert interval_over_months(np.array([0.1])) is None
    sure = in_words(overall(result([[0.01, 0.011], [0.01, 0.011], [0.012, 0.012]])))
    assert sure.endswith(": growth is shown.")


def without_clock(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    found.pop("clock")
    return found


@pytest.mark.pitfall("U9")
def test_a_walk_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    flags = (
        "--recipe", "smoke", "--data.made-up", "3400", "--study-encoder.epochs", "1", "--study.updates", "6",
        "--study.eval-every", "3", "--research.passes", "2", "--walk-forward.train-months", "1",
        "--walk-forward.validation-months", "1", "--walk-forward.seeds", "2", "--jobs", "2", "--out", "walk",
    )  # fmt: skip
    assert main(["walk-forward", *flags]) == 0
    torch.set_num_threads(threads)
    found = without_clock(tmp_path / "walk")
    months = [row["month"] for row in found["months"]]
    assert len(months) == found["overall"]["months"] >= 2
    curve = pl.read_parquet(tmp_path / "walk" / "tables" / "curve.parquet")
    assert curve["bar"].to_list() == list(range(curve["bar"][0], curve["bar"][0] + len(curve)))
    assert curve["month"].unique(maintain_order=True).to_list() == months
    ends = [curve["seed 1"][-1], curve["seed 2"][-1]]
    assert np.expm1(min(ends)) == pytest.approx(found["overall"]["worst_seed"])
    arms = sorted((tmp_path / "walk" / "folds").glob("*/50-arms/*/arm.json"))
    assert len(arms) == 2 * len(months)
    growth = {arm.parts[-4]: [] for arm in arms}  # type: dict[str, list[float]]
    for arm in arms:
        growth[arm.parts[-4]].append(json.loads(arm.read_text())["test"]["log_growth"])
    chained = np.array([growth[month] for month in months]).sum(axis=0)
    assert chained == pytest.approx(ends)
    # each month's models are fresh: trained on their own months
    weights = [arm.parent / "models" / "actor.safetensors" for arm in arms if arm.parent.name.endswith("-s1")]
    assert len({path.read_bytes() for path in weights}) == len(months)
    # one configuration was tried, however many months and seeds
    lines = [json.loads(line) for line in (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * len(months)
    assert len({line["configuration"] for line in lines}) == 1
    openings = (tmp_path / "runs" / "openings.jsonl").read_text().splitlines()
    assert len(openings) == len(months)

    # a lost fold is done again, the others are kept
    before = curve
    last = tmp_path / "walk" / "folds" / months[-1]
    (last / "fold.json").unlink()
    (last / "50-arms" / "adam_mini-s2" / "arm.json").unlink()
    assert main(["walk-forward", "--resume", "walk"]) == 0
    torch.set_num_threads(threads)
    assert without_clock(tmp_path / "walk") == found
    assert pl.read_parquet(tmp_path / "walk" / "tables" / "curve.parquet").equals(before)


def test_a_plan_names_the_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = (
        "--walk-forward.train-months",
        "1",
        "--walk-forward.validation-months",
        "1",
        "--walk-forward.seeds",
        "2",
    )
    assert main(["walk-forward", "--recipe", "smoke", "--data.made-up", "3400", *flags, "--dry-run"]) == 0
    assert "folds (2022-05 to 2022-06), " in capsys.readouterr().out
    assert main(["walk-forward", "--recipe", "smoke", "--dry-run"]) == 2
    assert "but 15 are needed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
