"""What bad input gets: one line that names the thing, its value and the way out; exit status; no traceback; nothing written."""

import errno
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from halfstep import files
from halfstep.cli.main import VERBS, main

Captured = pytest.CaptureFixture[str]
TINY = ("--recipe", "smoke", "--data.made-up", "2000")
STUDY = ("--study.updates", "4", "--study.eval-every", "2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small encoder, trajectories and a study."""
    home = tmp_path_factory.mktemp("world")
    encoder, research, study = (str(home / name) for name in ("encoder", "research", "study"))
    epochs = ("--study-encoder.epochs", "1")
    assert main(["study-encoder", *TINY, *epochs, "--out", encoder]) == 0
    assert main(["research", *TINY, "--research.passes", "6", "--out", research]) == 0
    argv = ["study", *TINY, *STUDY, "--encoder", encoder, "--episodes", research, "--out", study]
    assert main(argv) == 0
    return home


@pytest.fixture
def here(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the world that a test may harm, made the working folder."""
    home = tmp_path / "here"
    shutil.copytree(world, home)
    monkeypatch.chdir(home)
    return home


def message_of(capsys: Captured, *argv: str, status: int = 2) -> str:
    capsys.readouterr()
    assert main(argv) == status
    error = capsys.readouterr().err
    [message] = [line for line in error.splitlines() if line.startswith("halfstep: ")]
    assert "Traceback" not in error
    return message


STUDY_OF = ("study", *TINY, *STUDY, "--encoder", "encoder", "--episodes", "research", "--out", "x")

ROWS = [
    # unknown key, wrong type or range: key path, value, allowed, nearest key
    (("study", "--config", "unknown.toml"), r"study\.updats: unknown key \(unknown\.toml\)\. The nearest known key is study\.updates"),
    (("study", "--config", "type.toml"), r"study\.updates: 'many', Input should be a valid integer.*\(type\.toml\)"),
    (("study", "--config", "range.toml"), r"study\.updates: 0, must be at least 1\. \(range\.toml\)"),
    ((*STUDY_OF, "--run.optimizer", "lion"), r"run\.optimizer: 'lion', must be one of sgd, adam"),
    # a needed file or folder is absent: path, and the command that makes it
    (("study", *TINY), r"encoder: not given\. .* --encoder; halfstep study-encoder makes one"),
    (("study", *TINY, "--encoder", "encoder"), r"episodes: not given\. .* --episodes; halfstep research makes one"),
    (("test", *TINY), r"models: none given\. .* --models; halfstep study makes one"),
    (("study", *TINY, "--encoder", "a", "--episodes", "research"), r"no encoder in .*/here/a: run halfstep study-encoder --out .*/here/a$"),
    (("study", *TINY, "--encoder", "encoder", "--episodes", "a"), r"no trajectories in .*/here/a: run halfstep research --out .*/here/a$"),
    (("test", *TINY, "--models", "encoder"), r"no actor in .*/here/encoder: run halfstep study --out .*/here/encoder$"),
    (("study-encoder", "--bars", "a.csv"), r"no file at .*/here/a\.csv"),
    (("study-encoder", "--config", "a.toml"), r"no configuration at a\.toml\. Write one with: halfstep show-config > a\.toml"),
    (("study", "--resume", "a"), r"no run in a: it holds no config\.toml\."),
    # store made from other bars or account rules: both hashes
    ((*STUDY_OF, "--broker.leverage", "50"), r"research/episodes: .*rules.* [0-9a-f']{8}.*, wanted '?[0-9a-f]{8}"),
    # model of another size, feature list, training data
    ((*STUDY_OF, "--model.preset", "default"), r"encoder\.safetensors: made with config\.hidden 16 instead of 64; .*tensors of another shape: .*Make it again with: halfstep study-encoder"),
    ((*STUDY_OF, "--data.features", "published9"), r"encoder\.safetensors: made with feature_names \['gap', .* instead of \['close_open', "),
    (("test", *TINY, "--models", "swapped"), r"swapped/models/actor\.safetensors: holds critic .*must hold actor"),
    (("test", *TINY, "--models", "foreign"), r"foreign/models/actor\.safetensors: made with encoder '[0-9a-f]{64}' instead of '[0-9a-f]{64}'"),
    (("test", *TINY, "--models", "cut"), r"cut/models/encoder\.safetensors: not a whole safetensors file"),
    (("test", *TINY, "--models", "study", "study"), r"models: .*/here/study is named twice"),
    (("test", *TINY, "--models", "study", "--sampled"), r"sampled: actions are drawn, but no seed is given\. Name one with --seed\."),
    # spans overlap: the spans, the purge rule
    (("study-encoder", *TINY, "--split.train", "2022-02-10", "2022-04-01", "--split.validation", "2022-03-01", "2022-04-10", "--split.test", "2022-04-10", "2022-04-20"),
     r"split: train \('2022-02-10', '2022-04-01'\), validation .* must be disjoint.*last 24 bars .*\(purge\)"),
    (("study-encoder", *TINY, "--split.train", "2022-02-10", "2022-03-01", "--split.validation", "2022-03-01", "2022-04-10", "--split.test", "2022-04-10", "2024-04-20"),
     r"the test span 2022-04-10 to 2024-04-20 is not inside the bars\. The bars cover .*--split\.test"),
    # an output that would be lost
    ((*STUDY_OF[:-1], "study"), r"study is not empty\. Choose another folder with --out, or continue its run with --resume study"),
]  # fmt: skip


@pytest.fixture
def harmed(here: Path) -> Path:
    """Return the world with faulty inputs beside the good ones."""
    (here / "unknown.toml").write_text("[study]\nupdats = 5\n")
    (here / "type.toml").write_text("[study]\nupdates = 'many'\n")
    (here / "range.toml").write_text("[study]\nupdates = 0\n")
    for name in ("swapped", "foreign", "cut"):
        shutil.copytree(here / "study" / "models", here / name / "models")
    shutil.copy(here / "study/models/critic.safetensors", here / "swapped/models/actor.safetensors")
    encoder = here / "foreign/models/encoder.safetensors"
    data = bytearray(encoder.read_bytes())
    data[-1] ^= 1  # the last byte of the last tensor
    encoder.write_bytes(bytes(data))
    encoder = here / "cut/models/encoder.safetensors"
    encoder.write_bytes(encoder.read_bytes()[:-100])
    return here


@pytest.mark.pitfall("U11")
def test_messages_of_section_2(harmed: Path, capsys: Captured) -> None:
    before = sorted(harmed.rglob("*"))
    for argv, pattern in ROWS:
        message = message_of(capsys, *argv)
        assert re.search(pattern, message), f"{message}\ndoes not match\n{pattern}"
        assert sorted(harmed.rglob("*")) == before, f"{argv} wrote something"


@pytest.mark.pitfall("T33")
def test_damaged_trajectories_are_named(here: Path, capsys: Captured) -> None:
    [shard] = (here / "research/episodes").glob("shard-*.safetensors")
    whole = shard.read_bytes()
    for harm in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1]), b"\x80\x04]\x94."):
        shard.write_bytes(harm)
        message = message_of(capsys, *STUDY_OF)
        assert shard.name in message
        assert not (here / "x").exists()


def test_divergence_is_exit_status_3(here: Path, capsys: Captured) -> None:
    argv = ("study-encoder", *TINY, "--out", "d", "--optim.lr", "1e30", "--optim.warmup-steps", "0")
    message = message_of(capsys, *argv, status=3)
    assert re.search(r"update \d+: loss \S+, gradients not finite in norm\.gain.*Lower --optim\.lr", message)
    assert json.loads((here / "d" / "manifest.json").read_text())["status"] == "failed"
    assert "DivergenceError" in (here / "d" / "log.txt").read_text()


def test_a_full_disk_is_one_line_and_what_stands_stays(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = files._sync

    def full(path: Path) -> None:
        if "encoder.safetensors" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    before = (here / "study/models/actor.safetensors").read_bytes()
    argv = ("study-encoder", *TINY, "--study-encoder.epochs", "1", "--out", "full")
    message = message_of(capsys, *argv)
    assert re.search(r"No space left on device: .*full/models/.*encoder.*", message)
    assert not (here / "full/models/encoder.safetensors").exists()
    assert (here / "study/models/actor.safetensors").read_bytes() == before
    monkeypatch.setattr(files, "_sync", sync)
    assert main(["study-encoder", "--resume", "full"]) == 0
    same = [(here / name / "models/encoder.safetensors").read_bytes() for name in ("full", "encoder")]
    assert same[0] == same[1]


@pytest.mark.pitfall("R13")
def test_a_test_is_repeatable_and_sampled_only_with_a_seed(here: Path) -> None:
    def actions(out: str, *flags: str) -> list[list[float]]:
        assert main(["test", *TINY, "--models", "study", *flags, "--out", out]) == 0
        record = json.loads((here / out / "tests" / "model-1.json").read_text())
        found: list[list[float]] = record["test"]["actions"]
        return found

    assert actions("a") == actions("b")
    assert (here / "a/metrics.json").read_text() != ""
    drawn = actions("c", "--sampled", "--seed", "3")
    assert drawn == actions("d", "--sampled", "--seed", "3")
    assert drawn != actions("e", "--sampled", "--seed", "4")
    assert drawn != actions("f")


@pytest.mark.pitfall("R12")
def test_a_second_opening_of_the_test_span_is_recorded(here: Path, capsys: Captured) -> None:
    for number, out in enumerate(("a", "b"), 1):
        assert main(["test", *TINY, "--models", "study", "--out", out]) == 0
        assert json.loads((here / out / "metrics.json").read_text())["openings"] == number
    assert "opened 2 times so far" in " ".join(capsys.readouterr().err.split())
    assert main(["test", "--resume", "a"]) == 0  # once per run
    lines = [json.loads(line) for line in (here / "runs/openings.jsonl").read_text().splitlines()]
    assert [Path(line["run"]).name for line in lines] == ["a", "b"]
    assert all({"time", "bars", "span", "config"} <= line.keys() for line in lines)


def test_rows_over_models_are_those_of_their_seeds(here: Path) -> None:
    argv = ["study", *TINY, *STUDY, "--encoder", "encoder", "--episodes", "research", "--run.seed", "2"]
    assert main([*argv, "--out", "study2"]) == 0
    assert main(["test", *TINY, "--models", "study", "study2", "--out", "t", "--json"]) == 0
    figures = json.loads((here / "t/metrics.json").read_text())
    nets = [model["test"]["net_profit"] for model in figures["models"]]
    row = figures["rows"]["net_profit"]
    assert row["values"] == pytest.approx(nets)
    assert (row["least"], row["greatest"]) == (min(row["values"]), max(row["values"]))
    assert row["least"] <= row["low"] <= row["mean"] <= row["high"] <= row["greatest"]
    assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
    assert [model["seed"] for model in figures["models"]] == [1, 2]


HEAVY = ("torch", "matplotlib", "pandas")
DRY = {"run", "study-encoder", "study", "research", "test", "compare", "tune"}


@pytest.mark.pitfall("U18")
def test_help_and_dry_run_of_every_verb(here: Path, capsys: Captured) -> None:
    names = [verb.name for verb in VERBS]
    code = (
        "import sys, contextlib, io\nfrom halfstep.cli.main import main\n"
        f"for verb in {names}:\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n        assert main([verb, '--help']) == 0, verb\n"
        "    assert f'usage: halfstep {verb}' in out.getvalue(), verb\n"
        f"    loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not loaded, (verb, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    before = sorted(here.rglob("*"))
    inputs = {"study": STUDY_OF[9:-2], "test": ("--models", "study")}
    absent = set() if importlib.util.find_spec("optuna") else {"tune"}  # an extra
    for verb in sorted(DRY - absent):
        assert main([verb, *TINY, *inputs.get(verb, ()), "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert "made_up = 2000" in text
        assert re.search(r"^# 1\. .*about \d+ (s|min)", text, re.M), text
        assert re.search(r"^# in all about ", text, re.M)
    assert sorted(here.rglob("*")) == before


@pytest.mark.pitfall("U2")
def test_cpu_path_needs_no_gpu_packages(here: Path) -> None:
    code = (
        "import sys\nsys.modules['triton'] = None  # absent\n"
        "from halfstep.cli.main import main\n"
        f"sys.exit(main(['study-encoder', *{TINY}, '--study-encoder.epochs', '1', '--out', 'cpu']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path), "HOME": str(here)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    same = [(here / name / "models/encoder.safetensors").read_bytes() for name in ("cpu", "encoder")]
    assert same[0] == same[1]
