"""The whole chain on made-up bars: same seed same bytes, killed and continued, honest page."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from halfstep.cli.main import main
from halfstep.training.policy import Contexts, encode_contexts

SMALL = ("--recipe", "smoke", "--study.updates", "40", "--study.eval-every", "20")
SMOKE = ("run", *SMALL, "--run.rounds", "3")
COMPARE = ("compare", *SMALL)
COMPARED = ("**/*.safetensors", "**/metrics.jsonl", "tables/*.parquet", "report/*.svg")


def command(cwd: Path, *arguments: str, hash_seed: str = "0") -> subprocess.Popen[str]:
    cwd.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "halfstep", *arguments], cwd=cwd, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    assert found.pop("clock")
    return found


def assert_same_results(a: Path, b: Path) -> None:
    """Assert that two runs gave the same models, trajectories and numbers, byte for byte but for the clock."""
    names = sorted(str(path.relative_to(a)) for pattern in COMPARED for path in a.glob(pattern))
    assert len(names) > 15
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert metrics(a) == metrics(b)
    for arm in sorted(path.parent.name for path in (a / "50-arms").glob("*/arm.json")):
        records = [json.loads((run / "50-arms" / arm / "arm.json").read_text()) for run in (a, b)]
        for record in records:
            record.pop("clock")
        assert records[0] == records[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder and the output of an undisturbed run."""
    home = tmp_path_factory.mktemp("unbroken")
    return home / "run", finished(command(home, *SMOKE, "--out", "run"))


@pytest.mark.pitfall("U13")
def test_run_from_nothing(unbroken: tuple[Path, str]) -> None:
    folder, text = unbroken
    assert {path.name for path in folder.iterdir()} == {
        "10-pilot-encoder", "15-pilot-study-r1", "15-pilot-study-r2", "20-research-r0", "20-research-r1", "20-research-r2", "50-arms", "60-cloning", "65-memory", "70-timing.json", "bars.parquet", "config.toml", "log.txt",
        "manifest.json", "metrics.json", "metrics.jsonl", "report",
    }  # fmt: skip
    assert text.splitlines()[-1] == f"Report: {folder / 'report' / 'report.html'}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert len(manifest["data"]["hash"]) == 64
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    [research, _, _] = [line for line in lines if line["phase"] == "research"]
    assert sum(research["outcomes"].values()) == research["decisions"] > 10_000
    assert {"50-arms/adamw-s1", "50-arms/adam_mini-s2"} <= {line["where"] for line in lines}
    log = (folder / "log.txt").read_text()
    assert "research round 0" in log
    assert "The same bars, deposit, rules and costs" in log


def test_metrics_belong_together(unbroken: tuple[Path, str]) -> None:
    folder, text = unbroken
    found = metrics(folder)
    assert json.loads((folder / "metrics.json").read_text())["clock"].keys() == {"adamw", "adam_mini"}
    arms = {
        path.parent.name: json.loads(path.read_text()) for path in (folder / "50-arms").glob("*/arm.json")
    }
    for name, figures in found["optimizers"].items():
        mine = [arms[f"{name}-s{seed}"] for seed in (1, 2)]
        assert figures["net"] == pytest.approx(np.mean([arm["test"]["net_profit"] for arm in mine]))
        assert figures["loss"] == pytest.approx(np.mean([arm["encoder"]["validation_loss"] for arm in mine]))
        # once looked up under another name, so that every page had "--" here
        best = [min(arm["encoder"]["curve"], key=lambda point: point["validation"])["update"] for arm in mine]
        assert figures["updates_to_best"] == pytest.approx(np.mean(best))
        assert f"{figures['state_bytes']:,}".replace(",", " ") in text
    nets = [arms[f"adam_mini-s{seed}"]["test"]["net_profit"] for seed in (1, 2)]
    assert found["rows"]["net_profit"] == pytest.approx(min(nets))  # the middle one of two is the lower
    assert found["rows"]["headline"] == pytest.approx(np.mean(nets))
    assert found["rows"]["seeds_worst"] == pytest.approx(min(nets))
    assert found["optimizers"]["adamw"]["state_bytes"] > 1.5 * found["optimizers"]["adam_mini"]["state_bytes"]
    assert "2 seeds, no verdict below 5" in found["optimizers"]["adam_mini"]["loss_verdict"]
    for arm in arms.values():
        assert np.isfinite(arm["encoder"]["validation_loss"])
        assert arm["test"]["log_growth"] == pytest.approx(
            np.log1p(arm["test"]["net_profit"] / 10_000), abs=1e-9
        )


