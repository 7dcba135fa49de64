"""Does it learn? A planted edge must be found by the whole chain, and noise with costs must be left alone."""

from pathlib import Path

import numpy as np
import pytest

from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import (
    EARLIER_BARS,
    Signal,
    planted_bars,
    planted_session,
    random_bars,
)
from halfstep.training.settings import StudySettings

from .chain import RULES, chain, follow, profit

SPANS = ((700, 4200), (4200, 4800), (4800, 6000))
SETTINGS = StudySettings(updates=1500, eval_every=300)


def sign_of(bars: Bars, signal: Signal) -> np.ndarray:
    """Return the planted sign as it can be seen in each bar."""
    if signal in ("volume", "earlier"):
        sign = np.where(bars.volume > 1000, 1, -1)
        return np.roll(sign, EARLIER_BARS) if signal == "earlier" else sign
    if signal == "session":
        return planted_session(bars.server_time)
    wicks = bars.high - bars.low - np.abs(bars.close - bars.open)
    return np.where(wicks > 60e-5, 1, -1)


@pytest.mark.slow
@pytest.mark.pitfall("T21")
@pytest.mark.parametrize("signal", ["volume", "earlier", "range", "session"])
def test_a_planted_edge_is_found(signal: Signal, tmp_path: Path) -> None:
    shares = []
    for seed in (1, 2) if signal == "volume" else (1,):
        bars = planted_bars(6000, seed=100 + seed, signal=signal)
        outcome = chain(
            bars, instrument("EURUSD"), SPANS, tmp_path / str(seed), seed=seed, settings=SETTINGS, epochs=8
        )
        perfect = profit(follow(outcome.table, sign_of(bars, signal), outcome.span))
        assert perfect > 5 * RULES.deposit
        shares.append(profit(outcome.run) / perfect)
        assert outcome.study.warnings == ()
        assert len(np.unique(np.round(outcome.run.lots, 1))) > 3  # the actor answers to what it sees
    print(signal, "share of following the sign:", [round(share, 3) for share in shares])
    assert min(shares) > 0.8, shares


@pytest.mark.slow
@pytest.mark.pitfall("T21")
def test_noise_is_left_alone(tmp_path: Path) -> None:
    """With a commission of 3.50 on top of the spread nothing can be earned; a policy of noise loses most."""
    bars = random_bars(6000, seed=7)
    traded = instrument("EURUSD", profile="raw")
    assert traded.commission == 3.5
    outcome = chain(bars, traded, SPANS, tmp_path, seed=1, settings=SETTINGS, epochs=3)
    run = outcome.run
    coin = np.random.default_rng(1).choice([-1, 1], len(bars))
    noise = follow(outcome.table, coin, outcome.span)
    cost = -profit(noise)
    print("in position", (run.lots != 0).mean(), "profit", profit(run), "of noise", -cost)
    assert cost > 1000
    assert (run.lots != 0).mean() < 0.1 or profit(run) > -0.1 * cost
    assert (
        abs(run.reward.sum()) < 3 * run.reward.std() * len(run.reward) ** 0.5 + 1e-12
    )  # no significant profit
