"""A store of any size is written and sampled in the memory of one group and one batch."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fill_and_sample.py")


def resident_after(folder: Path, groups: int, size: int, length: int) -> tuple[int, int, int]:
    """Return kilobytes resident after writing, after opening and after sampling in a process of its own."""
    command = [sys.executable, str(PROGRAM), str(folder), str(groups), str(size), str(length)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written, opened, sampled = map(int, output.split())
    return written, opened, sampled


@pytest.mark.pitfall("U15")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident size is read from /proc")
def test_memory_is_flat(tmp_path: Path) -> None:
    few = resident_after(tmp_path / "few", 1, 10, 3000)
    many = resident_after(tmp_path / "many", 11, 10, 3000)  # 110 episodes, 21 MB
    assert sum(path.stat().st_size for path in (tmp_path / "many").iterdir()) > 21_000_000
    for a, b in zip(few, many, strict=True):
        assert b < 1.05 * a


@pytest.mark.slow
@pytest.mark.pitfall("U15")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident size is read from /proc")
def test_memory_is_flat_for_a_large_store(tmp_path: Path) -> None:
    few = resident_after(tmp_path / "few", 1, 50, 6200)
    many = resident_after(tmp_path / "many", 30, 50, 6200)  # 1,500 year-runs, 0.6 GB
    for a, b in zip(few, many, strict=True):
        assert b < 1.05 * a
