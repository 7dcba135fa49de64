"""Training programs under torchrun: figures and files of one process, one line where something is wrong."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from halfstep.cli.main import main

TINY = ("--recipe", "smoke", "--data.made-up", "2000")
ENCODER = ("study-encoder", *TINY, "--study-encoder.epochs", "2")
STUDY = (
    "study", *TINY, "--study.updates", "300", "--study.eval-every", "20", "--study.patience", "100",
    "--encoder", "encoder", "--episodes", "research",
)  # fmt: skip
SECONDS = 240  # for processes that share a busy machine
Process = "subprocess.Popen[str]"


def start(home: Path, world: int, *argv: str) -> list[Process]:
    """Start all ranks as torchrun does, so that a test knows which is which."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "halfstep", *argv], cwd=home, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **shared, "RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip


def ended(processes: list[Process]) -> tuple[list[int], list[str]]:
    """Return exit statuses and outputs."""
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def wait_for(home: Path, pattern: str, processes: list[Process]) -> None:
    deadline = time.monotonic() + SECONDS
    while not list(home.glob(pattern)):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), ended(processes)[1]
        time.sleep(0.01)


def figures(folder: Path) -> list[float]:
    """Return all numbers of a run's metrics but the clock's, in order."""

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [number for item in value.values() for number in numbers(item)]
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, int | float) else []

    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("clock")
    return numbers(metrics)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def complaints(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("halfstep: ")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_torchrun_gives_the_figures_and_files_of_one_process(home: Path) -> None:
    assert main([*ENCODER, "--out", "one"]) == 0
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "halfstep")
    done = subprocess.run(
        [sys.executable, *launch, *ENCODER, "--out", "two", "--json"], capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["encoder"]["updates"] > 0  # one rank prints
    assert figures(home / "two") == pytest.approx(figures(home / "one"), rel=1e-4, abs=1e-5)
    assert files_of(home / "two") == files_of(home / "one")
    assert len((home / "runs" / "registry.jsonl").read_text().splitlines()) == 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an encoder and trajectories."""
    home = tmp_path_factory.mktemp("world")
    assert main([*ENCODER, "--out", str(home / "encoder")]) == 0
    assert main(["research", *TINY, "--research.passes", "6", "--out", str(home / "research")]) == 0
    return home


def study_until(home: Path, world: Path, sign: str, *ranks: int) -> tuple[list[int], list[str]]:
    """Start a study of two ranks, and send some of them a signal when there is a checkpoint."""
    for name in ("encoder", "research"):
        shutil.copytree(world / name, home / name)
    processes = start(home, 2, *STUDY, "--out", "study")
    wait_for(home, "study/checkpoints/study/step-*/trainer.json", processes)
    for rank in ranks:
        processes[rank].send_signal(getattr(signal, f"SIG{sign}"))
    return ended(processes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "ranks", "exit_status", "status"),
    [("KILL", (1,), 1, "failed"), ("TERM", (0,), 1, "failed"), ("INT", (0, 1), 130, "interrupted")],
)
def test_a_lost_rank_ends_the_job_with_one_line(
    home: Path, world: Path, sign: str, ranks: tuple[int, ...], exit_status: int, status: str
) -> None:
    statuses, outputs = study_until(home, world, sign, *ranks)
    assert "Traceback" not in "".join(outputs)
    [line] = complaints("".join(outputs))
    assert line in outputs[0]
    assert line.endswith("study --resume study")
    assert statuses[0] == exit_status
    assert json.loads((home / "study" / "manifest.json").read_text())["status"] == status
    if sign == "KILL":
        assert ended(start(home, 1, "study", "--resume", "study"))[0] == [0]
        assert json.loads((home / "study" / "metrics.json").read_text())["study"]["updates"] == 300


def test_a_batch_that_ranks_cannot_share_is_refused(home: Path) -> None:
    argv = ("study-encoder", *TINY, "--study-encoder.batch", "33", "--out", "x")
    statuses, outputs = ended(start(home, 2, *argv))
    assert statuses == [2, 2]
    assert complaints("".join(outputs)) == [
        "halfstep: study_encoder.batch: 33, must be divisible by the 2 processes. Set --study-encoder.batch 34, or "
        "start another number of processes."
    ]
    assert files_of(home) == []


def test_other_programs_are_for_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["run"]) == 2
    assert capsys.readouterr().err == (
        "halfstep: run: 4 processes, must be one. Start it without torchrun; study-encoder and study train on several.\n"
    )
    monkeypatch.setenv("RANK", "3")
    assert main(["run"]) == 2
    assert capsys.readouterr().err == ""