@pytest.mark.pitfall("T22")
def test_report_has_data_baselines(unbroken: tuple[Path, str]) -> None:
    folder, _ = unbroken
    lines = {line["name"]: line for line in metrics(folder)["baselines"]}
    assert {
        "untrained policy",
        "behaviour cloning",
        "best recorded run",
        "flat",
        "always long",
        "buy and hold",
    } <= set(lines)
    assert lines["flat"]["net"] == 0.0
    assert lines["best recorded run"]["net"] > 0  # the best of the recorded episodes
    outside = metrics(folder)["rows"]["outside_data"]
    assert 0 <= outside <= 1
    html = (folder / "report" / "report.html").read_text()
    for name in ("behaviour cloning", "best recorded run", "untrained policy", "Actions outside the data"):
        assert name in html


def same_files(a: Path, b: Path, *names: str) -> None:
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.pitfall("U13")
def test_stages_one_by_one_equal_run(
    unbroken: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = unbroken
    home = tmp_path / "it's  mine"  # a shell takes such a name apart
    home.mkdir()
    monkeypatch.chdir(home)

    def by_hand(verb: str, out: str, *flags: str) -> Path:
        settings = SMALL if verb == "study" else SMALL[:2]
        assert main([verb, *settings, *flags, "--out", out]) == 0
        return home / out

    encoder = by_hand("study-encoder", "encoder")
    names = ("models/encoder.safetensors", "models/context.safetensors", "metrics.jsonl")
    same_files(encoder, run / "10-pilot-encoder", *names)
    first = str(run / "20-research-r0")
    pilot = by_hand("study", "pilot", "--encoder", "encoder", "--episodes", first)
    names = tuple(f"models/{kind}.safetensors" for kind in ("encoder", "actor", "critic"))
    same_files(pilot, run / "15-pilot-study-r1", *names, "metrics.jsonl")
    by_hand("research", "r1", "--actor", "pilot", "--previous", first)
    same_files(home / "r1", run / "20-research-r1", "episodes/shard-r1-g0.safetensors", "metrics.jsonl")
    second = ("--encoder", "encoder", "--episodes", "r1")
    same_files(
        by_hand("study", "pilot2", *second, "--previous", "pilot"), run / "15-pilot-study-r2", *names, "metrics.jsonl"
    )  # fmt: skip
    fresh = by_hand("study", "fresh", *second) / "models" / "critic.safetensors"
    assert fresh.read_bytes() != (home / "pilot2" / "models" / "critic.safetensors").read_bytes()

    seed = ("--run.optimizer", "adamw", "--run.seed", "2")
    arm = run / "50-arms" / "adamw-s2"
    by_hand("study-encoder", "encoder2", *seed)
    last = str(run / "20-research-r2")
    study = by_hand("study", "study2", *seed, "--encoder", "encoder2", "--episodes", last)
    same_files(study, arm, *names)
    lines = [(home / name / "metrics.jsonl").read_text() for name in ("encoder2", "study2")]
    assert "".join(lines) == (arm / "metrics.jsonl").read_text()
    test = by_hand("test", "test2", "--models", "study2")
    record = json.loads((arm / "arm.json").read_text())
    assert json.loads((test / "tests" / "model-1.json").read_text())["test"] == record["test"]
    # the line that the report names does it again
    words = json.loads((test / "report" / "metrics.json").read_text())
    [pasted] = [line for name, line in words["versions"] if name == "command line"]
    assert main([*shlex.split(pasted)[1:], "--out", "pasted"]) == 0
    same_files(home / "pasted", test, "tests/model-1.json", "report/tables/positions.csv")
    again = json.loads((home / "pasted" / "report" / "metrics.json").read_text())
    assert again["versions"] == words["versions"]
    assert again["tester"] == words["tester"]
    figures = json.loads((study / "metrics.json").read_text())
    assert figures["encoder"]["skill"] == record["encoder"]["skill"]
    assert figures["study"]["log_growth"] == record["study"]["log_growth"]


@pytest.mark.slow
@pytest.mark.pitfall("T1")
def test_no_action_of_a_trained_arm_depends_on_the_future(
    unbroken: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, bars = unbroken[0] / "50-arms" / "adam_mini-s1", unbroken[0] / "bars.parquet"
    monkeypatch.setattr("halfstep.cli.programs.causality.POLICY_BARS", 20)
    monkeypatch.setattr("halfstep.cli.programs.causality.POLICY_CUTS", 1)
    command = ["lookahead", "--policy", str(arm), "--bars", str(bars), "--cuts", "2", "--json"]
    assert main(command) == 0
    features, policy = json.loads(capsys.readouterr().out)
    assert len(features["columns"]) == 9
    assert policy["columns"] == [f"action {k}" for k in range(6)]
    assert len(policy["cuts"]) >= 5
    assert policy["leaks"] == []

    def of_the_next_bar(*arguments: Any, **options: Any) -> Contexts:
        contexts = encode_contexts(*arguments, **options)
        return replace(contexts, rows=torch.cat([contexts.rows[1:], contexts.rows[-1:]]))

    monkeypatch.setattr("halfstep.cli.programs.policy.encode_contexts", of_the_next_bar)
    assert main([*command[:2], str(arm / "models" / "actor.safetensors"), *command[3:]]) == 1
    features, policy = json.loads(capsys.readouterr().out)
    assert features["leaks"] == []
    assert {leak["way"] for leak in policy["leaks"]} == {"future noise"}


class Page(HTMLParser):
    """Collects ids, references and tags, and checks that tags nest."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr", "path", "use", "rect", "circle", "stop"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and value:
                self.references.append(value)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_opens_without_a_network(unbroken: tuple[Path, str]) -> None:
    html = (unbroken[0] / "report" / "report.html").read_text()
    page = Page()
    page.feed(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert not re.search(r"@import|url\((?!#)|<script", html)
    assert page.tags.count("svg") >= 4
    for needed in (
        "Rows that the tester does not have",
        "Optimizers and forecasts",
        "State bytes, measured",
        "forecast",
        "ssumptions",
        "made up",
    ):
        assert needed in html, needed
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<svg.*?</svg>", "", html, flags=re.S), re.I)


@pytest.mark.pitfall("T27")
def test_same_seed_new_process_same_bytes(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    finished(command(tmp_path, *SMOKE, "--out", "run", "--run.jobs", "1", hash_seed="1"))
    assert_same_results(unbroken[0], tmp_path / "run")


def children_of(pid: int) -> list[int]:
    """Return the processes a process started."""
    tree = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in tree.read_text().split()] if tree.exists() else []


def kill_and_continue(home: Path, moments: list[float], start: tuple[str, ...] = SMOKE) -> None:
    """Kill a program at each number of seconds after it took its folder, then let it end."""
    for number, seconds in enumerate(moments):
        process = start_or_continue(home, start)
        deadline = time.monotonic() + 120
        while (
            holder_of(home / "run") != process.pid and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.05)  # a busy machine takes its time to begin
        time.sleep(seconds)
        workers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], f"orphans after kill {number}"
    finished(start_or_continue(home, start))


def holder_of(folder: Path) -> int:
    lock = folder / "lock"
    return int(lock.read_text()) if lock.exists() else 0


def start_or_continue(home: Path, start: tuple[str, ...]) -> subprocess.Popen[str]:
    exists = (home / "run" / "config.toml").exists()
    return command(home, *((start[0], "--resume", "run") if exists else (*start, "--out", "run")))


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_killed_run_continues_to_the_same_bytes(unbroken: tuple[Path, str], tmp_path: Path) -> None:
    kill_and_continue(tmp_path, [2.0, 5.0])
    assert_same_results(unbroken[0], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("start", [SMOKE, COMPARE], ids=["run", "compare"])
def test_kill_and_resume_gives_the_same_bytes(start: tuple[str, ...], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    finished(command(whole, *start, "--out", "run"))
    # a continuation keeps what is done, so that early moments reach every stage; on a busy machine they come later
    latest = 0.4 * (time.monotonic() - began)
    moments = np.random.default_rng(20).uniform(0.0, latest, 20).tolist()
    kill_and_continue(broken, moments, start)
    assert_same_results(whole / "run", broken / "run")


def test_a_finished_run_can_be_continued_and_stays_the_same(unbroken: tuple[Path, str]) -> None:
    folder, _ = unbroken
    before = metrics(folder)
    finished(command(folder.parent, "run", "--resume", "run"))
    assert metrics(folder) == before
    openings = (folder.parent / "runs" / "openings.jsonl").read_text().splitlines()
    assert len(openings) == 1  # the same run opens its test span once


def test_other_bars_are_no_continuation(unbroken: tuple[Path, str]) -> None:
    folder, _ = unbroken
    process = command(folder.parent, "run", "--resume", "run", "--data.made-up", "2700")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "data.made_up: 2600 became 2700" in text
    assert "Traceback" not in text


FRAGILE = """
import os, signal
from pathlib import Path
import torch
from halfstep.training.optimizers import register_optimizer

class Fragile(torch.optim.AdamW):
    \"\"\"Kills the first process that makes a step while there is a file `kill` here.\"\"\"

    def step(self, closure=None):
        if (kill := Path(__file__).with_name("kill")).exists():
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)

register_optimizer("fragile", lambda model, s: Fragile(model.parameters(), lr=s.lr))
"""


def failing_run(home: Path, *flags: str) -> tuple[int, str]:
    """Run in a folder where sgd diverges and the optimizer `fragile` may be killed; returns status and output."""
    home.mkdir(exist_ok=True)
    (home / "code.py").write_text(FRAGILE)
    settings = (
        "--recipe", "smoke", "--data.made-up", "1500", "--study-encoder.epochs", "1", "--study.updates", "6",
        "--study.eval-every", "3", "--research.passes", "4", "--compare.optimizers", "adamw", "fragile", "sgd", "--compare.headline", "fragile",
        "--compare.code", "code.py", "--optim.sgd-lr", "1e30", "--run.jobs", "2", "--out", "run",
    )  # fmt: skip
    process = command(home, "run", *(flags or settings))
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return where a run went on without three of its six arms, one of them killed, and its output."""
    home = tmp_path_factory.mktemp("incomplete")
    (home / "kill").touch()
    status, text = failing_run(home)
    assert status == 3, text
    return home, text


def test_failed_arms_stop_no_other_and_mark_the_result(incomplete: tuple[Path, str]) -> None:
    home, text = incomplete
    folder = home / "run"
    found = json.loads((folder / "metrics.json").read_text())
    assert found["complete"] is False
    killed = next(name for name in found["failed"] if name.startswith("fragile"))
    assert found["failed"].keys() == {killed, "sgd-s1", "sgd-s2"}
    assert found["failed"][killed]["error"] == "its process ended with exit code -9"
    assert found["failed"]["sgd-s1"]["error"].startswith("DivergenceError: ")
    for failure in found["failed"].values():
        assert (folder / failure["log"]).read_text()
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"
    page = json.loads((folder / "report" / "metrics.json").read_text())
    html = (folder / "report" / "report.html").read_text()
    [banner] = [each["text"] for each in page["banners"] if each["key"] == "incomplete"]
    words = " ".join(text.split())
    for said in (words, html.replace("&#39;", "'"), banner):
        assert "The result is incomplete." in said
        assert f"{killed} failed: its process ended with exit code -9 (log: 50-arms/{killed}/log.txt)" in said
        assert "sgd-s2 failed: DivergenceError" in said
    # no verdict on what has a missing arm
    assert found["verdict"] == f"No verdict: the result is incomplete, {killed} failed."
    assert "random trading (p = " not in words
    assert found["optimizers"].keys() == {"adamw", "fragile"}
    remarks = [sentence for key, sentence in page["remarks"] if key == "optimizers"]
    assert f"Validation loss: fragile - adamw: no verdict, {killed} failed." in remarks
    assert "sgd - adamw: no verdict, sgd-s1, sgd-s2 failed." in remarks
    lines = (home / "runs" / "registry.jsonl").read_text().splitlines()
    assert len(lines) == 6  # what failed was tried, too


@pytest.mark.slow
def test_a_continuation_does_a_killed_arm_as_if_nobody_had_killed_it(
    incomplete: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(incomplete[0], tmp_path / "a")
    assert failing_run(tmp_path / "a", "--resume", "run")[0] == 3
    assert failing_run(tmp_path / "b")[0] == 3
    for home in ("a", "b"):
        found = json.loads((tmp_path / home / "run" / "metrics.json").read_text())
        assert found["failed"].keys() == {"sgd-s1", "sgd-s2"}  # sure to fail
        assert "random trading (p = " in found["verdict"]
    folder, whole = tmp_path / "a" / "run", tmp_path / "b" / "run"
    names = [str(path.relative_to(whole)) for pattern in COMPARED for path in whole.glob(pattern)]
    assert len(names) > 15
    same_files(folder, whole, *names)


def test_without_the_headline_there_is_no_report(tmp_path: Path) -> None:
    status, text = failing_run(
        tmp_path, "--recipe", "smoke", "--data.made-up", "1500", "--study-encoder.epochs", "1", "--study.updates", "2",
        "--study.eval-every", "2", "--research.passes", "2", "--compare.optimizers", "sgd", "adamw", "--compare.headline", "sgd",
        "--compare.seeds", "1", "--optim.sgd-lr", "1e30", "--run.jobs", "2", "--out", "run",
    )  # fmt: skip
    assert status == 3
    assert re.search(r"halfstep: sgd-s1 failed: DivergenceError: .* The details are in .*log.txt", text)
    assert (tmp_path / "run" / "50-arms" / "adamw-s1" / "arm.json").exists()
    assert not (tmp_path / "run" / "report").exists()


def test_unknown_optimizers_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    flags = ("--recipe", "smoke", "--compare.optimizers", "adamw", "adamini", "--compare.headline", "adamw")
    process = command(tmp_path, "run", *flags, "--out", "run")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "'adamini', must be one of" in text
    assert not (tmp_path / "run").exists()
