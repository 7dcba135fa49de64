"""A trained policy that trades a span again under other rules, for the lines of the report on sensitivity."""

from collections.abc import Callable
from pathlib import Path

import torch

from halfstep.backtest.run import TestRun, make_test_run
from halfstep.backtest.sensitivity import Decide
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import contexts_of, load_actor, load_encoder
from halfstep.config.tables import Config
from halfstep.experience.policy import Policy
from halfstep.experience.rollout import trade
from halfstep.training.policy import NeuralPolicy, weights_hash

AsTested = Callable[[Policy], Policy]
"""How a test uses a policy, for example with actions drawn from a seed."""


def as_it_is(policy: Policy) -> Policy:
    """Return the policy itself, which takes its most likely action."""
    return policy


def decide_anew(config: Config, market: Market, folder: Path, as_tested: AsTested = as_it_is) -> Decide:
    """Return a function that trades the test span of a market with the networks of a folder.

    Args:
        config, market: that the networks were trained with.
        folder: of the encoder and the actor; its table of contexts is used, but none is written.
        as_tested: how the test used the policy.
    """
    encoder = load_encoder(folder, config, market)
    actor = load_actor(folder, config, weights_hash(encoder))
    contexts = contexts_of(encoder, market, None, folder)
    first, stop = market.spans.test

    def decide(table: MarketTable, rules: AccountRules) -> TestRun:
        with torch.inference_mode():
            policy = as_tested(NeuralPolicy(actor, contexts))
            actions, run = trade(policy, table, rules, first=first - 1, stop=stop - 1)
        return make_test_run(run, actions, table, rules)

    return decide
