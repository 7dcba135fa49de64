"""What makes two results the same trial, and that programs tell the registry of theirs."""

import json
from pathlib import Path

import pytest
import torch

from halfstep.cli.main import main
from halfstep.cli.programs.trials import configuration_hash
from halfstep.config.load import merged
from halfstep.config.recipes import smoke


@pytest.mark.pitfall("T25")
@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({"run": {"seed": 7, "jobs": 2}}, False),
        ({"compare": {"seeds": 9}, "tune": {"trials": 3}, "walk_forward": {"seeds": 2}}, False),
        ({"test": {"random_runs": 200}}, False),
        ({"run": {"rounds": 3}}, True),
        ({"optim": {"lr": 2e-3}}, True),
        ({"study": {"updates": 51}}, True),
        ({"broker": {"leverage": 50.0}}, True),
        ({"data": {"features": "published9"}}, True),
    ],
)
def test_what_decides_a_result_makes_another_trial(
    changes: dict[str, dict[str, object]], is_another: bool
) -> None:
    base = configuration_hash(smoke(), "bars", "adamw")
    changed = configuration_hash(merged(smoke(), changes, source="test"), "bars", "adamw")
    assert (changed != base) is is_another


def test_optimizers_bars_and_plans_make_another_trial() -> None:
    base = configuration_hash(smoke(), "bars", "adamw")
    assert configuration_hash(smoke(), "bars", "sgd") != base
    assert configuration_hash(smoke(), "other bars", "adamw") != base
    assert configuration_hash(smoke(), "bars", "adamw", {"train_months": 2}) != base


@pytest.mark.pitfall("T25")
def test_a_single_stage_is_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    flags = ("--recipe", "smoke", "--data.made-up", "1500", "--study-encoder.epochs", "1")
    for seed in ("1", "2"):
        assert main(["study-encoder", *flags, "--run.seed", seed, "--out", f"encoder-{seed}"]) == 0
    torch.set_num_threads(threads)
    lines = [json.loads(line) for line in Path("runs/registry.jsonl").read_text().splitlines()]
    assert [(line["program"], line["seed"], line["figure"]) for line in lines] == [
        ("study-encoder", 1, "validation_loss"), ("study-encoder", 2, "validation_loss"),
    ]  # fmt: skip
    assert len({line["configuration"] for line in lines}) == 1
