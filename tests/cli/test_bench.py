"""``halfstep bench``: what it counts, what it says, and that a slow machine is no failure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs import bench as program
from halfstep.cli.programs import bench_measures, bench_works
from halfstep.cli.programs.bench_measures import MEASUREMENTS, Figure, Measurement
from halfstep.experience.policy import NoisePolicy
from halfstep.experience.store import EpisodeStore

Captured = pytest.CaptureFixture[str]

FAST = Figure(what="a ratio", value=4.5, unit="× other", bar=4.0, bound="at least", rounds=3)
FEW = Figure(what="a rate", value=39e6, unit="steps/s", bar=40e6, bound="at least", rounds=3)
SLOW = Figure(what="a time", value=0.36, unit="s", bar=0.35, bound="at most", rounds=3)
SOON = Figure(what="another", value=0.35, unit="s", bar=0.35, bound="at most", rounds=3)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return the measurements made, with their rounds, of two that stand for all."""
    made: list[tuple[str, int]] = []

    def measurement(name: str, *figures: Figure, rounds: int) -> Measurement:
        def measure(rounds: int) -> list[Figure]:
            made.append((name, rounds))
            return list(figures)

        return Measurement(name=name, what="something", measure=measure, rounds=rounds, seconds=7)

    two = (measurement("step", FAST, FEW, rounds=60), measurement("help", SLOW, SOON, rounds=2))
    monkeypatch.setattr(program, "MEASUREMENTS", two)
    return made


def test_missed_bars_are_marked_and_no_failure(given: list[tuple[str, int]], capsys: Captured) -> None:
    assert main(["bench"]) == 0
    assert given == [("step", 60), ("help", 2)]
    captured = capsys.readouterr()
    assert "2 of 4 bars reached" in captured.out
    lines = {figure: next(line for line in captured.out.splitlines() if figure.what in line) for figure in (FAST, FEW, SLOW, SOON)}  # fmt: skip
    assert [figure.what for figure, line in lines.items() if "MISSED" in line] == ["a rate", "a time"]
    assert all(("reached" in line) is not ("MISSED" in line) for line in lines.values())
    assert "39,000,000" in lines[FEW]
    assert "≥ 40,000,000" in lines[FEW]
    assert "≤ 0.35" in lines[SLOW]
    for fact in ("cores", f"torch {torch.__version__}", "numba", "python", "load"):
        assert fact in captured.out


def test_json_holds_what_the_table_shows(given: list[tuple[str, int]], capsys: Captured) -> None:
    assert main(["bench", "--json", "--quick"]) == 0
    assert given == [("step", 3), ("help", 2)]
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["figures"] == [
        {"name": "step", "what": "a ratio", "value": 4.5, "unit": "× other", "bar": 4.0, "bound": "at least", "rounds": 3, "reached": True},
        {"name": "step", "what": "a rate", "value": 39e6, "unit": "steps/s", "bar": 40e6, "bound": "at least", "rounds": 3, "reached": False},
        {"name": "help", "what": "a time", "value": 0.36, "unit": "s", "bar": 0.35, "bound": "at most", "rounds": 3, "reached": False},
        {"name": "help", "what": "another", "value": 0.35, "unit": "s", "bar": 0.35, "bound": "at most", "rounds": 3, "reached": True},
    ]  # fmt: skip
    assert {"processor", "cores", "python", "torch", "numba", "torch threads", "load"} <= set(
        found["machine"]
    )
    assert "2 of 4 bars reached" in captured.err


def test_names_choose_and_an_unknown_one_is_wrong_input(
    given: list[tuple[str, int]], capsys: Captured
) -> None:
    assert main(["bench", "help"]) == 0
    assert given == [("help", 2)]
    assert main(["bench", "help", "stepp"]) == 2
    message = capsys.readouterr().err
    assert "bench: 'stepp', must be one of step, help. The nearest is step." in message
    assert given == [("help", 2)], "nothing is measured"


