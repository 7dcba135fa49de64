"""Several processes train what one would: same losses, same weights on every rank, one writer, any number of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halfstep.training.ranks import ALONE, Ranks

from .conftest import World

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
UPDATES = 20
SECONDS = 280  # for processes that share a busy machine
FEW = ("guided-float32", "guided-float64", "windows-float64")
MANY = (
    *(f"{kind}-{dtype}" for kind in ("guided", "td", "windows", "streams") for dtype in TOLERANCE),
    *(f"{kind}-float64" for kind in ("published", "awr", "oracle", "odd")),
)
Found = dict[str, dict[str, Any]]
Run = Callable[..., list[Found]]


@pytest.fixture
def at_work(world: World) -> Run:
    """Return a function that starts ranks, waits for them, and returns what each has found."""
    script = Path(__file__).with_name("ranks_at_work.py")
    store = world.study_data.store.folder

    def run(size: int, folder: Path, *cases: str) -> list[Found]:
        folder.mkdir(exist_ok=True)
        (folder / f"rendezvous-{size}").unlink(missing_ok=True)
        processes = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(size), store, folder, *cases],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip
        try:
            outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)
        assert not (folder / "nobody").exists(), "a rank other than the first has written files"
        paths = [folder / f"{size}-{rank}.json" for rank in range(size)]
        return [json.loads(path.read_text()) if path.exists() else {} for path in paths]

    return run


def assert_same(found: list[Found], expected: Found) -> None:
    for case, alone in expected.items():
        for rank in found:
            assert rank[case] == found[0][case], f"{case}: ranks differ from each other"
        tolerance = TOLERANCE[case.partition("-")[2]]
        assert found[0][case]["losses"] == pytest.approx(alone["losses"], rel=tolerance, abs=tolerance), case


def test_two_ranks_train_as_one(at_work: Run, tmp_path: Path) -> None:
    [alone] = at_work(1, tmp_path / "1", *FEW)
    assert all(case["updates"] >= UPDATES for case in alone.values())
    assert_same(at_work(2, tmp_path / "2", *FEW), alone)


@pytest.mark.slow
def test_world_sizes_agree(at_work: Run, tmp_path: Path) -> None:
    [alone] = at_work(1, tmp_path / "1", *MANY)
    assert all(case["updates"] >= UPDATES for case in alone.values())
    for size in (2, 4):
        assert_same(at_work(size, tmp_path / str(size), *MANY), alone)


@pytest.mark.slow
def test_resume_on_another_world_size(at_work: Run, tmp_path: Path) -> None:
    [whole] = at_work(1, tmp_path / "whole", "continued-study", "continued-streams")
    at_work(2, tmp_path / "begun", "stopped-study", "stopped-streams")
    for size in (1, 4):
        folder = tmp_path / str(size)
        shutil.copytree(tmp_path / "begun" / "kept", folder / "kept")
        found = at_work(size, folder, "continued-study", "continued-streams")
        for case, expected in whole.items():
            assert 0 < found[0][case]["updates"] < expected["updates"]  # it went on, and did not begin again
            assert all(rank[case] == found[0][case] for rank in found)
            losses = found[0][case]["losses"]
            tolerance = TOLERANCE["float64" if case == "continued-streams" else "float32"]
            expected_losses = expected["losses"][-len(losses) :]
            assert losses == pytest.approx(expected_losses, rel=tolerance, abs=tolerance), case


def test_what_ranks_say_of_each_other(at_work: Run, tmp_path: Path) -> None:
    cases = ("running-statistics", "agreement", "left-alone")
    found = at_work(2, tmp_path / "2", *cases)
    for rank in found:
        assert rank["running-statistics"]["message"] == (
            "norm: running statistics with 2 processes, must be one process. Use norm='revin'."
        )
    assert [rank["agreement"]["message"] for rank in found] == ["rank 1: nothing to open", "nothing to open"]
    assert found[0]["left-alone"]["message"].startswith(
        "another process of this training no longer answers ("
    )


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_row_belongs_to_one_rank(size: int, world: int) -> None:
    shares = [Ranks(rank=rank, world=world).share(size) for rank in range(world)]
    rows = [row for share in shares if share.fraction for row in range(size)[share.rows]]
    assert sorted(rows) == list(range(size))
    assert sum(share.fraction for share in shares) == pytest.approx(1.0)
    assert all(len(range(size)[share.rows]) for share in shares)  # nobody has an empty batch


def test_a_single_process_talks_to_nobody() -> None:
    assert ALONE.is_first
    assert ALONE.from_first(max, 2, 3) == 3
    assert ALONE.agreed(lambda: "opened") == "opened"
    assert ALONE.add_up([None]) == [None]
