"""The tutorial's commands, word for word, on a small export."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import halfstep
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars

TUTORIAL = (Path(__file__).resolve().parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ halfstep (.*)$", TUTORIAL, re.M)
TRAINING = ("run", "study-encoder", "research", "study", "test", "compare")


@pytest.mark.slow
def test_the_tutorial_word_for_word(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 8
    write_bars(random_bars(2600, seed=1), tmp_path / "EURUSD_H1.mt5.csv")
    (tmp_path / "EURUSD_H1.mt5.csv").rename(tmp_path / "EURUSD_H1.csv")
    for command in COMMANDS:
        words = command.split()
        if words[0] in TRAINING:
            words += ["--recipe", "smoke"]  # seconds instead of minutes; everything else as it stands
        done = subprocess.run(
            [sys.executable, "-m", "halfstep", *words], cwd=tmp_path, capture_output=True, text=True, timeout=600,
            check=False, env={**os.environ, "PYTHONPATH": str(Path(halfstep.__file__).parents[1])},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert (tmp_path / "runs" / "first" / "report" / "report.html").is_file()
    assert sorted(path.suffix for path in (tmp_path / "exported").iterdir()) == [".csv", ".mq5", ".onnx"]
