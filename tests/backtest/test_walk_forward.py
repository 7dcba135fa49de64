"""Months joined as one account, what they show together, and the page of it."""

from dataclasses import replace

import numpy as np
import pytest

from halfstep.backtest import content
from halfstep.backtest.assembly import assemble
from halfstep.backtest.baselines import (
    Span,
    join_baselines,
    joined_random_band,
    random_band,
    simple_baselines,
)
from halfstep.backtest.comparison import ForecastErrors, join_errors
from halfstep.backtest.figures import Table, table
from halfstep.backtest.html import page
from halfstep.backtest.joined import join_runs
from halfstep.backtest.metrics import compute_metrics
from halfstep.backtest.run import TestRun
from halfstep.backtest.sensitivity import ambiguous_table, join_cases, replay_cases, same_actions
from halfstep.backtest.walk_forward import (
    Fold,
    WalkForward,
    fold_table,
    half_width,
    interval_over_months,
    month_figures,
    months_needed,
    walk_banners,
    walk_sentences,
)

from .runs import RULES, made_up_table, random_actions, run_of, traded
from .test_assembly import FEW_DRAWS, evidence, no_nonsense

FLOOR = 10.0  # one hundredth of the deposit of 1,000


def months_table(growth: np.ndarray) -> Table:
    months, seeds = growth.shape[1], len(growth)
    records = [
        {
            "month": f"2022-{k + 1:02d}", "growth": float(np.expm1(growth[:, k].mean())), "low": -0.01 if seeds > 1 else None,
            "high": 0.01 if seeds > 1 else None, "worst": 0.0, "best": 0.0, "log_growth": float(growth[:, k].mean()), "trades": 3.0,
            "stopped": 0, "drawdown": 5.0, "price_change": 0.01,
        }
        for k in range(months)
    ]  # fmt: skip
    return table(content.WALK_FORWARD, records)


def walk_of(growth: list[list[float]], ruined: list[list[bool]] | None = None) -> WalkForward:
    """Return a walk-forward with this log growth of each seed (rows) in each month."""
    values = np.array(growth)
    gone = np.zeros(values.shape, bool) if ruined is None else np.array(ruined)
    return WalkForward(
        months=tuple(f"2022-{k + 1:02d}" for k in range(values.shape[1])), log_growth=values, is_ruined=gone,
        is_stopped=gone, table=months_table(values),
    )  # fmt: skip


def later(run: TestRun, days: int) -> TestRun:
    return replace(run, open_time=run.open_time + 86_400 * days, close_time=run.close_time + 86_400 * days)


def test_joined_growth_by_hand() -> None:
    # 1,000 grows by 1.3 in the first month, by 0.9 in the second, by 1.5 in the third: 1,755
    months = [run_of([100.0, 200.0]), later(run_of([-100.0]), 31), later(run_of([500.0]), 59)]
    joined = join_runs(months, floor=FLOOR)
    assert joined.equity_end == pytest.approx(1000 * 1.3 * 0.9 * 1.5)
    assert joined.trades["net"].to_list() == pytest.approx([100.0, 200.0, -130.0, 585.0])
    assert joined.deals["balance"].to_list() == pytest.approx([1100.0, 1300.0, 1170.0, 1755.0])
    assert len(joined) == sum(len(month) for month in months)
    assert joined.trades["step"].to_list() == [0, 1, len(months[0]), len(months[0]) + len(months[1])]
    found = compute_metrics(joined)
    assert found["net_profit"].value == pytest.approx(755.0)
    assert found["total_trades"].value == 4
    assert found["balance_dd_maximal"].value == pytest.approx(130.0)
    assert found["profit_factor"].value == pytest.approx(885 / 130)


def test_years_go_from_the_first_bar_to_the_last() -> None:
    day = replace(run_of([1.0] * 24), years=1 / 365.25)
    assert day.close_time[-1] - day.open_time[0] == 86_400
    first, second = day, later(day, 31)
    seconds = second.close_time[-1] - first.open_time[0]
    assert join_runs([first, second], floor=FLOOR).years == pytest.approx(seconds / (365.25 * 86_400))


def test_one_month_is_itself() -> None:
    run = run_of([5.0, -3.0])
    assert join_runs([run], floor=FLOOR) is run


def test_a_month_without_trades_changes_nothing() -> None:
    months = [run_of([100.0]), later(run_of([], equity=[1000.0] * 5), 31), later(run_of([100.0]), 59)]
    joined = join_runs(months, floor=FLOOR)
    assert joined.trades["net"].to_list() == pytest.approx([100.0, 110.0])
    assert joined.equity_end == pytest.approx(1210.0)


