"""States of a training on disk: whole or absent, without pickle, and an interrupt that waits for a whole update."""

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halfstep import files
from halfstep.errors import CheckpointError, DivergenceError
from halfstep.training import checkpoint as module
from halfstep.training.checkpoint import Checkpoint

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(state=st.dictionaries(st.sampled_from(["best", "update", "curve"]), PLAIN))
def test_plain_values_come_back_as_they_were(
    state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.mktemp("state"))
    checkpoint.save(state, step=1)
    assert checkpoint.load() == state


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int8, torch.bool], ids=str
)
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.arange(-3, 9).reshape(3, 4).to(dtype)
    state = {
        "optimizer": {"state": {0: {"m": tensor, "row": tensor[1], "turned": tensor.T}, 7: torch.tensor(1.5)}},
        "carried": [tensor[0], torch.zeros(0)], "best": None, "best_loss": math.inf,
    }  # fmt: skip
    Checkpoint(tmp_path).save(state, step=3)
    found = Checkpoint(tmp_path).load()
    assert found is not None
    moments = found["optimizer"]["state"][0]
    for name, expected in (("m", tensor), ("row", tensor[1]), ("turned", tensor.T)):
        assert moments[name].dtype == dtype
        assert torch.equal(moments[name], expected)
    assert torch.equal(found["optimizer"]["state"][7], torch.tensor(1.5))
    assert torch.equal(found["carried"][0], tensor[0])
    assert found["carried"][1].shape == (0,)
    assert (found["best"], found["best_loss"]) == (None, math.inf)
    assert {path.name for path in (tmp_path / "step-00000003").iterdir()} == {
        "carried.safetensors", "optimizer.safetensors", "trainer.json",
    }  # fmt: skip


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"model\.hook: function, must be a tensor or a plain value"):
        Checkpoint(tmp_path).save({"model": {"hook": test_what_cannot_be_kept_is_named}}, step=1)
    assert list(tmp_path.iterdir()) == []


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    for step in (1, 9, 10, 10, 100):
        checkpoint.save({"update": step, "weights": torch.full((2,), float(step))}, step=step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert (checkpoint.load() or {})["update"] == 100


def test_a_failed_write_leaves_the_states_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"update": 1}, step=1)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"update": 2}, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load() == {"update": 1}


@pytest.mark.parametrize("harm", ["cut", "format", "absent", "tensors"])
def test_a_damaged_state_is_named(harm: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    for step in (1, 2):
        checkpoint.save({"update": step, "model": {"weight": torch.ones(3)}}, step=step)
    newest = tmp_path / "step-00000002"
    trainer, tensors = newest / "trainer.json", newest / "model.safetensors"
    if harm == "cut":
        trainer.write_text(trainer.read_text()[:-9])
    elif harm == "format":
        trainer.write_text(json.dumps(json.loads(trainer.read_text()) | {"format": "halfstep-checkpoint/9"}))
    elif harm == "absent":
        tensors.unlink()
    else:
        tensors.write_bytes(tensors.read_bytes()[:-4])
    with pytest.raises(
        CheckpointError, match=r"step-00000002: not a whole checkpoint .*continue from the one before"
    ):
        checkpoint.load()
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    assert (checkpoint.load() or {})["update"] == 1  # as the message says


def test_checkpoints_are_due_by_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert not checkpoint.is_due
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    assert checkpoint.is_due


def test_divergence_says_where_the_newest_good_state_lies(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    with (
        pytest.raises(DivergenceError, match=r"bad\. No state was saved yet\."),
        checkpoint.named_on_divergence(),
    ):
        raise DivergenceError("bad.")
    checkpoint.save({"updates": 3}, step=3)
    with (
        pytest.raises(DivergenceError, match=r"newest good state is .*step-00000003"),
        checkpoint.named_on_divergence(),
    ):
        raise DivergenceError("bad.")


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def updates_of(checkpoint: Checkpoint, interrupts: set[int], done: list[int]) -> None:
    """Make four updates; a person presses Ctrl-C in some of them."""
    with checkpoint:
        for update in range(1, 5):
            if update in interrupts:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(update)
            if checkpoint.is_due and update < 4:
                checkpoint.save({"update": update}, step=update)


@pytest.mark.usefixtures("default_interrupts")
def test_an_interrupt_waits_until_the_state_is_safe(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        updates_of(Checkpoint(tmp_path), {2}, done)
    assert done == [1, 2]
    assert Checkpoint(tmp_path).load() == {"update": 2}


@pytest.mark.usefixtures("default_interrupts")
def test_a_second_interrupt_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "is_due", False)
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        updates_of(Checkpoint(tmp_path), {2, 3}, done)
    assert done == [1, 2]


@pytest.mark.usefixtures("default_interrupts")
def test_an_interrupt_at_the_very_end_is_not_forgotten(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        updates_of(Checkpoint(tmp_path), {4}, done)
    assert done == [1, 2, 3, 4]
