"""The registry of trials: it only grows, seeds are no trials, and what is counted is what was tried."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halfstep.backtest.registry import (
    Trial,
    TrialCount,
    count_trials,
    record_trials,
    sharpe_by_observation,
    sharpe_per_observation,
)


def trial(configuration: str = "a", seed: int = 1, sharpe: float | None = 0.1, **changes: object) -> Trial:
    base = Trial(
        program="tune", run="/runs/x", configuration=configuration, optimizer="adamw", seed=seed, is_made_up=False,
        span="validation", days=("2023-11-01", "2024-01-01"), figure="log_growth", value=0.01,
        sharpe={"bar": sharpe, "day": None},
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def counted(path: Path) -> TrialCount:
    return count_trials(path, is_made_up=False, observation="bar")


@pytest.mark.pitfall("T25")
def test_every_configuration_is_a_trial_and_seeds_are_not(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "registry.jsonl"
    assert counted(path) == TrialCount(n=0, sharpe_variance=0.0)
    record_trials([trial("a", 1, 0.1), trial("a", 2, 0.3)], path)
    assert counted(path) == TrialCount(n=1, sharpe_variance=0.0)
    record_trials([trial("b", 1, 0.4), trial("c", 1, None, value=None)], path)  # c failed: tried all the same
    found = counted(path)
    assert found.n == 3
    assert found.sharpe_variance == pytest.approx(0.02)  # of 0.2 and 0.4: 2 * 0.1^2 / (2 - 1)
    record_trials([trial("b", 1, 0.6, span="test")], path)  # the test's figure is the one that counts
    assert counted(path).sharpe_variance == pytest.approx(0.08)
    record_trials([trial("d", is_made_up=True)], path)
    assert counted(path).n == 3
    assert count_trials(path, is_made_up=True, observation="bar").n == 1
    assert count_trials(path, is_made_up=False, observation="day") == TrialCount(n=3, sharpe_variance=0.0)


@pytest.mark.pitfall("T25")
def test_the_registry_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    record_trials([trial("a"), trial("b")], path)
    before = path.read_bytes()
    record_trials([trial("a"), trial("b")], path)  # a continued run says the same again
    assert path.read_bytes() == before
    record_trials([trial("a", run="/runs/y", value=0.02)], path)  # another run: a line, but no further trial
    assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == 3
    assert counted(path).n == 2


def test_half_a_line_of_a_killed_process_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    record_trials([trial("a"), trial("b")], path)
    path.write_bytes(path.read_bytes()[:-30])
    assert counted(path).n == 1
    record_trials([trial("b"), trial("c")], path)
    assert counted(path).n == 3
    assert json.loads(path.read_text().splitlines()[-1])["configuration"] == "c"


def _write(path: Path, first: int) -> None:
    for number in range(first, first + 40):
        record_trials([trial(f"{number}")], path)


def test_processes_write_whole_lines_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, 1000 * k)) for k in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(path.read_text().splitlines()) == counted(path).n == 160


def test_sharpe_of_a_path_by_hand() -> None:
    growth = np.log1p(np.array([0.01, 0.03, -0.02, 0.0]))
    day = np.array([5, 5, 6, 6])
    found = sharpe_by_observation(growth, day)
    assert found["bar"] == pytest.approx(0.005 / np.std([0.01, 0.03, -0.02, 0.0], ddof=1))
    days = [1.01 * 1.03 - 1, -0.02]
    assert found["day"] == pytest.approx(np.mean(days) / np.std(days, ddof=1))
    assert sharpe_per_observation(np.zeros(10)) is None  # a flat account
    assert sharpe_per_observation(np.array([0.01])) is None
    assert sharpe_by_observation(np.zeros(0), np.zeros(0, np.int64)) == {"bar": None, "day": None}
