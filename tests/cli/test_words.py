"""What a report says in words: the command line that it names gives the configuration again."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from halfstep.cli import flags
from halfstep.cli.inputs import NoInputs, TestInputs
from halfstep.cli.programs.market import load_market
from halfstep.cli.programs.test import words_of
from halfstep.cli.programs.words import command_line, expert, provenance, settings
from halfstep.config.load import merged
from halfstep.config.recipes import RECIPES


@pytest.mark.parametrize("recipe", ["smoke", "quick", "reference"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"study": {"updates": 7}, "walk_forward": {"anchored": True, "months": ("2023-01", "2023-12")}},
        {"run": {"seed": 3, "jobs": 2}, "compare": {"sweep": True, "optimizers": ("adamw", "adam_mini")}},
        {"split": dict.fromkeys(("train", "validation", "test")), "broker": {"commission": 3.5, "cost_scale": 2.0}},
        {"data": {"bars": Path("/bars of mine/it's  EURUSD_H1.csv"), "made_up": 0, "detail": Path("/a b/EURUSD_M15.csv")}},
        {"compare": {"code": (Path("/my code/$HOME.py"), Path("/other.py"))}, "walk_forward": {"optimizer": "mine"}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", "walk-forward"])
def test_the_command_line_gives_the_configuration_again(
    verb: str, recipe: str, changes: dict[str, Any]
) -> None:
    config = merged(RECIPES[recipe](), changes, source="test")
    words = shlex.split(command_line(verb, config))
    assert words[:2] == ["halfstep", verb]
    request = flags.parse(verb, "", words[2:], NoInputs)
    free = {"run": {"jobs": config.run.jobs, "threads": config.run.threads}}
    assert merged(request.config, free, source="test") == config
    assert "jobs" not in " ".join(words)  # sharing out the work changes no result


def test_the_command_line_of_a_test_names_its_models_and_has_only_flags_of_its_own() -> None:
    """A setting from a file once became a flag that the program does not have; folders lost all but their last name."""
    config = merged(
        RECIPES["smoke"](), {"study": {"updates": 7}, "compare": {"seeds": 3}, "broker": {"cost_scale": 2.0}}, source="test"
    )  # fmt: skip
    inputs = TestInputs(models=(Path("/my runs/a"), Path("/my runs/b")), sampled=True, seed=4)
    words = shlex.split(command_line("test", config, *words_of(inputs)))
    request = flags.parse("test", "", words[2:], TestInputs)
    assert request.inputs == inputs
    assert request.config == merged(RECIPES["smoke"](), {"broker": {"cost_scale": 2.0}}, source="test")


def test_every_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.toml").write_text('[data]\nprofit_rate = "GBPUSD_H1.csv"\n')
    argv = ("--recipe", "quick", "--config", "more.toml", "--bars", "a.csv", "--data.detail", "b.csv", "--compare.code", "c.py")  # fmt: skip
    config = flags.parse("run", "", argv, NoInputs).config
    assert (config.data.bars, config.data.detail, config.data.profit_rate, config.compare.code) == (
        tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "GBPUSD_H1.csv", (tmp_path / "c.py",)
    )  # fmt: skip


def test_what_made_a_report_begins_with_the_command() -> None:
    config = merged(RECIPES["smoke"](), {"run": {"seed": 5}}, source="test")
    found = provenance(config, command_line("test", config, "--models", "a", "b"))
    assert found[0] == ("command line", "halfstep test --recipe smoke --models a b --run.seed 5")
    assert found[1] == ("root seed", "5")
    assert {"halfstep", "numpy", "torch", "python"} <= {name for name, _ in found}


def test_the_settings_name_the_networks_and_can_be_read_as_a_configuration(tmp_path: Path) -> None:
    config = merged(RECIPES["smoke"](), {"data": {"made_up": 2000}, "study": {"updates": 7}}, source="test")
    models = tmp_path / "50-arms" / "adam_mini-s2"
    (models / "models").mkdir(parents=True)
    (models / "models" / "actor.safetensors").write_bytes(b"weights")
    name = expert(models, "adam_mini-s2")
    assert name.startswith("adam_mini-s2, folder 50-arms/adam_mini-s2, weights ")
    assert expert(tmp_path, "adam_mini-s2") == "adam_mini-s2"
    found = {row.key: row.text for row in settings(config, load_market(config), expert=name, spans="")}
    assert found["expert"] == name
    (tmp_path / "again.toml").write_text(found["inputs"])
    argv = ("--recipe", "quick", "--config", str(tmp_path / "again.toml"))
    assert flags.parse("run", "", argv, NoInputs).config == config
