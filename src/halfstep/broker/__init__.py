"""The account and its orders: one transition function turns (account, action, bar) into (account, reward).

Research, validation, test and baselines all call it; there is no second engine. An *action* is six numbers: buy
lots, buy TP, buy SL, sell lots, sell TP, sell SL (levels as fractions of the instrument's level scale). It is
decided at the close of bar t and executed at the open of bar t + 1. This package knows no features and no
networks.
"""

from typing import TYPE_CHECKING

from halfstep._lazy import lazy_names

if TYPE_CHECKING:
    from halfstep.broker.engine import BatchedAccounts, Run, StepResult, run_actions
    from halfstep.broker.outcomes import Flag, Outcome
    from halfstep.broker.rules import AccountRules
    from halfstep.broker.table import MarketTable, market_table

__all__ = [
    "AccountRules",
    "BatchedAccounts",
    "Flag",
    "MarketTable",
    "Outcome",
    "Run",
    "StepResult",
    "market_table",
    "run_actions",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AccountRules": "halfstep.broker.rules",
        "BatchedAccounts": "halfstep.broker.engine",
        "Flag": "halfstep.broker.outcomes",
        "MarketTable": "halfstep.broker.table",
        "Outcome": "halfstep.broker.outcomes",
        "Run": "halfstep.broker.engine",
        "StepResult": "halfstep.broker.engine",
        "market_table": "halfstep.broker.table",
        "run_actions": "halfstep.broker.engine",
    },
)
