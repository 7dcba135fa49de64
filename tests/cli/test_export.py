"""`halfstep export`: which policy of a run is written, and what it refuses."""

import json
from pathlib import Path

import pytest

from halfstep.cli.main import main

pytest.importorskip("onnxruntime", reason="the extra export is not installed")


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "it holds no config.toml. Start one with: halfstep run --out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_policy_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--recipe", "smoke", "--out", "r-1"]) == 0
    growth = {
        path.parent.name: json.loads(path.read_text())["study"]["log_growth"]
        for path in Path("r-1", "50-arms").glob("*/arm.json")
    }
    capsys.readouterr()
    assert main(["export", "r-1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chosen = Path(found["source"]).name
    assert growth[chosen] == max(growth.values())
    assert found["check"]["windows"] == 1000
    assert sorted(path.suffix for path in Path("r-1", "export").iterdir()) == [".csv", ".mq5", ".onnx"]
    assert main(["export", "r-1", "--arm", chosen]) == 2
    assert "exists. Choose another --out or --name." in capsys.readouterr().err
    assert main(["export", "r-1", "--arm", "adamw-s9"]) == 2
    assert "arm: 'adamw-s9' is not in r-1, must be one of adam_mini-s1" in capsys.readouterr().err
    assert (
        main(["export", "r-1", "--what", "safetensors", "--arm", "adamw-s1", "--out", "w", "--name", "p"])
        == 0
    )
    assert (
        Path("w/p.actor.safetensors").read_bytes()
        == Path("r-1/50-arms/adamw-s1/models/actor.safetensors").read_bytes()
    )
