"""From what is known of a test to the report: every figure is computed here or below, none is typed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from halfstep.backtest import breakdown, comparison, content, sensitivity, uncertainty, verdict
from halfstep.backtest.baselines import Baseline, RandomBand, band_table, baseline_table, random_table
from halfstep.backtest.comparison import ArmFigures, FailedArm, ForecastErrors, SeedRun, StepTimes
from halfstep.backtest.content import Report
from halfstep.backtest.figures import Row, Table, table
from halfstep.backtest.ratios import Floats
from halfstep.backtest.registry import Observation, TrialCount
from halfstep.backtest.run import TestRun
from halfstep.backtest.sensitivity import Case
from halfstep.backtest.statistics import overfitting_logits
from halfstep.backtest.uncertainty import Resampling
from halfstep.backtest.verdict import Circumstances
from halfstep.backtest.walk_forward import (
    FOLD_REMARKS,
    WalkForward,
    month_figures,
    walk_banners,
    walk_headline,
    walk_rows,
    walk_sentences,
)

LIMITS = (
    "Orders fill at the next open or at their level, whole and at once; a real account meets delays, partial fills, requotes and other spreads.",
    "Costs and margin are those of the assumptions, of no particular broker; swaps and commissions change.",
    "A test span says how these months went. Intervals assume that the next ones resemble them.",
    "Past results, on made-up or real bars, promise nothing. This is not financial advice.",
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Evidence:
    """Everything a report is made of; what is absent leaves its rows undefined and its tables out.

    Attributes:
        title, settings, assumptions, versions: as in `Report`.
        seeds: of the headline; the rows, lists and curves are those of the seed in the middle.
        representative: name of what the seeds are of.
        baselines: simple rules, data baselines and others; ``buy and hold`` among them by name.
        band: random policies with the middle seed's positions.
        cases: replays of the middle seed's actions, the test itself first.
        reruns: the same assumptions, the middle seed's policy deciding anew.
        arms, steps, margin: of the optimizers compared.
        failed: arms that are missing; the report is then marked incomplete.
        trials: how many configurations were tried, by kind of return.
        trial_returns: per-bar returns of configurations on the test span, ``(bar, trial)``.
        forecast: errors of the middle seed's encoder on the test span.
        extra: tables made elsewhere: windows of forecasts.
        walk: the months of a walk-forward, whose joined tests the seeds are.
        quality_spans: history quality of equal parts of the span, percent.
        circumstances: what may be wrong with the test.
        resampling: draws and root seed.
    """

    title: str
    settings: tuple[Row, ...]
    assumptions: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    seeds: Sequence[SeedRun]
    representative: str
    baselines: Sequence[Baseline] = ()
    band: RandomBand | None = None
    cases: tuple[Case, ...] = ()
    reruns: tuple[Case, ...] = ()
    arms: Sequence[ArmFigures] = ()
    steps: StepTimes = field(default_factory=dict)
    margin: float = 0.01
    failed: Sequence[FailedArm] = ()
    trials: Mapping[Observation, TrialCount] = field(default_factory=dict)
    trial_returns: Floats | None = None
    forecast: ForecastErrors | None = None
    extra: Sequence[Table] = ()
    walk: WalkForward | None = None
    quality_spans: tuple[float, ...] = ()
    circumstances: Circumstances = field(default_factory=Circumstances)
    resampling: Resampling = field(default_factory=Resampling)


def assemble(given: Evidence) -> Report:
    """Return the report."""
    middle = comparison.middle_seed(given.seeds)
    run = middle.run
    nets = np.array([each.run.net for each in given.seeds])
    logits = None if given.trial_returns is None else overfitting_logits(given.trial_returns)
    sure = uncertainty.uncertainty_rows(run, nets, given.trials, logits, given.resampling)
    intervals = [each.interval for each in sure if each.key == "net_profit_interval"]
    if len(nets) > 1:
        intervals += [each.interval for each in sure if each.key == "seeds_net"]
    months = None if given.walk is None else month_figures(given.walk, given.resampling)
    if months is not None:
        intervals.append(months.mean_month_over_months)
    warnings = [comparison.incomplete_banner(given.failed)] if given.failed else []
    warnings += verdict.banners(run, given.circumstances)
    if given.walk is not None:
        warnings += walk_banners(given.walk, [each.seed for each in given.seeds])
    if given.cases:
        warnings += sensitivity.fragile_banners(given.cases)
    tables, remarks = _tables(given, middle, nets, logits)
    simple = verdict.summary_rows(
        run,
        middle.metrics,
        sure,
        given.band,
        given.baselines,
        _first_figures(given, middle, tables),
        openings=given.circumstances.openings,
    )
    words = _verdict(given, run, intervals)
    if months is not None:
        trades = run.trades.height
        words = f"{walk_headline(months, trades=trades)} {words}"
        simple = (*walk_rows(months, trades=trades), *simple)
        remarks += [(content.WALK_FORWARD.key, sentence) for sentence in walk_sentences(months)]
        remarks += [(content.FOLDS.key, sentence) for sentence in FOLD_REMARKS]
    return Report(
        title=given.title,
        verdict=words,
        currency=run.currency,
        representative=_representative(given, middle),
        banners=tuple(warnings),
        settings=given.settings,
        summary=simple,
        tester=middle.metrics.tester,
        ours=middle.metrics.ours,
        uncertainty=sure,
        remarks=tuple(remarks),
        assumptions=(*given.assumptions, _resampling_assumption(given)),
        limits=LIMITS,
        versions=given.versions,
        tables=tables,
    )  # fmt: skip


def _first_figures(given: Evidence, middle: SeedRun, tables: Sequence[Table]) -> verdict.FirstFigures:
    """Return what the summary repeats of the other parts."""
    skill = next((each for each in tables if each.kind is content.FORECAST), None)
    return verdict.FirstFigures(
        worst_fall=max(each.metrics["equity_dd_maximal"].value or 0.0 for each in given.seeds),
        costs=breakdown.cost_parts(middle.run),
        doubled=next((case.run.net for case in given.cases if case.key == "costs_2"), None),
        forecasts=None if skill is None else comparison.skill_words(skill),
    )


def _verdict(given: Evidence, run: TestRun, intervals: Sequence[tuple[float, float] | None]) -> str:
    missing = [arm.name for arm in given.failed if arm.optimizer == given.representative]
    if missing:
        return f"No verdict: the result is incomplete, {', '.join(missing)} failed."
    if given.band is None:
        return "No random policies were played."
    return verdict.verdict_sentence(given.band.p(run.net), intervals, has_traded=run.positions.height > 0)


def _representative(given: Evidence, middle: SeedRun) -> str:
    if len(given.seeds) == 1:
        return f"{given.representative}, seed {middle.seed}"
    return f"{given.representative}, seed {middle.seed}, the one in the middle of {len(given.seeds)} by net profit"


def _resampling_assumption(given: Evidence) -> str:
    draws = (
        f"Intervals rest on {given.resampling.draws:,} resamples from the root seed {given.resampling.seed}"
    )
    draws += "." if given.band is None else f"; {len(given.band.nets):,} random policies were played."
    tried = max((count.n for count in given.trials.values()), default=1)
    return f"{draws} {tried:,} configuration{'s' if tried > 1 else ''} had been tried when this was written."


def _tables(
    given: Evidence, middle: SeedRun, nets: Floats, logits: Floats | None
) -> tuple[tuple[Table, ...], list[tuple[str, str]]]:
    """Return every table in the order of `content.TABLES`, and the sentences under them."""
    run = middle.run
    found = [
        breakdown.monthly_table(run),
        breakdown.side_table(run),
        breakdown.outcome_table(run),
        breakdown.cost_table(run),
        *breakdown.list_tables(run),
        breakdown.by_time_table(run),
        breakdown.action_table(run),
        *given.extra,
    ]
    if given.walk is not None:
        found.append(given.walk.table)
        if given.walk.folds is not None:
            found.append(given.walk.folds)
    remarks = breakdown.remarks_on_actions(run)
    if given.baselines or given.band is not None:
        found.append(baseline_table(given.baselines, given.band, run.deposit))
    hold = next((each.run for each in given.baselines if each.name == "buy and hold"), None)
    if given.band is not None:
        found.append(random_table(given.band))
        if hold is not None:
            found.append(band_table(run, given.band, hold))
    if given.cases:
        found += [
            sensitivity.sensitivity_table(given.cases, given.reruns),
            sensitivity.ambiguous_table(given.cases),
        ]
    if len(given.seeds) > 1:
        found += [
            comparison.seed_table(given.seeds),
            comparison.seed_row_table(given.seeds, given.resampling),
            comparison.seed_curve_table(given.seeds),
            comparison.profile_table(nets),
        ]
    if given.arms:
        optimizers, sentences = comparison.optimizer_table(
            given.arms, given.steps, margin=given.margin, resampling=given.resampling, failed=given.failed
        )
        found += [optimizers, comparison.loss_table(given.arms)]
        remarks += sentences
    if given.forecast is not None:
        skill, horizons = comparison.forecast_tables(given.forecast, given.resampling)
        found += [skill, horizons]
        remarks += comparison.skill_remarks(skill)
    if logits is not None:
        found.append(uncertainty.overfitting_table(logits))
    if given.quality_spans:
        parts = [{"part": k + 1, "share": quality / 100} for k, quality in enumerate(given.quality_spans)]
        found.append(table(content.QUALITY, parts))
    order = {kind.key: k for k, kind in enumerate(content.TABLES)}
    return tuple(sorted(found, key=lambda each: order[each.kind.key])), remarks
