"""Tasks in processes: a failure or a death stays alone, and the parent hears of it."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from halfstep.cli.programs.processes import Task, failed_tasks, incomplete_status, run_side_by_side
from halfstep.errors import DivergenceError, TaskError
from halfstep.progress import SILENT

CODE = """
from pathlib import Path
from halfstep import files
from halfstep.errors import DivergenceError
import os, signal, torch

def work(what, target, progress):
    progress.start(what, 4, "steps")
    progress.advance(2)
    if what == "diverges":
        raise DivergenceError("update 3: loss nan.")
    if what == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    files.write_json(target, {"threads": torch.get_num_threads(), "code": os.environ.get("REGISTERED")})
"""


class Counter:
    def __init__(self) -> None:
        self.done = 0

    def start(self, name: str, total: int, unit: str) -> None:
        pass

    def advance(self, done: int, **figures: float) -> None:  # noqa: ARG002
        self.done += done

    def finish(self) -> None:
        pass


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Task]:
    """Return a maker of tasks that worker processes can import."""
    (tmp_path / "some_tasks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("some_tasks").work

    def make(name: str) -> Task:
        return Task(
            name=name,
            call=work,
            arguments=(name, tmp_path / f"{name}.json"),
            log=tmp_path / name / "log.txt",
        )

    return make


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_stays_alone(tasks: Callable[[str], Task], tmp_path: Path, processes: int) -> None:
    (tmp_path / "code.py").write_text("import os\nos.environ['REGISTERED'] = 'yes'\n")
    counter = Counter()
    failures = run_side_by_side(
        [tasks(name) for name in ("first", "diverges", "is killed", "last")],
        processes=processes, threads=1, code=[tmp_path / "code.py"], progress=counter,
    )  # fmt: skip
    assert sorted(failures) == ["diverges", "is killed"]
    assert failures["diverges"].error == "DivergenceError: update 3: loss nan."
    assert "some_tasks.py" in failures["diverges"].log.read_text()
    assert failures["is killed"].error == "its process ended with exit code -9"
    assert failures["is killed"].log.read_text() == (
        "is killed: its process ended with exit code -9, without a traceback.\n"
    )
    for name in ("first", "last"):
        assert (tmp_path / f"{name}.json").read_text() == '{\n  "threads": 1,\n  "code": "yes"\n}\n'
    assert counter.done == 400
    error = failed_tasks(failures)  # divergence first, whichever ended first
    assert isinstance(error, DivergenceError)
    assert str(error).startswith(
        "diverges, and 1 more failed: DivergenceError: update 3: loss nan. The details are in "
    )
    assert incomplete_status(failures) == error.exit_status == 3
    del failures["diverges"]
    assert isinstance(failed_tasks(failures), TaskError)
    assert incomplete_status(failures) == failed_tasks(failures).exit_status == 1
    assert incomplete_status({}) == 0


def test_code_that_cannot_be_imported_is_a_failure(tasks: Callable[[str], Task], tmp_path: Path) -> None:
    failures = run_side_by_side(
        [tasks("first")], processes=1, threads=1, code=[tmp_path / "absent.py"], progress=SILENT
    )
    assert "MissingInputError: --compare.code: no file at" in failures["first"].error
    assert failures["first"].exit_status == 2