@pytest.mark.parametrize(("left", "end"), [(0.0, 0.0), (-300.0, -330.0), (10.0, 11.0)])
def test_a_ruined_account_is_not_traded_on(left: float, end: float) -> None:
    ruin = replace(run_of([left - 1000.0]), status=1)
    months = [run_of([100.0]), later(ruin, 31), later(run_of([500.0]), 59)]
    joined = join_runs(months, floor=FLOOR)
    assert joined.equity_end == pytest.approx(end)
    assert len(joined) == len(months[0]) + len(months[1])
    assert joined.status == 1


def test_half_an_account_is_traded_on() -> None:
    stopped = replace(run_of([-500.0]), status=1)
    joined = join_runs([stopped, later(run_of([100.0]), 31)], floor=FLOOR)
    assert joined.equity_end == pytest.approx(550.0)
    assert joined.status == 2


def test_nets_of_a_traded_walk_add_up() -> None:
    market = made_up_table(700)
    months = [
        traded(market, random_actions(200, seed), first=first) for seed, first in enumerate((10, 210, 410))
    ]
    joined = join_runs(months, floor=RULES.floor)
    growth = np.prod([month.equity_end / month.deposit for month in months])
    assert joined.equity_end == pytest.approx(joined.deposit * growth, abs=1e-9)
    left_open = joined.equity_end - joined.balance[-1]
    assert joined.trades["net"].sum() == pytest.approx(joined.balance[-1] - joined.deposit, abs=1e-6)
    assert left_open == pytest.approx(joined.equity[-1] - joined.balance[-1])
    assert (np.diff(joined.open_time) > 0).all()


def test_random_months_are_chained() -> None:
    # one position fills the whole span, so a random month is long or short from end to end: two values of growth
    market, bars = made_up_table(300), 100
    hold = np.tile([0.1, 1.0, 1.0, 0.0, 0.0, 0.0], (bars, 1))
    spans = [Span(first=10, bars=bars), Span(first=110, bars=bars)]
    ours = [traded(market, hold, first=span.first) for span in spans]
    singles = [
        np.unique(random_band(market, RULES, run, span, runs=40, seed=1).nets) for run, span in zip(ours, spans, strict=True)
    ]  # fmt: skip
    assert all(len(nets) == 2 for nets in singles)
    first, second = (1 + nets / RULES.deposit for nets in singles)
    expected = np.sort((RULES.deposit * (first[:, None] * second - 1)).ravel())
    band = joined_random_band(market, RULES, list(zip(ours, spans, strict=True)), runs=100, seed=1)
    assert np.unique(band.nets.round(6)) == pytest.approx(expected, abs=1e-5)
    assert len(band.low) == len(band.high) == 2 * bars
    assert band.low[-1] <= np.quantile(band.nets, 0.06) + RULES.deposit
    assert (band.trades == 2).all()


def test_one_random_month_is_the_ordinary_band() -> None:
    market, span = made_up_table(300), Span(first=10, bars=200)
    run = traded(market, random_actions(200, 1))
    alone = random_band(market, RULES, run, span, runs=50, seed=3)
    joined = joined_random_band(market, RULES, [(run, span)], runs=50, seed=3)
    assert (alone.nets == joined.nets).all()
    assert (alone.low == joined.low).all()


def test_months_are_chained_and_intervals_are_those_of_the_textbook() -> None:
    figures = month_figures(walk_of([[0.01, -0.02, 0.04], [0.03, 0.00, 0.06]]), FEW_DRAWS)
    # seeds end at ln growth 0.03 and 0.09; months have means 0.02, -0.01, 0.05
    assert figures.growth == pytest.approx(np.expm1(0.06))
    assert (figures.worst_seed, figures.best_seed) == pytest.approx((np.expm1(0.03), np.expm1(0.09)))
    assert figures.mean_month == pytest.approx(0.02)
    half = 4.302653 * 0.03 / np.sqrt(3)  # t(0.975, 2), deviation of the months
    assert figures.mean_month_over_months == pytest.approx((0.02 - half, 0.02 + half), rel=1e-6)
    assert (figures.months_up, figures.months, figures.seeds) == (2, 3, 2)
    text, power = walk_sentences(figures)
    assert text.endswith("(95 % over months -0.05452 … +0.09452): no growth is shown.")
    assert "with 3 of them, a mean of less than 0.07452 cannot be told from none. At this mean" in power
    sure = month_figures(walk_of([[0.01, 0.01, 0.012], [0.011, 0.011, 0.012]]), FEW_DRAWS)
    assert walk_sentences(sure)[0].endswith(": growth is shown.")
    lost = month_figures(walk_of([[-0.01, -0.01, -0.012]]), FEW_DRAWS)
    assert lost.is_shown == "a loss is shown"


