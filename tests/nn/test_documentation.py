"""What docs/networks.md shows runs, and its sizes are those of the code."""

import re
from pathlib import Path

from halfstep.nn.presets import PRESETS

from .test_presets import COUNTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    found: dict[str, object] = {}
    exec(code, found)  # our own page
    assert found["context"].shape == (4, 9, 26)
    assert found["output"].action.shape == (4, 10, 6)


def test_the_table_of_presets_is_true() -> None:
    for column, name in enumerate(PRESETS):
        rows = [
            re.search(rf"^\| {what} \| (.*) \|$", PAGE, re.M)
            for what in ("encoder", "actor", "critic", "value network")
        ]
        counts = tuple(int(row.group(1).split(" | ")[column].replace(",", "")) for row in rows)
        assert counts == COUNTS[name]


def test_every_file_of_the_table_exists() -> None:
    package = Path(__file__).resolve().parents[2] / "src" / "halfstep" / "nn"
    named = set(re.findall(r"`(\w+\.py)`", PAGE))
    assert all((package / name).is_file() for name in named)
    assert "turning_points.py" in named
