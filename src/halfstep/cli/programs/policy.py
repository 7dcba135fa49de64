"""A trained arm as a function from bars to actions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from halfstep.broker.table import market_table
from halfstep.cli.programs.market import load_rates, traded_instrument
from halfstep.cli.programs.models import model_config, model_file
from halfstep.cli.run_folder import RunFolder
from halfstep.experience.rollout import trade
from halfstep.market.bars import Bars
from halfstep.market.features import FeatureSet
from halfstep.nn.build import build_actor, build_encoder
from halfstep.nn.checkpoint import load_weights
from halfstep.training.policy import NeuralPolicy, encode_contexts, weights_hash

Acts = Callable[[Bars, npt.NDArray[np.float32]], npt.NDArray[np.float64]]


def policy_of_arm(folder: Path, run: Path, features: FeatureSet) -> tuple[Acts, int]:
    """Return what an arm does, and the first bar on which an action of it can be executed.

    The function takes bars and their features and trades from the deposit, from that bar to the last; it returns
    one action per executing bar, ``(n - first, 6)``.

    Raises:
        CheckpointError: the networks were made for other features.
    """
    config = RunFolder.config_of(run)
    encoder = build_encoder(model_config(config), feature_names=features.names, seed=0)
    load_weights(
        encoder, model_file(folder, "encoder"), kind="encoder", facts={}, remedy="halfstep run"
    )  # the names of the features are among the facts that every encoder has
    actor = build_actor(model_config(config), seed=0)
    load_weights(
        actor, model_file(folder, "actor"), kind="actor", facts={"encoder": weights_hash(encoder)},
        remedy="halfstep run",
    )  # fmt: skip
    first = features.settled + encoder.first_row + 1  # the bar after the first context
    rules, rates = replace(config.broker, close_at_end=True), load_rates(config)

    def act(bars: Bars, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        table = market_table(bars, traded_instrument(config, bars), rules, **rates)
        contexts = encode_contexts(encoder, torch.from_numpy(values), first - 1, settled=features.settled)
        policy = NeuralPolicy(actor.eval(), contexts)
        actions, _ = trade(policy, table, rules, first=first - 1, stop=len(bars) - 1)
        padded = np.zeros((len(bars) - first, actions.shape[1]))  # a ruined account asks for nothing more
        padded[: len(actions)] = actions
        return padded

    return act, first