def test_a_dry_run_says_what_would_be_measured(given: list[tuple[str, int]], capsys: Captured) -> None:
    assert main(["bench", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "1. step: something, median of 60 rounds, about 7 s" in text
    assert "in all about 14 s" in text
    assert given == []


def test_help_names_every_measurement_and_the_whole_stays_short(capsys: Captured) -> None:
    assert main(["bench", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"What to measure: {', '.join(each.name for each in MEASUREMENTS)}." in text
    assert "exit status 0 also where one is missed" in text
    assert sum(each.seconds for each in MEASUREMENTS) < 60


def test_help_stays_light() -> None:
    code = "import sys; from halfstep.cli.main import main; main(['bench', '--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    assert "Other programs use this machine" in program.header(program.machine_facts())
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    assert "Other programs" not in program.header(program.machine_facts())
    monkeypatch.delattr(os, "getloadavg")  # as on Windows
    assert "load unknown" in program.header(program.machine_facts())


@pytest.mark.parametrize(
    ("name", "values"),
    [  # where a call takes half a second, and AdamW's step a whole one
        ("broker", [2 * 100 * 4096]),
        ("context", [2 * (3600 - 630)]),
        pytest.param("step", [2.0, 2.0, 2.0], marks=pytest.mark.slow),
        pytest.param("features", [0.5], marks=pytest.mark.slow),
        pytest.param("research", [2 * 250 * 2000, 2 * 250 * 500], marks=pytest.mark.slow),
        pytest.param("encoder", [2 * 20 * 128], marks=pytest.mark.slow),
        pytest.param("study", [2 * 20 * 256], marks=pytest.mark.slow),
        pytest.param("sample", [500], marks=pytest.mark.slow),
        pytest.param("report", [0.5, 0.5], marks=pytest.mark.slow),
        ("help", [0.5]),
    ],
)
def test_figures_are_worked_out_from_times(
    name: str, values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()

    def timed(works: Mapping[str, Callable[[], Any]], *, rounds: int, before: Any = None, **_: Any) -> Any:
        for key, work in works.items():
            if before and key in before:
                before[key]()
            work()
        return {key: [1.0 if key == bench_works.FUSED else 0.5] * rounds for key in works}

    monkeypatch.setattr(bench_measures, "interleaved", timed)
    [measurement] = [each for each in MEASUREMENTS if each.name == name]
    found = measurement.measure(3)
    assert [figure.value for figure in found] == values
    assert all(figure.rounds == 3 for figure in found)
    assert torch.get_num_threads() == threads


def test_a_call_makes_the_units_that_it_says(tmp_path: Path) -> None:
    work = bench_works.collecting(NoisePolicy(1.0), tmp_path, passes=6, length=40)
    for number in range(2):  # each call writes a store of its own
        work.before()
        work.call()
        assert EpisodeStore.open(tmp_path / f"store-{number}").steps == work.units == 6 * 40
    work = bench_works.context_table(bench_works.encoder_setting())
    with bench_measures._threads(1):
        assert len(work.call().rows) == work.units  # type: ignore[attr-defined]


def test_account_steps_move_every_account(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = bench_works.BatchedAccounts.step

    def counted(self: Any, actions: np.ndarray) -> Any:
        seen.append(len(actions))
        return original(self, actions)

    monkeypatch.setattr(bench_works.BatchedAccounts, "step", counted)
    work = bench_works.account_steps(50, 20)
    work.before()
    work.call()
    assert sum(seen) == work.units == 1000


def test_both_optimizers_step_from_equal_weights_with_equal_gradients() -> None:
    model = bench_works.transformer(1, 8, 2)
    before = [param.detach().clone() for param in model.parameters()]
    steps = bench_works.optimizer_steps(model)
    for step in steps.values():
        step()
    groups = [step.__self__.param_groups for step in steps.values()]  # type: ignore[attr-defined]
    ours, theirs = ([param for group in given for param in group["params"]] for given in groups)
    assert len(ours) == len(theirs) == len(before) == 12
    for first, a, b in zip(before, ours, theirs, strict=True):
        assert not torch.equal(a, first)
        assert not torch.equal(b, first)
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)
