"""How sure the result of a run is: resampled bars and positions, seeds, the search that led to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from halfstep.backtest import content
from halfstep.backtest import statistics as s
from halfstep.backtest.breakdown import equity_levels
from halfstep.backtest.definitions import row
from halfstep.backtest.figures import Row, Table, table, text_of
from halfstep.backtest.metrics import daily_levels
from halfstep.backtest.ratios import Floats, profit_factor
from halfstep.backtest.registry import Observation, TrialCount
from halfstep.backtest.run import TestRun
from halfstep.market.timeframes import DAY

LEAST_BARS = 20
LEAST_POSITIONS = 10
POSITION_BLOCK = 5.0
DAILY_FROM = 60  # days from which the deflated Sharpe ratio reads daily returns


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How often and from which root seed figures are resampled."""

    draws: int = 10_000
    seed: int = 1


def net_draws(run: TestRun, resampling: Resampling) -> Floats | None:
    """Return net profits of the stationary bootstrap of the per-bar log returns; None for too short a run."""
    levels = equity_levels(run)
    if len(run) < LEAST_BARS or levels.min() <= 0:
        return None
    growth = s.stationary_bootstrap(
        np.diff(np.log(levels)), mean_block=mean_block(run), draws=resampling.draws, seed=resampling.seed
    )
    return np.asarray(run.deposit * np.expm1(growth), np.float64)


def mean_block(run: TestRun) -> float:
    """Return the mean length of a block of bars: a day or twice the mean holding, at most a quarter of the run."""
    seconds = float(np.median(run.close_time - run.open_time))
    held = run.positions["held_seconds"].to_numpy()
    holding = float(held.mean()) / seconds if len(held) else 0.0
    return s.bars_of_a_block(len(run), DAY / seconds, holding)


def uncertainty_rows(
    run: TestRun,
    nets_of_seeds: Floats,
    trials: Mapping[Observation, TrialCount],
    logits: Floats | None,
    resampling: Resampling,
) -> tuple[Row, ...]:
    """Return every row on how sure the result is.

    Args:
        run: the run the page shows.
        nets_of_seeds: net profit on the test of each seed; one or more.
        trials: by the kind of return their Sharpe ratios are of.
        logits: of `overfitting_logits`.
        resampling: draws and seed.
    """
    return (
        *_bar_rows(run, resampling),
        *_position_rows(run, resampling),
        row("bootstrap_seed", resampling.seed),
        *_seed_rows(nets_of_seeds, resampling),
        *_search_rows(run, trials, logits),
    )


def _bar_rows(run: TestRun, resampling: Resampling) -> list[Row]:
    nets = net_draws(run, resampling)
    if nets is None:
        return [
            row(key, None) for key in ("net_profit_interval", "net_profit_interval_80", "share_not_positive")
        ]
    note = f"{resampling.draws:,} draws, blocks of {mean_block(run):.1f} bars in the mean"
    low, high = s.percentile_interval(nets, 0.8)
    return [
        row("net_profit_interval", run.net, interval=s.percentile_interval(nets), note=note),
        row("net_profit_interval_80", run.net, interval=(low, high), text=f"{text_of(low, 'money')} … {text_of(high, 'money')}"),
        row("share_not_positive", float((nets <= 0).mean())),
    ]  # fmt: skip


def _position_rows(run: TestRun, resampling: Resampling) -> list[Row]:
    nets = run.positions["net"].to_numpy()
    n = len(nets)
    if n < LEAST_POSITIONS:
        return [row(key, None) for key in ("profit_factor_interval", "payoff_interval", "won_interval")]
    columns = np.stack([np.where(nets > 0, nets, 0.0), np.where(nets > 0, 0.0, -nets), nets > 0], axis=1)
    gains, losses, won = s.stationary_bootstrap(
        columns, mean_block=POSITION_BLOCK, draws=resampling.draws, seed=resampling.seed + 1
    ).T
    factor = profit_factor(nets)
    lossy = losses > 1e-9 * (gains + losses)  # the others have no profit factor
    factors = gains[lossy] / losses[lossy]
    return [
        row("profit_factor_interval", factor, interval=None if factor is None else s.percentile_interval(factors)),
        row("payoff_interval", nets.mean(), interval=s.percentile_interval((gains - losses) / n)),
        row("won_interval", (nets > 0).mean(), interval=s.percentile_interval(np.round(won) / n)),
    ]  # fmt: skip


def _seed_rows(nets: Floats, resampling: Resampling) -> list[Row]:
    if len(nets) < 2:
        return [row(key, None) for key in ("seeds_net", "seeds_worst", "seeds_best")]
    interval = s.seed_interval(nets, draws=resampling.draws, seed=resampling.seed + 2)
    return [
        row("seeds_net", s.interquartile_mean(nets), interval=interval, note=f"{len(nets)} seeds"),
        row("seeds_worst", nets.min()),
        row("seeds_best", nets.max()),
    ]


def _search_rows(run: TestRun, trials: Mapping[Observation, TrialCount], logits: Floats | None) -> list[Row]:
    days = daily_levels(run)
    observation: Observation = "day" if len(days) > DAILY_FROM else "bar"
    levels = days if observation == "day" else equity_levels(run)
    found = s.moments(levels[1:] / levels[:-1] - 1) if levels.min() > 0 else None
    count = trials.get(observation, TrialCount(n=1, sharpe_variance=0.0))
    n = max(1, count.n)
    deflated = None
    if found is not None:
        deflated = s.deflated_sharpe(
            found.sharpe, found.n, found.skew, found.kurtosis, trials=n, variance=count.sharpe_variance
        )
    threshold, probability = deflated or (None, None)
    note = "" if deflated is None else f"{found.n} returns per {observation}" if found else ""
    return [
        row("deflated_sharpe", probability, threshold, note=note),
        row("trials", n),
        row("pbo", None if logits is None else float((logits <= 0).mean())),
    ]


def overfitting_table(logits: Floats) -> Table:
    """Return the logits behind the probability of overfitting."""
    records: list[dict[str, Any]] = [{"logit": float(value)} for value in np.sort(logits)]
    return table(content.PBO, records)