def test_seeds_are_drawn_within_each_month() -> None:
    # seeds differ by nothing inside a month, so resampling them gives no width, however much months differ
    figures = month_figures(walk_of([[0.05, -0.05, 0.02]] * 4), FEW_DRAWS)
    assert figures.month_interval == pytest.approx((figures.month_over_seeds,) * 2)
    assert figures.mean_month_over_months is not None
    assert figures.mean_month_over_months[0] < -0.1


def test_a_ruined_seed_grows_no_more() -> None:
    floor = float(np.log(0.01))
    walk = walk_of([[0.1, floor, 0.5], [0.1, 0.1, 0.1]], [[False, True, False], [False] * 3])
    assert walk.chained == pytest.approx([0.1 + floor, 0.3])
    assert [banner.key for banner in walk_banners(walk, [1, 2])] == ["few_months", "stopped_months"]
    assert walk_banners(walk, [1, 2])[1].text.endswith("seed 1 in 2022-02.")


def test_months_that_are_all_alike_are_no_evidence() -> None:
    figures = month_figures(walk_of([[0.0, 0.0, 0.0]]), FEW_DRAWS)
    assert figures.is_shown == "no growth is shown"
    assert walk_sentences(figures)[1].startswith("All months gave the same")


def test_a_single_month_says_so() -> None:
    figures = month_figures(walk_of([[0.02], [0.04]]), FEW_DRAWS)
    assert interval_over_months(np.array([0.1])) is None
    assert figures.deviation is figures.months_needed is figures.mean_month_over_months is None
    assert walk_sentences(figures)[0].endswith("One month gives no interval over months.")


@pytest.mark.parametrize(("mean", "deviation"), [(0.01, 0.02), (-0.003, 0.01), (0.2, 0.01), (0.01, 0.0)])
def test_months_needed_is_the_first_number_that_shows(mean: float, deviation: float) -> None:
    found = months_needed(mean, deviation)
    assert found == next(n for n in range(2, 2000) if half_width(deviation, n) < abs(mean))


def test_no_number_of_months_shows_nothing() -> None:
    assert months_needed(0.0, 0.01) is None
    assert months_needed(0.0, 0.0) is None
    assert months_needed(1e-5, 0.1) is None


def a_walk(months: int = 3, seeds: int = 2) -> tuple[list[TestRun], WalkForward, dict[str, object]]:
    """Return the joined tests of policies without skill, their months, and what the page shows beside them."""
    market, bars = made_up_table(60 + 100 * months), 100
    spans = [Span(first=10 + bars * k, bars=bars) for k in range(months)]
    parts = [
        [traded(market, random_actions(bars, 10 * seed + k), first=span.first) for k, span in enumerate(spans)]
        for seed in range(seeds)
    ]  # fmt: skip
    growth = [[float(np.log(run.equity_end / run.deposit)) for run in runs] for runs in parts]
    ours = list(zip(parts[0], spans, strict=True))
    beside: dict[str, object] = {
        "baselines": join_baselines([simple_baselines(market, RULES, run, span) for run, span in ours], floor=RULES.floor, note="each month anew"),
        "band": joined_random_band(market, RULES, ours, runs=60, seed=1),
        "cases": join_cases(
            [
                replay_cases(market, RULES, same_actions(run, bars), span)
                for run, span in ours
            ],
            floor=RULES.floor,
        ),
    }  # fmt: skip
    return [join_runs(runs, floor=RULES.floor) for runs in parts], walk_of(growth), beside


@pytest.mark.pitfall("U9")
@pytest.mark.parametrize("months", [1, 3])
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_page_leads_with_months_and_trades(months: int, seeds: int) -> None:
    runs, walk, beside = a_walk(months, seeds)
    report = assemble(evidence(runs, walk=walk, **beside))
    no_nonsense(report)
    trades = int(report.row("total_trades").value or 0)
    assert report.verdict.startswith(
        f"{months} month{'s' if months > 1 else ''} out of sample, {trades} trades: "
    )
    assert [row.key for row in report.summary][:2] == ["walk_growth", "walk_month"]
    assert sum(key == "walk_forward" for key, _ in report.remarks) == (2 if months > 1 else 1)
    html = page(report)
    assert 'id="chart-walk_forward"' in html
    for k, name in enumerate(walk.months):
        assert html.count(f'<tr><th scope="row">{name}</th>') >= 1
        assert f'data-key="walk_forward.{k}.growth"' in html
    assert f'data-key="walk_forward.{months}.growth"' not in html  # every month once


