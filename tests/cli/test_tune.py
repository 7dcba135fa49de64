"""The search: judged on validation alone, counted in full, repeatable, resumable."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs import tune as program
from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.tune import (
    Parameter,
    TrialResult,
    best_of,
    objective_of,
    parse_space,
    with_settings,
)
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.errors import ConfigError
from halfstep.market.splits import split_spans

pytest.importorskip("optuna")

TUNE = (
    "--recipe", "smoke", "--data.made-up", "1500", "--study-encoder.epochs", "1", "--tune.trials", "3",
    "--tune.seeds", "1", "--tune.space", "optim.lr log 1e-4 1e-2", "--jobs", "1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optim.lr", "'optim.lr', must be KEY uniform LOW HIGH"),
        ("optim.lr log 1e-2 1e-4", "must be KEY uniform"),
        ("optim.lr log 0 1", "log needs a lower end above 0"),
        ("optim.lr choice 1", "must be KEY uniform"),
        ("optim.lr normal 0 1", "must be KEY uniform"),
    ],
)
def test_lines_that_are_no_search_are_named(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space([line])


def test_spaces_are_read() -> None:
    assert parse_space(["a.b choice 64 0.5 true word", "a.c int 1 9"]) == (
        Parameter(key="a.b", kind="choice", values=(64, 0.5, True, "word")),
        Parameter(key="a.c", kind="int", values=(1, 9)),
    )
    with pytest.raises(ConfigError, match=r"a\.b stands in two lines"):
        parse_space(["a.b int 1 2", "a.b int 3 4"])
    changed = with_settings(smoke(), {"optim.lr": 0.5, "optim.beta1": 0.1, "study.updates": 7})
    assert (changed.optim.lr, changed.optim.beta1, changed.study.updates) == (0.5, 0.1, 7)


def test_objectives_by_hand() -> None:
    records: list[dict[str, Any]] = [
        {"encoder": {"skill": [0.1, 0.3]}, "study": {"log_growth": 0.02}},
        {"encoder": {"skill": [0.0, 0.2]}, "study": {"log_growth": 0.06}},
    ]
    skill, seeds = objective_of(smoke(), records)
    assert skill == pytest.approx(0.15)
    assert seeds == pytest.approx((0.2, 0.1))
    growth = merged(smoke(), {"tune": {"objective": "log_growth"}}, source="test")
    value, _ = objective_of(growth, records)
    assert value == pytest.approx(0.04 - 0.5 * 0.04 / 2**0.5)  # mean less half the deviation (ddof 1)
    assert objective_of(growth, records[:1])[0] == 0.02


def test_the_first_of_equal_trials_is_the_best() -> None:
    def trial(number: int, objective: float | None) -> TrialResult:
        return TrialResult(number=number, settings={}, objective=objective, seeds=())

    assert best_of([trial(0, 1.0), trial(1, None), trial(2, 3.0), trial(3, 3.0)]) == trial(2, 3.0)
    assert best_of([trial(0, None)]) is None


@pytest.mark.pitfall("R12")
def test_a_search_does_not_load_the_test_span() -> None:
    config = merged(smoke(), {"data": {"made_up": 1500}}, source="test")
    full, cut = load_market(config), load_market(config, with_test=False)
    first = split_spans(full.bars, full.split).test[0]
    assert len(cut.bars) == len(cut.features.values) == len(cut.table.server_time) == first < len(full.bars)
    assert cut.spans.test == (first, first)
    assert (cut.spans.train, cut.spans.validation) == (full.spans.train, full.spans.validation)
    torch.testing.assert_close(
        torch.from_numpy(cut.features.values), torch.from_numpy(full.features.values[:first]), rtol=0, atol=0, equal_nan=True
    )  # fmt: skip


def trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "metrics.json").read_text())["trials"]
    return found


@pytest.mark.pitfall("T25")
def test_a_search_is_counted_repeats_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    assert main(["tune", *TUNE, "--out", "one"]) == 0
    one = trials(Path("one"))
    assert [trial["number"] for trial in one] == [0, 1, 2]
    assert len({trial["settings"]["optim.lr"] for trial in one}) == 3
    best = max(one, key=lambda trial: trial["objective"])
    assert (Path("one") / "best.toml").read_text() == f"[optim]\nlr = {best['settings']['optim.lr']}\n"
    lines = [json.loads(line) for line in Path("runs/registry.jsonl").read_text().splitlines()]
    assert len({line["configuration"] for line in lines}) == 3
    assert {line["span"] for line in lines} == {"validation"}
    assert json.loads(Path("one/metrics.json").read_text())["configurations_counted"] == 3
    assert not Path("runs/openings.jsonl").exists()

    # killed in the second trial, with one arm done: the same trials, none lost, none asked for twice
    original, calls = program._run_trial, []

    def interrupted(*arguments: Any) -> TrialResult:
        result = original(*arguments)
        calls.append(arguments[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(program, "_run_trial", interrupted)
    assert main(["tune", *TUNE, "--out", "two"]) == 130
    kept = Path("two/trials/001/50-arms/adam_mini-s1/arm.json").stat().st_mtime_ns
    monkeypatch.setattr(program, "_run_trial", original)
    assert main(["tune", "--resume", "two"]) == 0
    torch.set_num_threads(threads)
    assert trials(Path("two")) == one
    assert Path("two/trials/001/50-arms/adam_mini-s1/arm.json").stat().st_mtime_ns == kept


def test_unknown_settings_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "--recipe", "smoke", "--tune.space", "optim.speed log 1e-4 1"]) == 2
    assert "optim.speed: unknown key (tune.space). The nearest known key is optim." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
