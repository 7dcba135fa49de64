"""Single stages, killed at any moment and continued, end with the bytes of an undisturbed one."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TINY = ("--recipe", "smoke", "--data.made-up", "2000")
STUDY = (
    "study",
    "--study.updates",
    "12",
    "--study.eval-every",
    "6",
    "--encoder",
    "study-encoder",
    "--episodes",
    "research",
)
STAGES: dict[str, tuple[str, ...]] = {
    "study-encoder": ("study-encoder", "--study-encoder.epochs", "2"),
    "research": ("research", "--research.passes", "6", "--research.group", "2", "--run.jobs", "1"),
    "study": STUDY,
    "study-on": (*STUDY, "--previous", "study"),
}  # fmt: skip
"""Verb and flags by the name of a folder."""
KEPT = ("models/*.safetensors", "episodes/*", "metrics.jsonl")


@dataclass(frozen=True)
class Server:
    """Runs `halfstep` in forks of one process."""

    home: Path
    process: "subprocess.Popen[str]"

    def run(self, *argv: str, kill_after: float | None = None, is_slow: bool = False) -> int:
        order = {
            "argv": argv, "cwd": str(self.home), "kill_after": kill_after, "is_slow": is_slow,
            "log": str(self.home / "output.txt"),
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    @property
    def output(self) -> str:
        return (self.home / "output.txt").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    script = Path(__file__).with_name("fork_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield Server(tmp_path_factory.mktemp("stages"), process)
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def unbroken(server: Server) -> dict[str, float]:
    """Run every stage once, undisturbed, in a folder of its name; returns the seconds each took."""
    seconds = {}
    for stage, (verb, *flags) in STAGES.items():
        began = time.monotonic()
        assert server.run(verb, *TINY, *flags, "--out", stage) == 0, server.output
        seconds[stage] = time.monotonic() - began
    return seconds


def results(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on interruptions: bytes of files, figures without the clock."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for pattern in KEPT for path in folder.glob(pattern)
    }
    figures = json.loads((folder / "metrics.json").read_text())
    figures.pop("clock", None)
    return found | {"metrics.json": figures}


def start_or_continue(server: Server, stage: str, out: str, **how: Any) -> int:
    verb, *flags = STAGES[stage]
    exists = (server.home / out / "config.toml").exists()
    argv = (verb, "--resume", out) if exists else (verb, *TINY, *flags, "--out", out)
    return server.run(*argv, **how)


def kill_until_done(
    server: Server, stage: str, out: str, random: np.random.Generator, seconds: float, most: int
) -> int:
    """Kill a stage at random moments until it ends before its moment comes, or ``most`` times; let it end then."""
    kills = 0
    while kills < most:
        moment = float(random.uniform(0.0, 0.8 * seconds))
        status = start_or_continue(server, stage, out, kill_after=moment, is_slow=bool(random.random() < 0.5))
        if status == 0:
            break
        assert status == -9, server.output
        kills += 1
    else:
        assert start_or_continue(server, stage, out) == 0, server.output
    return kills


def assert_as_unbroken(server: Server, stage: str, out: str) -> None:
    folder = server.home / out
    expected, found = results(server.home / stage), results(folder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, f"{out}: {name}"
    assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
    assert not list(folder.rglob(".*")), "temporaries are left"
    assert not (folder / "lock").exists()


@pytest.mark.pitfall("U13")
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_continues_to_the_same_bytes(
    stage: str, server: Server, unbroken: dict[str, float]
) -> None:
    kill_until_done(server, stage, f"{stage}-few", np.random.default_rng(5), unbroken[stage], most=3)
    assert_as_unbroken(server, stage, f"{stage}-few")


@pytest.mark.slow
def test_stages_killed_at_a_hundred_moments_end_with_the_same_bytes(
    server: Server, unbroken: dict[str, float]
) -> None:
    random = np.random.default_rng(100)
    kills, number = 0, 0
    while kills < 100:
        stage = list(STAGES)[number % len(STAGES)]
        out = f"{stage}-{number}"
        kills += kill_until_done(server, stage, out, random, unbroken[stage], most=min(20, 100 - kills))
        assert_as_unbroken(server, stage, out)
        number += 1


def test_a_finished_stage_can_be_continued_and_stays_the_same(
    server: Server, unbroken: dict[str, float]
) -> None:
    for stage, (verb, *_) in STAGES.items():
        before = results(server.home / stage)
        assert server.run(verb, "--resume", stage) == 0
        assert results(server.home / stage) == before


@pytest.mark.slow
@pytest.mark.pitfall("T27")
def test_a_new_process_gives_the_same_bytes(server: Server, unbroken: dict[str, float]) -> None:
    for stage, (verb, *flags) in STAGES.items():
        assert server.run(verb, *TINY, *flags, "--out", f"{stage}-again", is_slow=True) == 0
        assert_as_unbroken(server, stage, f"{stage}-again")


def refused(server: Server, *argv: str) -> str:
    before = len(server.output)
    assert server.run(*argv) == 2, server.output[before:]
    message = server.output[before:]
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1, message
    return message


@pytest.mark.pitfall("D20")
def test_data_hash_is_checked(server: Server, unbroken: dict[str, float]) -> None:
    other = ("--data.made-up", "2001")
    message = refused(server, "study-encoder", "--resume", "study-encoder", *other)
    assert "cannot be continued: data.made_up: 2000 became 2001; data.hash: " in message
    flags = (*TINY[:2], *other, *STUDY[1:], "--out", "x")
    message = refused(server, "study", *flags)
    assert "study-encoder/models/encoder.safetensors: made with data '" in message
    assert not (server.home / "x").exists()


def test_a_continuation_lists_all_that_differs(server: Server, unbroken: dict[str, float]) -> None:
    argv = ("study", "--resume", "study", "--optim.lr", "0.5", "--study.batch", "7", "--encoder", "study")
    message = refused(server, *argv)
    assert "optim.lr: 0.001 became 0.5; study.batch: 256 became 7." in message
    assert "program: research became study" in refused(server, "study", "--resume", "research", *STUDY[5:])
    shard = server.home / "research-changed"
    assert server.run(*STAGES["research"], *TINY, "--out", "research-changed", "--run.seed", "9") == 0
    message = refused(server, "study", "--resume", "study", "--episodes", shard.name)
    assert "cannot be continued: episodes: " in message


def test_a_study_goes_on_from_one_that_fits_only(server: Server, unbroken: dict[str, float]) -> None:
    nowhere = refused(server, *STUDY, *TINY, "--previous", "nowhere", "--out", "y")
    assert re.search(r"no actor in \S*/nowhere: run halfstep study --out \S*/nowhere$", nowhere.strip())
    other = ("--previous", "study", "--study.objective", "awr", "--study.target", "value")
    message = refused(server, *STUDY, *TINY, *other, "--out", "y")
    assert "no critics at " in message
    assert "halfstep study, with the same target and objective" in message
    assert server.run(*STAGES["study-encoder"], *TINY, "--out", "encoder-2", "--run.seed", "2") == 0
    message = refused(server, *STUDY, *TINY, "--previous", "study", "--encoder", "encoder-2", "--out", "y")
    assert "study/models/actor.safetensors: made with encoder " in message
    message = refused(server, "study", "--resume", "study", "--previous", "study-on")
    assert "cannot be continued: previous: nothing became " in message
    assert not (server.home / "y").exists()
