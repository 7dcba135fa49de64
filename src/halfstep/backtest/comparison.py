"""Seeds beside seeds, optimizers beside optimizers, forecasts beside naive ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from halfstep.backtest import content
from halfstep.backtest import statistics as s
from halfstep.backtest.baselines import run_record
from halfstep.backtest.content import Banner
from halfstep.backtest.figures import Table, table
from halfstep.backtest.metrics import Metrics
from halfstep.backtest.ratios import Floats
from halfstep.backtest.run import TestRun
from halfstep.backtest.uncertainty import Resampling

REFERENCE = "adamw"
ORIGINS_PER_BLOCK = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRun:
    """One seed's pass over the test span, with its rows."""

    seed: int
    run: TestRun
    metrics: Metrics


def middle_seed(seeds: Sequence[SeedRun]) -> SeedRun:
    """Return the seed in the middle by net profit, the lower one of two."""
    return sorted(seeds, key=lambda each: (each.run.net, each.seed))[(len(seeds) - 1) // 2]


def log_growth(run: TestRun) -> float | None:
    """Return ln(equity at the end / deposit)."""
    return float(np.log(run.equity_end / run.deposit)) if run.equity_end > 0 else None


def seed_table(seeds: Sequence[SeedRun]) -> Table:
    """Return one line per seed."""
    return table(
        content.SEEDS,
        [
            run_record(each.run)
            | {
                "seed": each.seed,
                "log_growth": log_growth(each.run),
                "trades": each.run.trades.height,
                "won": each.metrics["win_rate"].value,
            }
            for each in seeds
        ],
    )


def seed_row_table(seeds: Sequence[SeedRun], resampling: Resampling) -> Table:
    """Return every row over the seeds: interquartile mean with its interval, least and greatest."""
    records = []
    for first in (*seeds[0].metrics.tester, *seeds[0].metrics.ours):
        found = [each.metrics[first.key].value for each in seeds]
        values = np.array([value for value in found if value is not None])
        if len(values) == 0:
            continue
        low, high = s.seed_interval(values, draws=resampling.draws // 10, seed=resampling.seed)
        records.append(
            {
                "key": first.key, "label": first.label, "unit": first.unit, "seeds": len(values), "mean": s.interquartile_mean(values),
                "low": low if len(values) > 1 else None, "high": high if len(values) > 1 else None,
                "least": float(values.min()), "greatest": float(values.max()),
            }
        )  # fmt: skip
    return table(content.SEED_ROWS, records)


def seed_curve_table(seeds: Sequence[SeedRun]) -> Table:
    """Return the equity of each seed after each bar."""
    frames = [
        pl.DataFrame(
            {
                "seed": np.full(len(each.run), each.seed),
                "time": each.run.close_time,
                "equity": each.run.equity,
            }
        )
        for each in seeds
    ]
    return table(content.SEED_CURVES, pl.concat(frames))


def profile_table(nets: Floats) -> Table:
    """Return the performance profile: the share of seeds that earn at least each of the nets, with its interval.

    References:
        Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice.
    """
    records = []
    for net in np.unique(nets):
        count = int((nets >= net).sum())
        low, high = s.wilson_interval(count, len(nets))
        records.append({"net": float(net), "share": count / len(nets), "low": low, "high": high})
    return table(content.PROFILE, records)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmFigures:
    """One optimizer with one seed: what it cost and what came out.

    Attributes:
        optimizer, seed, parameters: of the arm.
        predicted_bytes, state_bytes: of the optimizer's state: from the partition, and measured.
        peak_bytes, memory_method: most memory in use and how it was measured; None where it was not.
        seconds: of all its training, wall clock.
        updates_to_best: updates until the kept weights.
        loss: validation loss of the kept encoder.
        net, growth: on the test span; None where it was not traded.
        curve: epoch, training loss, validation loss.
    """

    optimizer: str
    seed: int
    parameters: int
    predicted_bytes: int | None
    state_bytes: int
    peak_bytes: int | None
    memory_method: str
    seconds: float
    updates_to_best: int | None
    loss: float
    net: float | None
    growth: float | None
    curve: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedArm:
    """One optimizer with one seed that gave no result.

    Attributes:
        optimizer, seed: of the arm.
        error: class and message.
        log: file with the details, from the run's folder on.
    """

    optimizer: str
    seed: int
    error: str
    log: str

    @property
    def name(self) -> str:
        """Name of the arm."""
        return f"{self.optimizer}-s{self.seed}"


def incomplete_banner(failed: Sequence[FailedArm]) -> Banner:
    """Return the warning above a report that lacks arms."""
    arms = "; ".join(f"{arm.name} failed: {arm.error.rstrip('.')} (log: {arm.log})" for arm in failed)
    return Banner(
        "incomplete",
        f"The result is incomplete. {arms}. No verdict is given on an optimizer with a missing arm, nor by comparison "
        "with one.",
    )


StepTimes = Mapping[str, tuple[float, float, float]]


def optimizer_table(
    arms: Sequence[ArmFigures],
    steps: StepTimes,
    *,
    margin: float,
    resampling: Resampling,
    failed: Sequence[FailedArm] = (),
) -> tuple[Table, list[tuple[str, str]]]:
    """Return one line per optimizer, and the sentences that compare each with AdamW seed by seed.

    An optimizer with a failed arm, or compared with one, gets no verdict.

    Args:
        arms: of all optimizers; those of one seed are paired.
        steps: median, lower and upper quartile of the milliseconds of a step, by optimizer.
        margin: of equivalence, as a fraction of AdamW's mean.
        resampling: behind the intervals over seeds.
        failed: arms that are missing.
    """
    names = list(dict.fromkeys(arm.optimizer for arm in arms))
    by_name = {name: sorted((a for a in arms if a.optimizer == name), key=lambda a: a.seed) for name in names}
    reference = by_name.get(REFERENCE, [])
    records, remarks = [], []
    for name in names:
        mine = by_name[name]
        record = _costs(mine, steps.get(name), reference)
        record |= _over_seeds("loss", [arm.loss for arm in mine], resampling)
        record |= _over_seeds("net", [arm.net for arm in mine], resampling)
        record |= _over_seeds("growth", [arm.growth for arm in mine], resampling)
        for figure, is_gain in (("loss", False), ("growth", True)):
            words, compared = _no_verdict(name, failed), None
            if words is None:
                compared = _paired(name, mine, reference, figure, margin, is_gain)
                words = _verdict(name, mine, reference, figure, compared)
            record |= {
                f"{figure}_difference": None if compared is None else compared.difference,
                f"{figure}_difference_low": None if compared is None else compared.interval[0],
                f"{figure}_difference_high": None if compared is None else compared.interval[1],
                f"{figure}_margin": None if compared is None else compared.margin,
                f"{figure}_verdict": words,
            }
            if name != REFERENCE and words is not None:
                what = "Validation loss" if figure == "loss" else "Log growth on the test"
                remarks.append(("optimizers", f"{what}: {words}"))
        records.append(record)
    without_any = dict.fromkeys(arm.optimizer for arm in failed if arm.optimizer not in names)
    remarks += [
        (content.OPTIMIZERS.key, words) for name in without_any if (words := _no_verdict(name, failed))
    ]
    return table(content.OPTIMIZERS, records), remarks


def _costs(
    mine: Sequence[ArmFigures], step: tuple[float, float, float] | None, reference: Sequence[ArmFigures]
) -> dict[str, Any]:
    first = mine[0]
    median, low, high = step or (None, None, None)
    updates = [arm.updates_to_best for arm in mine if arm.updates_to_best is not None]
    peaks = [arm.peak_bytes for arm in mine if arm.peak_bytes is not None]
    return {
        "optimizer": first.optimizer,
        "parameters": first.parameters,
        "predicted_bytes": first.predicted_bytes,
        "state_bytes": first.state_bytes,
        "bytes_per_parameter": first.state_bytes / first.parameters,
        "share_of_adamw": first.state_bytes / reference[0].state_bytes if reference and reference[0].state_bytes else None,
        "peak_bytes": max(peaks) if peaks else None,
        "memory_method": first.memory_method,
        "step_ms": median,
        "step_low_ms": low,
        "step_high_ms": high,
        "seconds": float(np.mean([arm.seconds for arm in mine])),
        "updates_to_best": float(np.mean(updates)) if updates else None,
        "seeds": len(mine),
    }  # fmt: skip


def _over_seeds(name: str, found: Sequence[float | None], resampling: Resampling) -> dict[str, float | None]:
    values = np.array([value for value in found if value is not None])
    if len(values) == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = s.seed_interval(values, draws=resampling.draws, seed=resampling.seed)
    many = len(values) > 1
    return {
        name: s.interquartile_mean(values),
        f"{name}_low": low if many else None,
        f"{name}_high": high if many else None,
    }


def _paired(
    name: str,
    mine: Sequence[ArmFigures],
    reference: Sequence[ArmFigures],
    figure: str,
    margin: float,
    is_gain: bool,
) -> s.Comparison | None:
    """Compare over the seeds that both have a figure of."""
    others = {arm.seed: getattr(arm, figure) for arm in reference}
    pairs = [(getattr(arm, figure), others.get(arm.seed)) for arm in mine]
    both = np.array([(a, b) for a, b in pairs if a is not None and b is not None]).reshape(-1, 2)
    if name == REFERENCE or len(both) == 0:
        return None
    return s.compare_paired(name, both[:, 0], REFERENCE, both[:, 1], margin=margin, greater_is_better=is_gain)


def _no_verdict(name: str, failed: Sequence[FailedArm]) -> str | None:
    """Return why there is no verdict on an optimizer, where arms of it or of AdamW are missing."""
    missing = [arm.name for arm in failed if arm.optimizer in (name, REFERENCE)]
    if name == REFERENCE or not missing:
        return None
    return f"{name} - {REFERENCE}: no verdict, {', '.join(missing)} failed."


def _verdict(
    name: str,
    mine: Sequence[ArmFigures],
    reference: Sequence[ArmFigures],
    figure: str,
    compared: s.Comparison | None,
) -> str | None:
    if compared is not None:
        return compared.sentence
    if name == REFERENCE or not reference or all(getattr(arm, figure) is None for arm in mine):
        return None
    return f"{name} - {REFERENCE}: {len(mine)} seeds, no verdict below {s.SEEDS_FOR_A_VERDICT}"


def loss_table(arms: Sequence[ArmFigures]) -> Table:
    """Return the losses of each arm by epoch; the epoch whose weights were kept is marked."""
    records = []
    for arm in arms:
        best = min(arm.curve, key=lambda point: point[2], default=(0, 0.0, 0.0))[0]
        records += [
            {
                "optimizer": arm.optimizer, "seed": arm.seed, "epoch": epoch, "train": train, "validation": validation,
                "is_chosen": epoch == best,
            }
            for epoch, train, validation in arm.curve
        ]  # fmt: skip
    return table(content.LOSS, records)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ForecastErrors:
    """Squared errors of consecutive forecasts in the normalised space of training.

    Attributes:
        features: names.
        model: of the encoder, ``(origin, horizon, feature)``.
        last_value, window_mean, same_hour: of the naive forecasts.
        truth, forecast: sums of each feature over the horizon, from the window's mean, ``(origin, feature)``.
    """

    features: tuple[str, ...]
    model: Float64[np.ndarray, "origin horizon feature"]
    last_value: Float64[np.ndarray, "origin horizon feature"]
    window_mean: Float64[np.ndarray, "origin horizon feature"]
    same_hour: Float64[np.ndarray, "origin horizon feature"]
    truth: Float64[np.ndarray, "origin feature"]
    forecast: Float64[np.ndarray, "origin feature"]

    @property
    def naive(self) -> dict[str, Floats]:
        """The naive forecasts' errors by name."""
        return {"last_value": self.last_value, "window_mean": self.window_mean, "same_hour": self.same_hour}


def forecast_tables(errors: ForecastErrors, resampling: Resampling) -> tuple[Table, Table]:
    """Return the skill per feature, and per feature and horizon: 1 - MSE / MSE of the best naive forecast.

    The intervals resample blocks of 24 origins, because the targets of neighbours overlap; signs are counted on
    origins a whole horizon apart.
    """
    naive = {name: squared.mean(axis=(0, 1)) for name, squared in errors.naive.items()}
    best = np.argmin(np.stack(list(naive.values())), axis=0)
    stacked = np.stack(list(errors.naive.values()))  # (naive, origin, horizon, feature)
    per_feature = np.take_along_axis(stacked.mean(axis=2), best[None, None], axis=0)[0]
    mse = errors.model.mean(axis=(0, 1))
    skill, low, high = _skill(errors.model.mean(axis=1), per_feature, resampling)
    horizon = errors.model.shape[1]
    apart = slice(None, None, horizon)
    right = np.sign(errors.truth[apart]) == np.sign(errors.forecast[apart])
    records = []
    for k, name in enumerate(errors.features):
        signs_low, signs_high = s.wilson_interval(int(right[:, k].sum()), len(right))
        records.append(
            {
                "feature": name, "mse": float(mse[k]), **{key: float(values[k]) for key, values in naive.items()},
                "skill": skill[k], "low": low[k], "high": high[k], "signs": float(right[:, k].mean()),
                "signs_low": signs_low, "signs_high": signs_high, "origins": len(right),
            }
        )  # fmt: skip
    means = stacked.mean(axis=1)  # (naive, horizon, feature)
    best_there = means.argmin(axis=0)
    there = np.take_along_axis(stacked, best_there[None, None], axis=0)[0]
    skill, low, high = _skill(errors.model, there, resampling)
    by_horizon = [
        {
            "feature": name, "horizon": h + 1, "mse": float(errors.model[:, h, k].mean()),
            "naive_mse": float(there[:, h, k].mean()), "skill": skill[h, k], "low": low[h, k], "high": high[h, k],
        }
        for k, name in enumerate(errors.features)
        for h in range(horizon)
    ]  # fmt: skip
    return table(content.FORECAST, records), table(content.FORECAST_HORIZONS, by_horizon)


def _skill(model: Floats, naive: Floats, resampling: Resampling) -> tuple[Any, Any, Any]:
    """Return skill and the bounds of its 95 % interval; NaN (shown as undefined) where the naive forecast never errs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = 1 - model.mean(axis=0) / naive.mean(axis=0)
    if len(model) < 2 * ORIGINS_PER_BLOCK:
        nothing = np.full(skill.shape, np.nan)
        return _finite(skill), nothing, nothing
    draws = 1 - s.block_ratio_draws(
        model, naive, block=ORIGINS_PER_BLOCK, draws=resampling.draws // 10, seed=resampling.seed
    )
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return _finite(skill), _finite(low), _finite(high)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def join_errors(parts: Sequence[ForecastErrors]) -> ForecastErrors:
    """Return the errors of several spans as those of one, each span by its own encoder and in its own normalised space."""
    names = ("model", "last_value", "window_mean", "same_hour", "truth", "forecast")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return ForecastErrors(features=parts[0].features, **joined)


def skill_words(forecast: Table) -> str:
    """Return in how many features the forecasts are better than the best naive one, the interval above 0."""
    above = int((forecast.frame["low"] > 0).sum())
    return f"better than naive ones in {above} of {forecast.frame.height} features"


def skill_remarks(forecast: Table) -> list[tuple[str, str]]:
    """Return which features are forecast better than by the best naive rule, and which are not."""
    frame = forecast.frame
    above = frame.filter(pl.col("low") > 0)["feature"].to_list()
    rest = [name for name in frame["feature"].to_list() if name not in above]
    found = []
    if above:
        found.append(
            ("forecast", f"Better than the best naive forecast, interval above 0: {', '.join(above)}.")
        )
    if rest:
        found.append(("forecast", f"Not shown to be better than a naive forecast: {', '.join(rest)}."))
    return found
