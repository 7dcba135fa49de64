"""TensorBoard reads what ``metrics.jsonl`` holds: each number once, also after kills and continuations."""

import json
from pathlib import Path

import numpy as np
import pytest

from halfstep.cli import events as module
from halfstep.cli.events import EVENTS_FILE, EventFiles, recorded, scalars_of
from halfstep.cli.main import main
from halfstep.config.load import digest, merged
from halfstep.config.recipes import smoke
from halfstep.progress import SILENT

LINES = (
    {"phase": "study", "seed": 1, "update": 20, "critic": 0.5, "parts": {"kl": 0.1, "why": "none"}},
    {"phase": "study", "seed": 1, "update": 40, "critic": 0.25, "parts": {"kl": 0.2, "why": "none"}},
    {"phase": "study", "seed": 1, "update": 0, "deals": 3, "histogram": [1, 2]},
)  # fmt: skip


def as_text(*lines: object) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_back(folder: Path) -> list[tuple[str, int, float]]:
    """Return every number that TensorBoard's own reader finds: tag, step, value."""
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )
    found = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return sorted(
        (tag, event.step, event.value) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)
    )


def expected(text: str) -> list[tuple[str, int, float]]:
    """Return the same from the lines; events hold float32."""
    return sorted((tag, step, float(np.float32(value))) for (tag, step), value in scalars_of(text).items())


def test_numbers_have_tag_and_step() -> None:
    assert scalars_of(as_text(*LINES)) == {
        ("study/critic", 20): 0.5, ("study/parts/kl", 20): 0.1, ("study/critic", 40): 0.25, ("study/parts/kl", 40): 0.2,
        ("study/deals", 0): 3.0,
    }  # fmt: skip
    epoch = {"phase": "encoder", "seed": 1, "epoch": 2, "update": 14, "train": 3.0}
    assert scalars_of(as_text(epoch)) == {("encoder/epoch", 14): 2.0, ("encoder/train", 14): 3.0}
    assert scalars_of(as_text({"phase": "replay", "seed": 1, "used": 7})) == {("replay/used", 0): 7.0}


def test_what_is_new_is_appended_and_each_number_stands_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    metrics, target = tmp_path / "arm" / "metrics.jsonl", tmp_path / "arm" / EVENTS_FILE
    metrics.parent.mkdir()
    files = EventFiles(tmp_path)
    files.refresh()
    assert not target.exists()
    metrics.write_text(as_text(LINES[0]))
    files.refresh()
    first = target.read_bytes()
    assert read_back(target.parent) == expected(as_text(LINES[0]))
    metrics.write_text(as_text(*LINES))
    files.refresh()
    assert target.read_bytes().startswith(first)  # a reader that follows the file goes on
    assert len(target.read_bytes()) > len(first)
    assert read_back(target.parent) == expected(as_text(*LINES))
    files.refresh()
    assert read_back(target.parent) == expected(as_text(*LINES))


def test_a_killed_writer_and_other_numbers_leave_no_trace(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    metrics, target = tmp_path / "metrics.jsonl", tmp_path / EVENTS_FILE
    metrics.write_text(as_text(*LINES))
    EventFiles(tmp_path).refresh()
    target.write_bytes(target.read_bytes()[:-5])  # killed inside a write
    metrics.write_text(as_text(*LINES[:2]))  # the last line was not safe yet
    files = EventFiles(tmp_path)  # the continuation
    files.refresh()
    assert read_back(tmp_path) == expected(as_text(*LINES[:2]))
    changed = {**LINES[1], "critic": 9.0}
    metrics.write_text(as_text(LINES[0], changed))
    files.refresh()
    assert read_back(tmp_path) == expected(as_text(LINES[0], changed))


def test_stages_are_read_and_what_a_run_gathers_is_not(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    for name in ("10-pilot-encoder", "50-arms/sgd-s1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(as_text(LINES[0]))
    (tmp_path / "metrics.jsonl").write_text(as_text({"where": "10-pilot-encoder", **LINES[0]}))
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path, SILENT, wanted=True):
        raise KeyboardInterrupt  # whatever the end is
    found = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.glob(f"**/{EVENTS_FILE}")}
    assert found == {"10-pilot-encoder", "50-arms/sgd-s1"}


def test_progress_is_passed_on_and_lines_are_looked_for_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    monkeypatch.setattr(EventFiles, "refresh", lambda _: looks.append("look"))

    class Heard:
        def start(self, name: str, total: int, unit: str) -> None:
            looks.append(f"{name} {total} {unit}")

        def advance(self, done: int, **figures: float) -> None:
            looks.append(f"{done} {figures}")

        def finish(self) -> None:
            looks.append("finish")

    with recorded(tmp_path, Heard(), wanted=True) as progress:
        progress.start("study", 5, "updates")
        progress.advance(2, loss=0.5)
        monkeypatch.setattr(module, "INTERVAL", 0.0)
        progress.advance(3)
        progress.finish()
    assert looks == ["study 5 updates", "2 {'loss': 0.5}", "3 {}", "look", "finish", "look", "look"]
    heard = Heard()
    with recorded(tmp_path, heard, wanted=False) as progress:
        assert progress is heard


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert main(["research", "--recipe", "smoke", "--run.tensorboard", "--out", "results"]) == 2
    assert "pip install 'halfstep[tensorboard]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_setting_decides_no_result() -> None:
    assert digest(merged(smoke(), {"run": {"tensorboard": True}}, source="test")) == digest(smoke())


def test_an_interrupted_training_ends_with_the_events_of_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    monkeypatch.chdir(tmp_path)
    from halfstep.training import encoder as training

    original, calls = training.evaluate, []

    def stopped(*given: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "evaluate", stopped)
    flags = ["--recipe", "smoke", "--study-encoder.epochs", "2", "--run.tensorboard", "--out", "results"]
    assert main(["study-encoder", *flags]) == 130
    results = tmp_path / "results"
    assert {step for _, step, _ in read_back(results)} == {7}
    assert main(["study-encoder", "--resume", "results"]) == 0
    text = (results / "metrics.jsonl").read_text()
    assert len(text.splitlines()) == 2
    assert read_back(results) == expected(text)
