"""What the recorded trajectories give by themselves: a policy that learned nothing, one that imitates, the best recorded.

A trained policy that is not better than these has learned nothing from its critic.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from halfstep.backtest.baselines import Baseline
from halfstep.backtest.run import TestRun, make_test_run
from halfstep.broker.engine import run_actions
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import contexts_of, load_actor, load_encoder, model_config
from halfstep.cli.programs.study import study_policy
from halfstep.config.tables import Config
from halfstep.experience.rollout import trade
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore
from halfstep.market.calendar import iso
from halfstep.nn.build import build_actor
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor
from halfstep.progress import Progress
from halfstep.training.policy import Contexts, NeuralPolicy
from halfstep.training.selection import (
    NEAR_QUANTILE,
    REFERENCES,
    comparable,
    nearest_distances,
    stored_actions,
)

EQUITY = 1  # column of a stored account


def data_baselines(
    config: Config,
    market: Market,
    encoder: Encoder,
    folder: Path,
    *,
    store: EpisodeStore | None,
    cloned: Path | None,
) -> list[Baseline]:
    """Return the untrained policy, the imitating one and the best recorded run, as far as they are there.

    Args:
        config, market: of the run.
        encoder, folder: of the arm that is shown, and where its contexts are kept.
        store: trajectories.
        cloned: folder of a policy that imitates, with its encoder.
    """
    contexts = contexts_of(encoder, market, folder)
    untrained = build_actor(model_config(config), seed=config.run.seed).eval()
    found = [
        Baseline(
            name="untrained policy", run=_trade(untrained, contexts, market), note="weights as they begin"
        )
    ]
    if cloned is not None:
        contexts = contexts_of(load_encoder(cloned, config, market), market, cloned)
        actor = load_actor(cloned, config, contexts.encoder_hash)
        found.append(
            Baseline(
                name="behaviour cloning",
                run=_trade(actor, contexts, market),
                note="imitates profitable episodes, without a critic",
            )
        )
    if store is not None and len(store):
        found.append(_best_recorded(market, store))
    return found  # fmt: skip


def clone_policy(
    config: Config,
    market: Market,
    folder: Path,
    progress: Progress,
    *,
    encoder_folder: Path,
    store: EpisodeStore,
) -> Path:
    """Train a policy that only imitates profitable episodes, as `study` does without its critic; returns its folder."""
    imitating = config.model_copy(
        update={
            "study": replace(config.study, objective="guided", target="n_step", guidance=0.0, cloning=1.0)
        }
    )
    encoder = load_encoder(encoder_folder, config, market)
    study_policy(
        imitating, market, folder, progress, encoder_folder=encoder_folder,
        contexts=contexts_of(encoder, market, folder, encoder_folder), store=store,
        optimizer=config.compare.headline, seed=config.run.seed,
    )  # fmt: skip
    return folder


def _trade(actor: Actor, contexts: Contexts, market: Market) -> TestRun:
    first, stop = market.spans.test
    asked, run = trade(
        NeuralPolicy(actor, contexts), market.test_table, market.test_rules, first=first - 1, stop=stop - 1
    )
    return make_test_run(run, asked, market.test_table, market.test_rules)


def _best_recorded(market: Market, store: EpisodeStore) -> Baseline:
    """Return the recorded episode with the greatest growth, replayed on its own bars."""
    episodes = np.arange(len(store))
    begin = store.gather(episodes, np.zeros(len(store), np.int64)).now[:, EQUITY]
    end = store.gather(episodes, store.length).now[:, EQUITY]
    best = int(np.argmax(end / begin))
    steps = np.arange(store.length[best])
    actions = store.gather(np.full(len(steps), best), steps).action.astype(np.float64)
    first = int(store.first_bar[best])
    run = run_actions(market.test_table, market.test_rules, actions, first)
    times = market.bars.server_time
    return Baseline(
        name="best recorded run",
        run=make_test_run(run, actions, market.test_table, market.test_rules),
        note=f"on its own bars, {iso(int(times[first + 1]))} to {iso(int(times[first + len(steps)]))}: the best of {len(store):,} in the training span",
        on_test_bars=False,
    )  # fmt: skip


def outside_data(run: TestRun, store: EpisodeStore, seed: int) -> float | None:
    """Return the share of a run's executed actions that lie farther from the data than the data from itself.

    The distance is to the nearest of 1,000 recorded actions, far is beyond the 99 % quantile of their own distances,
    as in training.
    """
    if len(store) == 0 or len(run) == 0:
        return None
    references = stored_actions(store, REFERENCES, generator(seed, "stored actions")) / run.action_range
    near = np.quantile(nearest_distances(references, references, without_itself=True), NEAR_QUANTILE)
    distances = nearest_distances(comparable(run.executed) / run.action_range, references)
    return float((distances > near).mean())
