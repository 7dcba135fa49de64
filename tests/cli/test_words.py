"""What a report says in words: the command line that it names gives the configuration again."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from halfstep.cli import flags
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.words import command_line, provenance
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
        {"data": {"bars": Path("/bars of mine/EURUSD_H1.csv"), "made_up": 0}},
    ],
)  # fmt: skip
def test_the_command_line_gives_the_configuration_again(recipe: str, changes: dict[str, Any]) -> None:
    config = merged(RECIPES[recipe](), changes, source="test")
    words = shlex.split(command_line("run", config))
    assert words[:2] == ["halfstep", "run"]
    request = flags.parse("run", "", words[2:], NoInputs)
    free = {"run": {"jobs": config.run.jobs, "threads": config.run.threads}}
    assert merged(request.config, free, source="test") == config
    assert "jobs" not in " ".join(words)  # sharing out the work changes no result


def test_what_made_a_report_begins_with_the_command() -> None:
    config = merged(RECIPES["smoke"](), {"run": {"seed": 5}}, source="test")
    found = provenance(config, command_line("test", config, "--models", "a", "b"))
    assert found[0] == ("command line", "halfstep test --recipe smoke --models a b --run.seed 5")
    assert found[1] == ("root seed", "5")
    assert {"halfstep", "numpy", "torch", "python"} <= {name for name, _ in found}
