"""Every network is captured whole by torch.compile, and exported, without a recompilation per batch size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import halfstep
from halfstep.nn.plr import Plr

from .cases import noise

ROOT = Path(__file__).resolve().parents[2]


def examined(backend: str, *names: str) -> dict[str, dict[str, float]]:
    """Return what `tests.nn.compiling` saw."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.nn.compiling", backend, *names],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={"PYTHONPATH": str(Path(halfstep.__file__).parents[1]), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return seen


def check(seen: dict[str, dict[str, float]], count: int, *, graphs: int = 2) -> None:
    """Compare programs, and count graphs: one for the first batch size, one for every other."""
    assert len(seen) == count
    for name, figures in seen.items():
        assert figures["graphs"] <= graphs, name
        assert figures["compiled"] < 1e-4, name
        assert figures["exported"] < 1e-4, name


def test_presets_compile_and_export() -> None:
    check(examined("eager", "tiny", "default"), 8)


def test_other_encoders_compile_and_export() -> None:
    check(examined("eager", "stnn", "attention"), 2)


@pytest.mark.slow
@pytest.mark.compiled
def test_the_reference_compiles_and_exports() -> None:
    check(examined("eager", "reference"), 4)


@pytest.mark.slow
@pytest.mark.compiled
def test_inductor_agrees() -> None:
    """Numbers only: unlike the capture, inductor makes code of its own for small batches (2, 3, 5, 7 here)."""
    check(examined("inductor", "tiny"), 4, graphs=4)


def test_a_captured_graph_finds_turning_points_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, series = Plr(0.5, 8), noise(3, 2, 40).cumsum(2)
    scanned = layer(series)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    monkeypatch.setattr("halfstep.nn.plr.turning_points_by_scan", None)
    assert layer(series).equal(scanned)
