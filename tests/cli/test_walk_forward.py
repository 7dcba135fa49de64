"""Walk-forward: every month once, fresh models on earlier months, intervals by hand, resumable."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.walk_forward import plan_folds
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.errors import CoverageError

DIVERGING = """
from pathlib import Path
import torch
from halfstep.training.optimizers import register_optimizer

class Once(torch.optim.AdamW):
    \"\"\"The first one that makes a step here sets its first parameter to infinity.\"\"\"

    def step(self, closure=None):
        seen = Path(__file__).with_name("seen")
        if not seen.exists():
            seen.touch()
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))
        return super().step(closure)

register_optimizer("once", lambda model, s: Once(model.parameters(), lr=s.lr))
"""
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


def without_clock(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    found.pop("clock")
    return found


def report_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "report").rglob("*")) if path.is_file()}


@pytest.mark.pitfall("U9")
def test_a_walk_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    flags = (
        "--recipe", "smoke", "--data.made-up", "3400", "--study-encoder.epochs", "1", "--study.updates", "6",
        "--study.eval-every", "3", "--research.passes", "2", "--walk-forward.train-months", "1",
        "--walk-forward.validation-months", "1", "--walk-forward.seeds", "2", "--jobs", "2", "--out", "walk",
        "--test.rerun-policy",
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

    # the page says the same, joins the same paths and comes back byte for byte
    words = json.loads((tmp_path / "walk" / "report" / "metrics.json").read_text())
    assert words["verdict"] == found["verdict"]
    assert words["verdict"].startswith(f"{len(months)} months out of sample, ")
    assert [line["month"] for line in words["tables"]["walk_forward"]] == months
    for line, row in zip(words["tables"]["walk_forward"], found["months"], strict=True):
        assert line == {key: row[key] for key in line}
    # every month stands beside simple rules and its forecasts, and all of them together have a skill
    folds = words["tables"]["folds"]
    assert [line["month"] for line in folds] == months
    assert all(line["features"] == 9 and line["skill"] is not None for line in folds)
    assert len(words["tables"]["forecast"]) == 9
    assert any("made by halfstep run only" in text for _, text in words["remarks"])
    percent = [line["percent"] for line in words["tables"]["seeds"]]
    assert percent == pytest.approx(np.expm1(ends).tolist(), abs=1e-9)
    assert found["rows"]["walk_growth"] == found["overall"]["growth"]
    lines = {line["key"]: line for line in words["tables"]["sensitivity"]}
    assert {key.removeprefix("rerun_") for key in lines if key.startswith("rerun_")} == {
        key for key in lines if not key.startswith("rerun_") and key != "base"
    }
    assert lines["rerun_costs_1"] == lines["base"] | {
        "key": "rerun_costs_1",
        "name": "costs × 1, decided anew",
    }
    assert words["versions"][0][1].startswith("halfstep walk-forward --recipe smoke --data.made-up 3400 ")
    written = report_files(tmp_path / "walk")
    (tmp_path / "walk" / "report" / "report.html").unlink()
    (tmp_path / "walk" / "report" / "tables" / "walk_forward.csv").unlink()
    assert main(["report", "walk"]) == 0
    assert report_files(tmp_path / "walk") == written

    # a lost fold is done again, the others are kept
    before = curve
    last = tmp_path / "walk" / "folds" / months[-1]
    (last / "fold.json").unlink()
    (last / "50-arms" / "adam_mini-s2" / "arm.json").unlink()
    assert main(["walk-forward", "--resume", "walk"]) == 0
    torch.set_num_threads(threads)
    assert without_clock(tmp_path / "walk") == found
    assert pl.read_parquet(tmp_path / "walk" / "tables" / "curve.parquet").equals(before)
    assert report_files(tmp_path / "walk") == written


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


def test_a_failed_seed_stops_neither_the_others_nor_the_other_months(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    (tmp_path / "code.py").write_text(DIVERGING)
    flags = (
        "--recipe", "smoke", "--data.made-up", "3400", "--study-encoder.epochs", "1", "--study.updates", "2",
        "--study.eval-every", "2", "--research.passes", "2", "--walk-forward.train-months", "1",
        "--walk-forward.validation-months", "1", "--walk-forward.seeds", "2", "--walk-forward.optimizer", "once",
        "--compare.code", "code.py", "--jobs", "1", "--out", "walk",
    )  # fmt: skip
    assert main(["walk-forward", *flags]) == 3
    torch.set_num_threads(threads)
    found = without_clock(tmp_path / "walk")
    assert found["complete"] is False
    assert found["overall"] is None
    [(month, failure)] = found["failed"].items()
    assert failure["error"].startswith("DivergenceError: once-s1 failed: DivergenceError: update 2: loss nan")
    home = tmp_path / "walk" / "folds"
    assert (home / month / "50-arms" / "once-s2" / "arm.json").exists()
    assert "DivergenceError" in (home / month / "50-arms" / "once-s1" / "log.txt").read_text()
    assert all(
        (home / row["month"] / "fold.json").exists() for row in found["months"] if row["month"] != month
    )
    screen = " ".join(capsys.readouterr().err.split())
    assert f"FAILED {month}: " in screen
    assert re.search(rf"{month} │ failed │", screen), "the month is missing in the table"
    assert [row["seeds"] for row in found["months"] if row["month"] == month] == [0]
    assert not (tmp_path / "walk" / "report").exists()
    assert "The result is incomplete." in screen
    assert "growth is shown" not in screen
    lines = (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()
    assert len(lines) == 2 * len(found["months"])
    assert len({json.loads(line)["configuration"] for line in lines}) == 1

    assert main(["walk-forward", "--resume", "walk"]) == 0  # it diverges once only
    torch.set_num_threads(threads)
    assert without_clock(tmp_path / "walk")["overall"]["months"] == len(found["months"])
