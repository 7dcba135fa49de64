"""From runs to the report: what may be claimed, what is warned of, and that every run gives a whole page."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halfstep.backtest import comparison, content
from halfstep.backtest.assembly import Evidence, assemble
from halfstep.backtest.baselines import Baseline, RandomBand, Span, random_band, simple_baselines
from halfstep.backtest.comparison import ArmFigures, FailedArm, ForecastErrors, SeedRun
from halfstep.backtest.content import Report
from halfstep.backtest.definitions import DEFINITIONS, row
from halfstep.backtest.figures import money
from halfstep.backtest.html import page
from halfstep.backtest.metrics import Surroundings, compute_metrics
from halfstep.backtest.registry import TrialCount
from halfstep.backtest.run import TestRun
from halfstep.backtest.sensitivity import replay_cases, same_actions
from halfstep.backtest.uncertainty import Resampling, uncertainty_rows
from halfstep.backtest.verdict import Circumstances, banners, verdict_sentence
from halfstep.broker.table import MarketTable

from .runs import RULES, made_up_table, random_actions, run_of, traded

FEW_DRAWS = Resampling(draws=400, seed=1)
SETTINGS = (row("deposit", 10_000.0), row("symbol", None, text="EURUSD"))


def evidence(seeds: list[TestRun], **more: object) -> Evidence:
    given = [SeedRun(seed=k, run=run, metrics=compute_metrics(run)) for k, run in enumerate(seeds, 1)]
    return Evidence(
        title="EURUSD H1", settings=SETTINGS, assumptions=("Costs as stated.",), versions=(("halfstep", "0"),), seeds=given,
        representative="adam_mini", resampling=FEW_DRAWS, **more,
    )  # type: ignore[arg-type]  # fmt: skip


def whole_evidence(table: MarketTable, seeds: int = 3, bars: int = 500) -> Evidence:
    runs = [traded(table, random_actions(bars, seed)) for seed in range(seeds)]
    middle = comparison.middle_seed(
        [SeedRun(seed=k, run=run, metrics=compute_metrics(run)) for k, run in enumerate(runs, 1)]
    ).run
    span = Span(first=10, bars=bars)
    return evidence(
        runs, band=random_band(table, RULES, middle, span, runs=100, seed=1),
        baselines=(*simple_baselines(table, RULES, middle, span), Baseline(name="best recorded run", run=run_of([9e9], deposit=1e4), on_test_bars=False)),
        cases=replay_cases(table, RULES, same_actions(middle, bars), span),
        arms=arms(), steps={"adamw": (2.0, 1.9, 2.2), "adam_mini": (1.0, 0.9, 1.1)}, forecast=errors(), quality_spans=(100.0, 99.0),
        trial_returns=np.stack([np.diff(run.equity, prepend=run.deposit) for run in runs], axis=1),
        trials={"bar": TrialCount(n=20, sharpe_variance=1e-4), "day": TrialCount(n=20, sharpe_variance=1e-3)},
        circumstances=Circumstances(openings=2, quality=0.97, floored_spreads=0.8, floor_points=10),
    )  # fmt: skip


def arms(seeds: int = 5) -> list[ArmFigures]:
    shift = (-0.002, 0.001, 0.003, -0.001, 0.0)
    return [
        ArmFigures(
            optimizer=name, seed=seed, parameters=1000, predicted_bytes=8000 // k, state_bytes=8000 // k, peak_bytes=None,
            memory_method="not measured", seconds=10.0 * seed, updates_to_best=100,
            loss=0.38 + 0.01 * (seed - 1) + (shift[seed - 1] if k == 2 else 0.0), net=float(seed * k), growth=1e-4 * seed * k,
            curve=((1, 0.6, 0.5), (2, 0.5, 0.4), (3, 0.4, 0.45)),
        )
        for k, name in ((1, "adamw"), (2, "adam_mini"))
        for seed in range(1, seeds + 1)
    ]  # fmt: skip


def failed(name: str) -> FailedArm:
    return FailedArm(
        optimizer=name, seed=6, error="DivergenceError: update 3.", log=f"50-arms/{name}-s6/log.txt"
    )


@pytest.mark.parametrize(
    ("missing", "verdict", "sentence"),
    [
        ("adam_mini", "No verdict: the result is incomplete, adam_mini-s6 failed.", "no verdict, adam_mini-s6 failed."),
        ("adamw", "No random policies were played.", "no verdict, adamw-s6 failed."),
        ("sgd", "No random policies were played.", "5 seeds; within"),
    ],
)  # fmt: skip
def test_nothing_is_said_of_an_optimizer_with_a_missing_arm(
    missing: str, verdict: str, sentence: str
) -> None:
    report = assemble(evidence([run_of([5.0], deposit=1e4)], arms=arms(), failed=(failed(missing),)))
    assert report.verdict == verdict
    assert report.banners[0].key == "incomplete"
    assert (
        f"{missing}-s6 failed: DivergenceError: update 3 (log: 50-arms/{missing}-s6/log.txt)."
        in report.banners[0].text
    )
    said = [text for key, text in report.remarks if key == "optimizers"]
    assert sentence in said[0]
    assert ("sgd - adamw: no verdict, sgd-s6 failed." in said) == (missing == "sgd")
    optimizers = report.table("optimizers")
    assert optimizers is not None
    differences = dict(optimizers.frame.select("optimizer", "loss_difference").iter_rows())
    assert (differences["adam_mini"] is None) == (missing != "sgd")


def errors(origins: int = 240) -> ForecastErrors:
    """Return squared errors of a skill of one half in the first feature and of none in the second."""
    rng = np.random.default_rng(0)
    naive = rng.exponential(1.0, (origins, 24, 2))
    model = naive * np.array([0.5, 1.1])
    truth = rng.normal(0, 1, (origins, 2))
    return ForecastErrors(
        features=("body", "gap"), model=model, last_value=2 * naive, window_mean=naive, same_hour=3 * naive, truth=truth,
        forecast=truth * np.array([1.0, -1.0]),
    )  # fmt: skip


def no_nonsense(report: Report) -> None:
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert "NaN" not in text
    for found in report.rows():
        for value in (found.value, found.second, *(found.interval or ())):
            assert value is None or math.isfinite(value), found
        assert not any(word in found.text.lower().split() for word in ("nan", "inf", "-inf")), found
        assert not found.text.startswith("-0.00 "), found
    keys = [found.key for found in report.rows()]
    assert len(set(keys)) == len(keys)
    for table in report.tables:
        if table.kind.form != "long":
            json.dumps(table.frame.to_dicts(), allow_nan=False)


@pytest.fixture(scope="module")
def whole() -> Report:
    return assemble(whole_evidence(made_up_table()))


def test_every_table_is_there(whole: Report) -> None:
    no_nonsense(whole)
    missing = {kind.key for kind in content.TABLES} - {table.kind.key for table in whole.tables}
    assert missing == {"walk_forward", "folds", "forecast_windows"}
    assert {found.key for found in whole.rows()} <= set(DEFINITIONS)
    assert whole.representative.endswith("the one in the middle of 3 by net profit")
    assert {banner.key for banner in whole.banners} >= {
        "few_positions",
        "openings",
        "spread_floor",
        "quality",
    }
    assert "best recorded run" not in whole.row("against_baselines").text  # it traded other bars


def test_the_page_and_its_twin_say_the_same(whole: Report) -> None:
    html = page(whole)
    for found in whole.rows():
        assert f'data-key="{found.key}"' in html, found.key
    assert whole.verdict in html


def test_the_summary_answers_what_a_trader_asks_first(whole: Report) -> None:
    """Positions, the deepest fall, costs, twice the costs, forecasts: each the figure of the part that it repeats."""
    frames = {table.kind.key: table.frame for table in whole.tables}
    assert whole.row("traded").value == frames["positions"].height
    fall = whole.row("deepest_fall")
    assert (fall.value, fall.second) == (
        whole.row("equity_dd_maximal").value,
        whole.row("equity_dd_maximal").second,
    )
    assert fall.note == f"worst seed {money(frames['seeds']['drawdown'].max())}"
    parts = dict(frames["costs"].iter_rows())
    paid = {name: parts[name] for name in ("spread", "slippage", "commission", "swap")}
    assert paid["spread"] < 0
    assert whole.row("costs_paid").value == pytest.approx(sum(paid.values()))
    assert whole.row("costs_paid").value == pytest.approx(parts["net"] - parts["result at mid prices"])
    assert f"spread {money(paid['spread'])}, slippage" in whole.row("costs_paid").note
    [twice] = frames["sensitivity"].filter(content.pl.col("key") == "costs_2").to_dicts()
    assert whole.row("costs_doubled").value == twice["net"]
    assert whole.row("costs_doubled").note == f"difference {money(twice['difference'])}"
    assert whole.row("forecasts").text == "better than naive ones in 1 of 2 features"
    assert not any(math.copysign(1, value) < 0 for value in paid.values() if value == 0), "-0.0 in the files"
    keys = [found.key for found in whole.summary]
    assert (
        keys.index("headline") < keys.index("traded") < keys.index("costs_doubled") < keys.index("openings")
    )


def test_a_policy_that_did_not_trade_is_said_to_have_not() -> None:
    """p is 1 then, as random policies with no positions do not trade either; alone it reads as if they had won."""
    run = run_of([], equity=[1000.0] * 60)
    report = assemble(evidence([run], band=band_of([0.0] * 100)))
    assert (
        report.verdict == "Cannot be told from random trading (p = 1): the seed that is shown did not trade."
    )
    assert "as many positions as ours: none" in report.row("random_p").note
    assert report.row("traded").value == 0
    assert (report.row("costs_doubled").text, report.row("costs_doubled").note) == (
        "--",
        "the orders were not replayed",
    )
    assert report.row("forecasts").note == "no forecast lies wholly inside the test"


@pytest.mark.pitfall("U8")
def test_the_sentence_needs_both_p_and_interval() -> None:
    assert verdict_sentence(0.012, [(10.0, 90.0)]) == "Better than random trading (p = 0.012)."
    assert verdict_sentence(0.41, [(10.0, 90.0)]) == "Cannot be told from random trading (p = 0.41)."
    for intervals in ([(-1.0, 9.0)], [(1.0, 9.0), (-1.0, 9.0)], [None]):
        assert verdict_sentence(0.01, intervals).startswith("Cannot be told from")


@pytest.mark.pitfall("U8")
def test_a_policy_that_knows_the_future_is_better_than_random() -> None:
    table = made_up_table()
    move = np.sign(table.values[11:511, 3] - table.values[11:511, 0])
    actions = np.zeros((500, 6))
    actions[move > 0, :3], actions[move < 0, 3:] = (0.1, 1.0, 1.0), (0.1, 1.0, 1.0)
    run = traded(table, actions)
    band = random_band(table, RULES, run, Span(first=10, bars=500), runs=200, seed=1)
    report = assemble(evidence([run], band=band))
    assert report.verdict == "Better than random trading (p = 0.005)."
    assert report.row("random_p").value == pytest.approx(1 / 201)


@pytest.mark.slow
@pytest.mark.pitfall("U8")
def test_a_random_policy_is_not_distinguishable() -> None:
    table = made_up_table(1000)
    told = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        span = Span(first=10 + int(rng.integers(0, 400)), bars=528)
        run = traded(table, random_actions(528, seed, hold=int(rng.integers(4, 20))), first=span.first)
        band = random_band(table, RULES, run, span, runs=300, seed=seed)
        told += assemble(evidence([run], band=band)).verdict.startswith("Better")
    assert told <= 10


def band_of(nets: list[float]) -> RandomBand:
    n = len(nets)
    return RandomBand(nets=np.array(nets), trades=np.ones(n, np.int64), low=np.zeros(1), high=np.ones(1))


@pytest.mark.pitfall("U8")
def test_random_p_by_hand() -> None:
    assert band_of([1.0] * 49 + [-1.0] * 951).p(1.0) == pytest.approx(0.04995, abs=5e-6)


@pytest.mark.pitfall("T26")
def test_few_trades_carry_a_banner() -> None:
    run = run_of([10.0] * 11 + [-9.0] * 15)
    [banner] = [each for each in banners(run, Circumstances()) if each.key == "few_positions"]
    assert banner.text == (
        "26 positions: too few. 11 of 26 won is what a coin gives in 28 % of cases; "
        "the 95 % interval of the win rate is 25.5–61.1 %."
    )
    many = run_of([10.0, -9.0] * 50)
    assert banners(many, Circumstances()) == []


def test_circumstances_are_named() -> None:
    run = replace(run_of([10.0, -9.0] * 50), status=1, detail_missing=3)
    given = Circumstances(
        made_up=True, openings=3, quality=0.98, floored_spreads=0.5, floor_points=10, unsettled=7
    )
    found = {banner.key: banner.text for banner in banners(run, given)}
    assert list(found) == [
        "made_up",
        "ruined",
        "openings",
        "spread_floor",
        "unsettled",
        "quality",
        "detail_missing",
    ]
    assert "opened 3 times" in found["openings"]
    assert "98.00%" in found["quality"]
    ended = replace(run, trades=run.trades.with_columns(reason=np.array(["END"] * 6 + ["SL"] * 94)))
    assert (
        "6 of 100 trades were closed by the end"
        in {b.key: b.text for b in banners(ended, given)}["end_exits"]
    )


@pytest.mark.pitfall("U10")
def test_summary_compares_with_risk_free() -> None:
    run = run_of([35.0], deposit=10_000.0, years=1 / 12)
    report = assemble(evidence([run]))
    assert report.row("against_deposit").value == pytest.approx(35 - 10_000 * 0.04 / 12)
    assert (
        report.row("against_deposit").text.replace("\u00a0", ",") == "1.67: net profit 35.00, a deposit 33.33"
    )
    rich = compute_metrics(run, Surroundings(risk_free=0.06))["risk_free"]
    assert rich.value == pytest.approx(50.0)


@pytest.mark.pitfall("R12")
def test_openings_and_trials_are_in_the_summary(whole: Report) -> None:
    assert whole.row("openings").value == 2
    assert whole.row("trial_count").value == 20
    assert any("opened 2 times" in banner.text for banner in whole.banners)


@pytest.mark.pitfall("T25")
def test_more_trials_make_a_sharpe_ratio_less_likely() -> None:
    run = traded(made_up_table(), random_actions(500, 3))
    probabilities = []
    for n in (1, 10, 1000):
        trials = {"bar": TrialCount(n=n, sharpe_variance=1e-3), "day": TrialCount(n=n, sharpe_variance=1e-3)}
        rows = {r.key: r for r in uncertainty_rows(run, np.array([run.net]), trials, None, FEW_DRAWS)}
        probabilities.append(rows["deflated_sharpe"].value)
    assert probabilities[0] > probabilities[1] > probabilities[2]  # type: ignore[operator]
    assert rows["pbo"].text == "--"


def test_optimizers_are_paired_by_seed() -> None:
    table, remarks = comparison.optimizer_table(
        arms(), {"adamw": (2.0, 1.9, 2.2)}, margin=0.01, resampling=FEW_DRAWS
    )
    adamw, mini = table.frame.iter_rows(named=True)
    assert mini["loss_verdict"] == (
        "adam_mini - adamw: +0.00020 (95 % -0.00219 … +0.00259), 5 seeds; within ±1 % (±0.00400): shown, p = 0.0058"
    )
    assert mini["loss_difference"] == pytest.approx(0.0002)
    assert (mini["share_of_adamw"], mini["bytes_per_parameter"]) == (0.5, 4.0)
    assert (adamw["step_ms"], adamw["loss_verdict"], mini["step_ms"]) == (2.0, None, None)
    assert adamw["loss"] == pytest.approx(0.40)
    assert mini["growth_verdict"].endswith("; better")
    assert [key for key, _ in remarks] == ["optimizers", "optimizers"]
    _, few = comparison.optimizer_table(arms(2), {}, margin=0.01, resampling=FEW_DRAWS)
    assert few[0][1].endswith("2 seeds, no verdict below 5")
    chosen = comparison.loss_table(arms()).frame.filter(is_chosen=True)
    assert set(chosen["epoch"]) == {2}


def test_skill_and_signs_by_hand() -> None:
    skill, horizons = comparison.forecast_tables(errors(), FEW_DRAWS)
    body, gap = skill.frame.iter_rows(named=True)
    assert (body["skill"], gap["skill"]) == pytest.approx((0.5, -0.1))
    assert body["low"] <= body["skill"] <= body["high"]
    assert (body["signs"], gap["signs"], body["origins"]) == (1.0, 0.0, 10)
    assert body["window_mean"] < body["last_value"] < body["same_hour"]
    assert horizons.frame.height == 48
    assert horizons.frame["skill"].to_numpy()[:24] == pytest.approx(0.5)
    above, below = (text for _, text in comparison.skill_remarks(skill))
    assert above == "Better than the best naive forecast, interval above 0: body."
    assert below == "Not shown to be better than a naive forecast: gap."


def test_rows_over_seeds() -> None:
    runs = [run_of([float(k)], deposit=1000.0) for k in (1, 2, 3, 4, 100)]
    seeds = [SeedRun(seed=k, run=run, metrics=compute_metrics(run)) for k, run in enumerate(runs, 1)]
    line = comparison.seed_row_table(seeds, FEW_DRAWS).frame.row(
        by_predicate=content.pl.col("key") == "net_profit", named=True
    )
    assert (line["mean"], line["least"], line["greatest"], line["seeds"]) == (3.0, 1.0, 100.0, 5)
    assert comparison.middle_seed(seeds).seed == 3
    profile = comparison.profile_table(np.array([1.0, 2, 3, 4, 100])).frame
    assert profile["share"].to_list() == [1.0, 0.8, 0.6, 0.4, 0.2]
    report = assemble(evidence(runs))
    assert report.row("seeds_net").value == 3.0
    assert report.row("headline").value == 3.0
    assert report.row("seeds_worst").value == 1.0


@pytest.mark.pitfall("T28")
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(-90_000, 90_000).map(lambda cents: cents / 100), max_size=30),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_fuzzed_runs_give_a_report(nets: list[float], seeds: int, constant: bool) -> None:
    equity = [1000.0] * 30 if constant else None
    runs = [run_of(nets, [1 if k % 3 else -1 for k in range(len(nets))], equity=equity) for _ in range(seeds)]
    no_nonsense(assemble(evidence(runs)))


@pytest.mark.pitfall("T28")
@pytest.mark.parametrize("nets", [[], [5.0], [5.0] * 12, [-5.0] * 12, [-2000.0, 3.0]])
def test_degenerate_runs_give_a_page(nets: list[float]) -> None:
    report = assemble(evidence([run_of(nets)]))
    no_nonsense(report)
    assert not re.search(r"\b(nan|inf)\b", page(report).lower())


@pytest.mark.parametrize("bars", [1, 3])
def test_a_test_of_few_bars(bars: int) -> None:
    no_nonsense(assemble(whole_evidence(made_up_table(60), seeds=2, bars=bars)))
