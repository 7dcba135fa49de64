"""Configurations: order of sources, round trips, what counts as the same."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from halfstep.config.load import changes_from, differences, digest, merged, read_toml, to_toml, validated
from halfstep.config.recipes import RECIPES
from halfstep.config.tables import Config
from halfstep.errors import ConfigError, MissingInputError
from halfstep.market.splits import REFERENCE_SPLIT


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_own_file(name: str) -> None:
    config = RECIPES[name]()
    assert config.recipe == name
    assert validated(tomllib.loads(to_toml(config)), source="x") == config
    assert {"adamw", config.compare.headline} <= set(config.compare.optimizers)


def test_later_sources_win_and_leave_the_rest() -> None:
    base = RECIPES["quick"]()
    changed = merged(base, {"study": {"updates": 7}}, source="x")
    assert changed.study.updates == 7
    assert changed.study.batch == base.study.batch
    assert differences(base, changed) == ["study.updates: 600 became 7"]


@given(jobs=st.integers(0, 64))
def test_jobs_do_not_change_what_a_run_is(jobs: int) -> None:
    base = RECIPES["smoke"]()
    other = merged(base, {"run": {"jobs": jobs}}, source="x")
    assert digest(other) == digest(base)
    assert differences(base, other) == []


def test_everything_else_changes_the_digest() -> None:
    base = RECIPES["smoke"]()
    for changes in ({"run": {"seed": 2}}, {"broker": {"leverage": 50.0}}, {"optim": {"lr": 2e-3}}):
        assert digest(merged(base, changes, source="x")) != digest(base)


def test_wrong_values_name_key_value_and_source() -> None:
    for changes, message in (
        ({"compare": {"optimizers": ["sgd"], "headline": "sgd"}}, "must hold adamw"),
        ({"compare": {"headline": "lion"}}, "headline: 'lion', must be one of"),
        ({"compare": {"seeds": 0}}, "seeds: 0, must be at least 1"),
        ({"compare": {"margin": 1.0}}, "margin: 1.0, must lie between 0 and 1"),
        ({"run": {"rounds": 0}}, "rounds: 0, must be at least 1"),
        ({"test": {"random_runs": 3}}, "random_runs: 3, must be at least 100"),
        ({"data": {"made_up": -1}}, "made_up: -1, must be 0 or more bars"),
        ({"model": {"context_bars": -1}}, "context_bars: -1, must lie between 0 and the 120 bars"),
        ({"model": {"context_bars": 121}}, "context_bars: 121, must lie between 0 and the 120 bars"),
        ({"data": {"made_up": 5, "bars": "x.csv"}}, "Give one of the two"),
        ({"split": {"train": ["2022-01-01", "2022-02-01"]}}, "validation: not given"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            merged(RECIPES["quick"](), changes, source="settings.toml")
        assert "settings.toml" in str(caught.value)


@given(
    updates=st.integers(1, 9999),
    lr=st.floats(1e-6, 1.0),
    optimizers=st.sampled_from([("adamw", "adam_mini"), ("adamw", "sgd", "adam_mini")]),
)
def test_changes_laid_over_the_recipe_give_the_configuration(
    updates: int, lr: float, optimizers: tuple[str, ...]
) -> None:
    base = RECIPES["quick"]()
    given_ = {"study": {"updates": updates}, "optim": {"lr": lr}, "compare": {"optimizers": optimizers}}
    changed = merged(base, given_, source="x")
    changes = changes_from(base, changed)
    assert merged(base, tomllib.loads(tomli_w.dumps(changes.settings)), source="y") == changed
    assert changes.settings.keys() <= given_.keys()
    assert changes.emptied == []


def test_settings_that_lost_their_value_are_named() -> None:
    base = RECIPES["reference"]()
    empty = dict.fromkeys(("train", "validation", "test"))
    changes = changes_from(base, merged(base, {"split": empty}, source="x"))
    assert changes == ({}, ["split.train", "split.validation", "split.test"])


def test_reference_is_the_reference_experiment() -> None:
    config = RECIPES["reference"]()
    spans = (config.split.train, config.split.validation, config.split.test)
    assert spans == (REFERENCE_SPLIT.train, REFERENCE_SPLIT.validation, REFERENCE_SPLIT.test)
    assert (config.research.passes, config.run.rounds, config.study.updates) == (250, 4, 5000)
    assert (config.study_encoder.epochs, config.study_encoder.patience, config.compare.seeds) == (40, 5, 10)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="halfstep show-config >"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(tmp_path / "bad.toml")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().recipe = "other"