def test_the_base_replay_is_the_joined_test() -> None:
    runs, _, beside = a_walk()
    cases = beside["cases"]
    assert isinstance(cases, tuple)
    assert cases[0].run.net == pytest.approx(runs[0].net)
    lines = ambiguous_table(cases).frame
    assert lines["positions"].n_unique() == 1  # each is found again in both replays


@pytest.mark.pitfall("U9")
def test_nothing_is_claimed_without_the_months() -> None:
    # a net that beats every random policy, with bars and seeds sure of it, but months that disagree
    runs, _, beside = a_walk(seeds=1)
    rising = replace(runs[0], equity=np.linspace(10_100.0, 40_000.0, len(runs[0])))
    alike = [replace(rising, equity=rising.equity * scale) for scale in (1.0, 1.001, 1.002)]
    sure = evidence(alike, walk=walk_of([[0.45, 0.46, 0.47]] * 3), **beside)
    assert "Better than random trading" in assemble(sure).verdict
    torn = replace(sure, walk=walk_of([[1.6, -0.1, -0.1]] * 3))
    assert "no growth is shown. Cannot be told from random trading" in assemble(torn).verdict


def errors_of(skill: float, origins: int) -> ForecastErrors:
    """Return squared errors of a skill in the first of two features, and of none in the second."""
    naive = np.random.default_rng(origins).exponential(1.0, (origins, 24, 2))
    ones = np.ones((origins, 2))
    return ForecastErrors(
        features=("body", "gap"), model=naive * np.array([1 - skill, 1.2]), last_value=2 * naive, window_mean=naive,
        same_hour=3 * naive, truth=ones, forecast=ones,
    )  # fmt: skip


def test_each_month_stands_beside_simple_rules_and_its_forecasts() -> None:
    market = made_up_table()
    spans = [Span(first=10, bars=200), Span(first=210, bars=200)]
    runs = [traded(market, random_actions(200, k), first=span.first) for k, span in enumerate(spans)]
    rules = [simple_baselines(market, RULES, run, span) for run, span in zip(runs, spans, strict=True)]
    folds = [
        Fold(name="2022-01", run=runs[0], rules=rules[0], errors=errors_of(0.5, 240)),
        Fold(name="2022-02", run=runs[1], rules=rules[1], errors=None),  # too short for a forecast
    ]
    found = fold_table(folds, FEW_DRAWS)
    first, second = found.frame.to_dicts()
    assert (first["net"], second["net"]) == (runs[0].net, runs[1].net)
    assert first["buy_and_hold"] == next(each.run.net for each in rules[0] if each.name == "buy and hold")
    assert second["always_short"] == next(each.run.net for each in rules[1] if each.name == "always short")
    assert (first["skill"], first["above"], first["features"]) == (pytest.approx((0.5 - 0.2) / 2), 1, 2)
    assert found.texts()[1][-3:] == ("--", "--", "--")

    walk = replace(walk_of([[0.01, -0.02], [0.03, 0.00]]), folds=found, skipped=("2022-03",))
    report = assemble(
        evidence(
            [run_of([5.0, -7.0])] * 2,
            walk=walk,
            forecast=join_errors([errors_of(0.5, 240), errors_of(0.1, 240)]),
        )
    )
    no_nonsense(report)
    text = page(report)
    assert 'data-key="folds.1.buy_and_hold"' in text
    assert "made by halfstep run only" in text
    assert "Missing, because there are no bars: 2022-03." in text
    forecast = report.table("forecast")
    assert forecast is not None
    skill = forecast.frame["skill"][0]
    assert 0.1 < skill < 0.5
    assert report.row("forecasts").text == "better than naive ones in 1 of 2 features"


def test_joined_errors_are_those_of_all_months() -> None:
    parts = [errors_of(0.5, 48), errors_of(0.1, 96)]
    joined = join_errors(parts)
    assert joined.model.shape == (144, 24, 2)
    assert joined.model.sum() == pytest.approx(sum(part.model.sum() for part in parts))
    assert joined.truth.shape == (144, 2)


def test_a_month_without_bars_is_named() -> None:
    walk = replace(walk_of([[0.01] * 12]), skipped=("2022-05", "2022-09"))
    [banner] = walk_banners(walk, [1])
    assert (banner.key, banner.text) == (
        "skipped_months",
        "Missing, because there are no bars: 2022-05, 2022-09.",
    )
