"""One deterministic pass of a policy over a span: what validation and the test trade."""

import numpy as np
from jaxtyping import Float64

from halfstep.broker.engine import BatchedAccounts, Run, run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable
from halfstep.experience.policy import ACTION_SIZE, Policy
from halfstep.market.state import account_vector

CHUNK = 256


def trade(
    policy: Policy, table: MarketTable, rules: AccountRules, *, first: int, stop: int
) -> tuple[Float64[np.ndarray, "bar 6"], Run]:
    """Trade a span from the deposit with the policy's mean action.

    Args:
        first: newest closed bar at the first decision.
        stop: the last bar, on which the last action is executed.

    Returns:
        The actions as the policy asked for them, and the engine's record of executing them.
    """
    accounts = BatchedAccounts(table, rules, 1)
    accounts.reset(first=first, stop=stop)
    now = previous = accounts.numbers()
    asked = []
    for begin in range(first, stop, CHUNK):
        end = min(begin + CHUNK, stop)
        prepared = policy.prepare(begin, end)
        for row in range(end - begin):
            if not accounts.is_running:
                break
            action = policy.act(account_vector(now, previous, floor=rules.floor), prepared, row, None)
            previous = now
            accounts.step(action)
            now = accounts.numbers()
            asked.append(action[0])
    actions = np.array(asked).reshape(-1, ACTION_SIZE)
    rest = np.zeros((stop - first - len(actions), ACTION_SIZE))
    return actions, run_actions(table, rules, np.concatenate([actions, rest]), first)
