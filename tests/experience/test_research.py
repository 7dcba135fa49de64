"""Trajectories are collected repeatably: exploration, start bars, counts, and groups that do not matter."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halfstep.broker.deals import deals_frame, trades_frame
from halfstep.broker.engine import run_actions
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.errors import CoverageError
from halfstep.experience.exploration import Explorers
from halfstep.experience.policy import NoisePolicy, Policy
from halfstep.experience.research import ResearchTask, play, research
from halfstep.experience.settings import ResearchSettings
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.experience.tally import ELEMENTS, Tally
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars

RULES = AccountRules(leverage=500.0, commission=3.5, slippage_random_points=3)
SPAN = (30, 630)  # longer than one chunk


@pytest.fixture(scope="module")
def table() -> MarketTable:
    return market_table(random_bars(700, seed=9), instrument("EURUSD"), RULES)


def task_of(table: MarketTable, policy: Policy | None = None, **settings: object) -> ResearchTask:
    return ResearchTask(
        table=table, rules=RULES, policy=policy or NoisePolicy(1.0), round_number=0, span=SPAN, seed=5,
        settings=ResearchSettings(**({"passes": 12, "scripted_share": 0.3} | settings)),  # type: ignore[arg-type]
    )  # fmt: skip


def store_in(folder: Path, table: MarketTable) -> EpisodeStore:
    header = StoreHeader.of(
        table.bars, feature_set="none", rules=RULES, instrument=table.instrument, discount=0.99
    )
    return EpisodeStore.create(folder, header, table.bars)


class Constant:
    """A policy that always asks for the same."""

    hash = "constant"

    def __init__(self, *action: float) -> None:
        self._action = action

    def prepare(self, first: int, last: int) -> None:
        pass

    def act(self, account: np.ndarray, prepared: object, row: int, noise: object) -> np.ndarray:  # noqa: ARG002
        return np.tile(np.array(self._action, float), (len(account), 1))


@pytest.mark.pitfall("U5")
def test_every_decision_is_accounted_for(table: MarketTable) -> None:
    group, tally = play(task_of(table), 0)
    assert tally.outcomes.sum() == tally.decisions == group.length.sum()
    assert tally.episodes == 12
    assert tally.outcomes[Outcome.FILLED] > 100
    assert 0.3 < tally.in_position < 1
    assert (tally.histograms.sum(axis=1) == tally.decisions).all()
    assert tally.warnings() == ()


@pytest.mark.pitfall("U5")
def test_too_small_a_volume_is_named_with_a_hint(table: MarketTable) -> None:
    _, tally = play(task_of(table, Constant(0.004, 0.5, 0.5, 0, 0, 0), scripted_share=0.0), 0)
    assert tally.outcomes[Outcome.BELOW_MIN_LOT] == tally.decisions > 0
    assert tally.trades.sum() == 0
    assert tally.warnings()[0].startswith(
        "100.0% of decisions ended as BELOW_MIN_LOT: the policy asks for less"
    )


@pytest.mark.pitfall("U6")
def test_a_constant_policy_is_flagged(table: MarketTable) -> None:
    _, tally = play(task_of(table, Constant(0.1, 0.55, 1.0, 0, 0, 0), scripted_share=0.0), 0)
    words = " ".join(tally.warnings())
    for name, place in (
        ("buy lots", "10-20"),
        ("buy TP", "50-60"),
        ("buy SL", "90-100"),
        ("sell lots", "0-10"),
    ):
        assert f"100.0% of actions have {name} in {place} %" in words
    assert tally.trades[1] == 0
    assert tally.results[1] == 0


@pytest.mark.parametrize("net_opposite", [True, False])
def test_trades_and_results_by_side_are_those_of_the_deals(table: MarketTable, net_opposite: bool) -> None:
    # the oracle: every pass replayed alone, its deals read one by one
    rules = replace(RULES, net_opposite=net_opposite)
    task = replace(task_of(table), rules=rules)
    group, tally = play(task, 0)
    trades, results = np.zeros(2, int), np.zeros(2)
    explorers = Explorers(
        task.settings, seed=5, round_number=0, passes=range(12), steps=task.steps, lot_cap=1.0, lot_min=0.01
    )
    for k in range(12):
        length = int(group.length[k])
        run = run_actions(
            table, rules, group.action[k, :length].astype(float), SPAN[0], seed=int(explorers.seeds[k])
        )
        np.testing.assert_allclose(run.equity, group.account[k, 1 : length + 1, 1], rtol=1e-6)
        deals = deals_frame(run.log, table)
        for number, side in enumerate((1, -1)):
            own = deals.filter(deals["side"] == side)
            results[number] += (own["profit"] + own["swap"] - own["commission"]).sum()
            trades[number] += (trades_frame(deals)["side"] == side).sum()
    np.testing.assert_array_equal(tally.trades, trades)
    np.testing.assert_allclose(tally.results, results, rtol=1e-4)
    assert (tally.trades > 0).all()


def test_a_tally_survives_its_file_and_adds_up(table: MarketTable, tmp_path: Path) -> None:
    task = task_of(table, group=5)
    parts = [play(task, k)[1] for k in range(3)]
    parts[0].write(tmp_path / "tally.json")
    assert Tally.read(tmp_path / "tally.json").as_json() == parts[0].as_json()
    total, whole = Tally.total(parts), play(task_of(table), 0)[1]
    np.testing.assert_allclose(total.results, whole.results)
    assert {**total.as_json(), "results": 0} == {**whole.as_json(), "results": 0}
    assert list(whole.as_json()["histograms"]) == list(ELEMENTS)
    json.dumps(whole.as_json(), allow_nan=False)


def test_noise_has_its_correlation_and_scale() -> None:
    settings = ResearchSettings(passes=30, rho=(0.9,), scripted_share=0.0)
    explorers = Explorers(
        settings, seed=1, round_number=0, passes=range(30), steps=4000, lot_cap=1.0, lot_min=0.01
    )
    noise = np.concatenate([explorers.noise(1500), explorers.noise(2500)]).astype(
        float
    )  # (bar, pass, action)
    deviation = noise.std(axis=0)
    assert 0.4 < deviation.min() < 0.7
    assert 1.2 < deviation.max() < 1.9
    scaled = noise / deviation
    assert (scaled[1:] * scaled[:-1]).mean() == pytest.approx(0.9, abs=0.01)
    # the actions of one pass share rho and factor, and nothing else
    assert np.abs(np.corrcoef(scaled[:, 0].T) - np.eye(6)).max() < 0.3


def test_scripts_are_flat_long_short_and_random(table: MarketTable) -> None:
    group, _ = play(task_of(table, passes=40, scripted_share=1.0), 0)
    assert set(group.source) == {"scripted"}
    bought, sold = (group.action[..., 0] > 0).mean(axis=1), (group.action[..., 3] > 0).mean(axis=1)
    alive = group.length == group.length.max()
    kinds = {(bool(b > 0), bool(s > 0)) for b, s in zip(bought[alive], sold[alive], strict=True)}
    assert kinds == {(False, False), (True, False), (False, True), (True, True)}
    levels = group.action[..., [1, 2, 4, 5]]
    assert levels.max() <= 1
    assert levels[levels > 0].min() >= 0.05


def test_random_starts_leave_room_and_are_repeatable(table: MarketTable) -> None:
    task = task_of(table, passes=40, group=1, start="random", length=100)
    firsts = [task.first_bar(k) for k in range(40)]
    assert min(firsts) >= SPAN[0]
    assert max(firsts) <= SPAN[1] - 1 - 100
    assert np.ptp(firsts) > 300
    group, tally = play(task, 7)
    assert (group.first_bar == firsts[7]).all()
    assert tally.decisions <= 100
    again, _ = play(task, 7)
    assert again.action.tobytes() == group.action.tobytes()
    whole = task_of(table, length=100)
    assert whole.first_bar(0) == SPAN[0]
    assert whole.steps == 100
    with pytest.raises(
        CoverageError, match=r"research\.length: 700 decisions asked of a span with room for 599"
    ):
        task_of(table, length=700)


def test_settings_name_their_ranges() -> None:
    for settings, words in (
        ({"start": "random"}, "length: not given"),
        ({"length": 0}, "length: 0, must be at least 1"),
        ({"rho": (1.0,)}, r"rho: \(1\.0,\), must be numbers in"),
        ({"scripted_share": 1.5}, "scripted_share: 1.5"),
        ({"group": 0}, "group: 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ResearchSettings(**settings)  # type: ignore[arg-type]


def test_a_finished_round_is_kept_and_described_again(table: MarketTable, tmp_path: Path) -> None:
    settings = ResearchSettings(passes=12, group=5)
    given = {
        "table": table, "rules": RULES, "policy": NoisePolicy(1.0), "settings": settings, "round_number": 2,
        "span": SPAN, "seed": 5,
    }  # fmt: skip
    store = store_in(tmp_path, table)
    report = research(**given, store=store)  # type: ignore[arg-type]
    assert report.collected == report.tally.decisions > 0
    assert report.rate > 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = research(**given, store=store)  # type: ignore[arg-type]
    assert (again.collected, again.rate) == (0, 0)
    assert again.tally.as_json() == report.tally.as_json()
    (tmp_path / "shard-r2-g1.safetensors").unlink()
    third = research(**given, store=EpisodeStore.open(tmp_path))  # type: ignore[arg-type]
    assert 0 < third.collected < third.tally.decisions
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_random_slippage_differs_between_passes(table: MarketTable) -> None:
    group, _ = play(task_of(table, Constant(0.1, 0.5, 0.5, 0, 0, 0), scripted_share=0.0), 0)
    assert len(set(group.account[:, 1, 1].tolist())) > 1  # the same action, another fill
