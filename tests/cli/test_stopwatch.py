"""Pieces of work take turns, and only the counted rounds of the work itself count."""

import statistics

import pytest

from halfstep.cli.programs.stopwatch import LEAST_ROUNDS, interleaved, quartiles, ratio


class Clock:
    """Stands still but for what the works add."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def work(self, name: str, *seconds: float) -> object:
        rest = list(seconds)

        def call() -> None:
            self.called.append(name)
            self.now += rest.pop(0) if len(rest) > 1 else rest[0]

        return call


def test_works_take_turns_and_neither_warm_up_nor_preparation_counts() -> None:
    clock = Clock()
    works = {"a": clock.work("a", 100.0, 1.0, 3.0), "b": clock.work("b", 50.0, 2.0)}
    times = interleaved(
        works, rounds=2, warmup=1, before={"b": clock.work("made ready", 7.0)}, clock=lambda: clock.now
    )
    assert times == {"a": [1.0, 3.0], "b": [2.0, 2.0]}
    assert clock.called == ["a", "made ready", "b"] * 3


def test_a_slow_machine_makes_fewer_rounds_but_the_least() -> None:
    times = interleaved({"a": lambda: None}, rounds=100, warmup=2, limit=0.0)
    assert len(times["a"]) == LEAST_ROUNDS
    assert len(interleaved({"a": lambda: None}, rounds=2, limit=0.0)["a"]) == 2
    assert len(interleaved({"a": lambda: None}, rounds=10, limit=60.0)["a"]) == 10


def test_a_ratio_is_that_of_medians() -> None:
    times = {"slow": [2.0, 6.0, 100.0], "fast": [3.0, 1.0, 1.5]}
    assert ratio(times, "slow", "fast") == 6.0 / 1.5


@pytest.mark.parametrize("values", [[4.0], [1.0, 2.0, 3.0, 4.0, 10.0]])
def test_quartiles_enclose_the_median(values: list[float]) -> None:
    low, middle, high = quartiles(values)
    assert middle == statistics.median(values)
    assert min(values) <= low <= middle <= high <= max(values)
