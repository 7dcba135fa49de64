"""The account and its orders: one transition function turns (account, action, bar) into (account, reward).

Research, validation, test and baselines all call it; there is no second engine. An *action* is six numbers: buy
lots, buy TP, buy SL, sell lots, sell TP, sell SL (levels as fractions of the instrument's level scale). It is
decided at the close of bar t and executed at the open of bar t + 1. This package knows no features and no
networks.
"""

from typing import TYPE_CHECKING

from halfstep._lazy import lazy_names

if TYPE_CHECKING:
    from halfstep.broker.deals import DealLog, deals_frame, positions_frame, trades_frame
    from halfstep.broker.engine import (
        BatchedAccounts,
        Run,
        StepResult,
        action_from_fractions,
        run_actions,
        step,
    )
    from halfstep.broker.env import TradingEnv, TradingVectorEnv
    from halfstep.broker.outcomes import Flag, Outcome
    from halfstep.broker.rewards import log_reward, relative_components, weighted_reward
    from halfstep.broker.rules import AccountRules
    from halfstep.broker.state import AccountState, reset_accounts
    from halfstep.broker.table import MarketTable, market_table

_HOMES = {
    "AccountRules": "rules",
    "AccountState": "state",
    "BatchedAccounts": "engine",
    "DealLog": "deals",
    "Flag": "outcomes",
    "MarketTable": "table",
    "Outcome": "outcomes",
    "Run": "engine",
    "StepResult": "engine",
    "TradingEnv": "env",
    "TradingVectorEnv": "env",
    "action_from_fractions": "engine",
    "deals_frame": "deals",
    "log_reward": "rewards",
    "market_table": "table",
    "positions_frame": "deals",
    "relative_components": "rewards",
    "reset_accounts": "state",
    "run_actions": "engine",
    "step": "engine",
    "trades_frame": "deals",
    "weighted_reward": "rewards",
}

__all__ = [
    "AccountRules",
    "AccountState",
    "BatchedAccounts",
    "DealLog",
    "Flag",
    "MarketTable",
    "Outcome",
    "Run",
    "StepResult",
    "TradingEnv",
    "TradingVectorEnv",
    "action_from_fractions",
    "deals_frame",
    "log_reward",
    "market_table",
    "positions_frame",
    "relative_components",
    "reset_accounts",
    "run_actions",
    "step",
    "trades_frame",
    "weighted_reward",
]

__getattr__, __dir__ = lazy_names(
    __name__, {name: f"halfstep.broker.{home}" for name, home in _HOMES.items()}
)
