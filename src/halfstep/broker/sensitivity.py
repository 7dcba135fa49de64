"""How much of a result hangs on what is assumed to have happened inside a bar."""

from dataclasses import replace

import polars as pl

from halfstep.broker.deals import deals_frame
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import INTRABAR, AccountRules
from halfstep.broker.state import Money
from halfstep.broker.table import MarketTable


def intrabar_sensitivity(table: MarketTable, rules: AccountRules, actions: Money, first: int) -> pl.DataFrame:
    """Replay a list of actions under every reading of a bar that touches both stop and target.

    Args:
        table, rules, actions, first: as `run_actions`; ``m1`` is among the readings where the table has detail.

    Returns:
        One row per reading: ``intrabar``, ``trades`` (deals that closed something), ``ambiguous`` (those that the
        reading decided), ``ambiguous_share``, ``detail_missing`` (bars held through without finer bars), ``net``
        (account currency).
    """
    rows = []
    for intrabar in INTRABAR:
        if intrabar == "m1" and table.detail is None:
            continue
        run = run_actions(table, replace(rules, intrabar=intrabar), actions, first)
        deals = deals_frame(run.log, table)
        trades = int((deals["entry"] == "out").sum())
        rows.append(
            {
                "intrabar": intrabar,
                "trades": trades,
                "ambiguous": run.ambiguous,
                "ambiguous_share": run.ambiguous / trades if trades else 0.0,
                "detail_missing": run.detail_missing,
                "net": float(run.equity[-1] - rules.deposit) if len(run.equity) else 0.0,
            }
        )
    return pl.DataFrame(rows)
