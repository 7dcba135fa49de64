"""Every opening of a test span is counted, once per run."""

import json
from pathlib import Path

import pytest

from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.openings import OPENINGS, open_test
from halfstep.config.load import merged
from halfstep.config.recipes import smoke


@pytest.mark.pitfall("R12")
def test_a_second_opening_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = merged(smoke(), {"data": {"made_up": 1500}}, source="test")
    market = load_market(config)
    assert open_test(config, market, tmp_path / "one") == 1
    assert open_test(config, market, tmp_path / "two") == 2
    assert open_test(config, market, tmp_path / "one") == 1  # continued: the same look
    days = {
        "train": market.split.train,
        "validation": market.split.validation,
        "test": (market.split.test[0], "2022-03-30"),
    }
    other = merged(config, {"split": days}, source="test")
    assert open_test(other, load_market(other), tmp_path / "three") == 1  # another span
    lines = [json.loads(line) for line in OPENINGS.read_text().splitlines()]
    assert [Path(line["run"]).name for line in lines] == ["one", "two", "three"]
    assert lines[0].keys() == {"time", "bars", "span", "run", "config"}
