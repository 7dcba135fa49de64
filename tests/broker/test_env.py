"""The gymnasium environments: gymnasium's own checker, autoreset modes, many against one."""

import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from halfstep.broker import AccountRules, MarketTable, TradingEnv, TradingVectorEnv, market_table, run_actions
from halfstep.broker._kernel import hash32 as hash_of_one
from halfstep.broker.env import hash32
from halfstep.errors import ActionError, ConfigError, CoverageError
from halfstep.market.features import compute_features

from .scenarios import EURUSD, random_actions, wild_bars

RULES = AccountRules(deposit=1500.0, leverage=500.0, lot_cap=3.0, slippage_random_points=3)
MODES = list(AutoresetMode)


@pytest.fixture(scope="module")
def table() -> MarketTable:
    return market_table(wild_bars(400, 1, step=120), EURUSD, RULES)


def actions_of(n: int, steps: int, seed: int = 0) -> np.ndarray:
    plans = [np.nan_to_num(random_actions(steps, seed + k, RULES.lot_cap)) for k in range(n)]
    return np.stack(plans, axis=1).astype(np.float32)


def equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.pitfall("T18")
@pytest.mark.parametrize("with_windows", [False, True])
def test_gymnasiums_checker_passes(table: MarketTable, with_windows: bool) -> None:
    """With the default cap of one lot; for another one gymnasium recommends a space of [0, 1]."""
    windows = compute_features(table.bars, "robust9") if with_windows else None
    rules = replace(RULES, lot_cap=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(TradingEnv(table, rules, length=20, windows=windows), skip_render_check=True)
        made = gymnasium.make("halfstep/Trading-v0", table=table, rules=rules, length=20, windows=windows)
        check_env(made.unwrapped, skip_render_check=True)
    observation, _ = made.reset(seed=3)
    assert made.observation_space.contains(observation)
    if windows is not None:
        bar = int(observation["bar"])
        np.testing.assert_array_equal(observation["market"], windows.values[bar - 119 : bar + 1])


def test_make_vec_uses_the_batch(table: MarketTable) -> None:
    made = gymnasium.make_vec(
        "halfstep/Trading-v0", num_envs=3, vectorization_mode="vector_entry_point", table=table, rules=RULES, length=9
    )  # fmt: skip
    assert isinstance(made.unwrapped, TradingVectorEnv)
    assert made.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observation, _ = made.reset(seed=1)
    assert made.observation_space.contains(observation)
    made.close()


@pytest.mark.pitfall("T18")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", [True, False])
def test_account_k_equals_a_single_environment(table: MarketTable, mode: AutoresetMode, net: bool) -> None:
    """Observations, rewards, ends and infos over several episodes; no transition spans a reset."""
    rules = replace(RULES, net_opposite=net)
    n, steps = 6, 120
    many = TradingVectorEnv(n, table, rules, length=25, autoreset_mode=mode, on_bad_action="hold")
    alone = [TradingEnv(table, rules, length=25, seed_id=k, on_bad_action="hold") for k in range(n)]
    seen, info = many.reset(seed=11)
    for k, env in enumerate(alone):
        one, one_info = env.reset(seed=11)
        equal({name: value[k] for name, value in seen.items()}, one)
        equal({name: info[name][k] for name in one_info}, one_info)
    ended = np.zeros(n, bool)
    ruined = 0
    for action in actions_of(n, steps):
        seen, reward, terminated, truncated, info = many.step(action)
        assert not (terminated & truncated).any()
        ruined += int(terminated.sum())
        for k, env in enumerate(alone):
            if ended[k] and mode == AutoresetMode.NEXT_STEP:
                one, one_info = env.reset()
                one_reward, one_terminated, one_truncated = 0.0, False, False
            else:
                one, one_reward, one_terminated, one_truncated, one_info = env.step(action[k])
            over = one_terminated or one_truncated
            if over and mode == AutoresetMode.SAME_STEP:
                equal(info["final_obs"][k], one)
                equal({name: info["final_info"][name][k] for name in one_info}, one_info)
                one, one_info = env.reset()
            equal({name: value[k] for name, value in seen.items()}, one)
            equal({name: info[name][k] for name in one_info}, one_info)
            assert (reward[k], terminated[k], truncated[k]) == (one_reward, one_terminated, one_truncated)
        ended = terminated | truncated
        if mode == AutoresetMode.DISABLED and ended.any():
            with pytest.raises(gymnasium.error.ResetNeeded, match="accounts ended"):
                many.step(action)
            seen, info = many.reset(options={"reset_mask": ended})
            for k in np.flatnonzero(ended).tolist():
                one, one_info = alone[k].reset()
                equal({name: value[k] for name, value in seen.items()}, one)
    assert ruined > 0
    assert many.state.episode.min() >= 2


@pytest.mark.pitfall("T18")
def test_no_transition_spans_a_reset(table: MarketTable) -> None:
    """Next-step autoreset: after an end comes one step with reward 0, a fresh account and an ignored action."""
    env = TradingVectorEnv(4, table, RULES, length=10)
    env.reset(seed=0)
    ended = np.zeros(4, bool)
    for action in actions_of(4, 60):
        bars = env.state.bar.copy()
        seen, reward, terminated, truncated, info = env.step(action)
        moved = seen["bar"] - bars
        assert (moved[~ended] == 1).all()
        assert (reward[ended] == 0).all()
        np.testing.assert_array_equal(info["balance"][ended], RULES.deposit)
        np.testing.assert_array_equal(seen["account"][ended][:, 0], 0)
        ended = terminated | truncated


def test_the_environment_is_the_engine(table: MarketTable) -> None:
    """Rewards and equity are those of `run_actions` over the same bars and seed."""
    env = TradingEnv(table, RULES, length=40)
    actions = actions_of(1, 40, seed=5)[:, 0]
    seen, _ = env.reset(seed=2)
    first, seed = int(seen["bar"]), int(env.state.seed[0])
    run = run_actions(table, RULES, actions, first, seed=seed)
    for t in range(len(run.bar)):
        _, reward, _, _, info = env.step(actions[t])
        assert (reward, info["equity"], info["outcome"]) == (run.reward[t], run.equity[t], run.outcome[t])


@pytest.mark.pitfall("R4")
def test_starts_are_uniform(table: MarketTable) -> None:
    """Every admissible start occurs about equally often, and none else."""
    env = TradingVectorEnv(4096, table, RULES, length=300)
    starts = np.concatenate([env.reset(seed=s)[0]["bar"] for s in range(4)])
    counts = np.bincount(starts, minlength=100)
    assert len(counts) == 100  # bars 0 to 99 leave 300 after them
    expected = len(starts) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 150  # chi-square, 99 degrees: 1 in 1,000 is 149
    many = np.arange(1000, dtype=np.uint64)
    assert hash32(many).tolist() == [hash_of_one(int(x)) for x in many]


def test_seeds_and_episodes(table: MarketTable) -> None:
    env = TradingEnv(table, RULES, length=50)
    first = [int(env.reset(seed=7)[0]["bar"]), int(env.reset()[0]["bar"]), int(env.reset()[0]["bar"])]
    again = [int(env.reset(seed=7)[0]["bar"]), int(env.reset()[0]["bar"]), int(env.reset()[0]["bar"])]
    assert first == again
    assert len(set(first)) > 1
    other = TradingEnv(table, RULES, length=50, seed_id=1)
    assert int(other.reset(seed=7)[0]["bar"]) != first[0]
    fixed = TradingEnv(table, RULES, start=17)
    assert int(fixed.reset(seed=1)[0]["bar"]) == 17
    assert fixed.state.stop[0] == len(table) - 1


def test_a_bad_action_is_an_error_or_a_hold(table: MarketTable) -> None:
    bad = np.array([np.nan, 0, 0, 0, 0, 0], np.float32)
    strict = TradingVectorEnv(3, table, RULES, length=20)
    strict.reset(seed=0)
    actions = np.zeros((3, 6), np.float32)
    actions[1] = bad
    with pytest.raises(ActionError, match=r"action of account 1: \[nan, .*must be finite"):
        strict.step(actions)
    patient = TradingEnv(table, RULES, length=20, on_bad_action="hold")
    patient.reset(seed=0)
    patient.step(np.array([0.1, 0.9, 0.9, 0, 0, 0], np.float32))
    *_, info = patient.step(bad)
    assert info["outcome"] == 1
    with pytest.raises(ActionError, match=r"shape \(1, 5\), must be \(1, 6\)"):
        patient.step(np.zeros(5, np.float32))


def test_outputs_are_copies_unless_not_wanted(table: MarketTable) -> None:
    for copy in (True, False):
        env = TradingVectorEnv(2, table, RULES, length=20, copy=copy)
        seen, _ = env.reset(seed=0)
        before = seen["account"].copy()
        env.step(np.full((2, 6), 0.9, np.float32))
        assert np.array_equal(seen["account"], before) is copy


def test_weighted_rewards(table: MarketTable) -> None:
    env = TradingEnv(table, RULES, start=5, reward_weights=(0.0, 1.0, 0.0))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([1, 0.9, 0.9, 0, 0, 0], np.float32))
    assert reward == pytest.approx(info["components"][1] / RULES.deposit)


def test_wrong_arguments_are_named(table: MarketTable) -> None:
    with pytest.raises(CoverageError, match="start 'random', length 400"):
        TradingEnv(table, RULES, length=400)
    with pytest.raises(CoverageError, match="Give a start from 0 to 398"):
        TradingEnv(table, RULES, start=399)
    with pytest.raises(ConfigError, match="on_bad_action: 'ignore'"):
        TradingEnv(table, RULES, on_bad_action="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="windows: features of 300 bars"):
        TradingEnv(table, RULES, windows=compute_features(table.bars.slice(0, 300), "robust9"))
    env = TradingVectorEnv(2, table, RULES)
    with pytest.raises(ConfigError, match=r"seed: \[1, 2\], must be one whole number"):
        env.reset(seed=[1, 2])  # type: ignore[arg-type]
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="reset_mask: shape"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})


def test_importing_the_package_is_light() -> None:
    code = "import sys, halfstep.broker; print([m for m in ('gymnasium', 'numba', 'polars', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
