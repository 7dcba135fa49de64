"""A trading rule of your own in the broker, at three levels of cost. Run: python examples/own_rule.py.

The rule: with the crossing of two means, 0.1 lots, target and stop 200 points. The bars are a random walk, so no rule
can earn money on them: what is left is what trading costs.
"""

from dataclasses import replace

import numpy as np

from halfstep.broker import AccountRules, deals_frame, market_table, run_actions
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars

bars = random_bars(6000, seed=2)
eurusd = instrument("EURUSD")
close = np.cumsum(bars.close)
fast, slow = 24, 120
above = np.zeros(len(bars), bool)
above[slow:] = (close[slow:] - close[slow - fast : -fast]) / fast > (close[slow:] - close[:-slow]) / slow

first = slow
actions = np.zeros((len(bars) - 1 - first, 6))  # row k is decided at the close of bar first + k
long = above[first : first + len(actions)]
actions[long, :3] = (0.1, 0.2, 0.2)  # lots, target and stop as fractions of 1,000 points
actions[~long, 3:] = (0.1, 0.2, 0.2)

for scale in (0.0, 1.0, 2.0):
    rules = replace(AccountRules(), cost_scale=scale, close_at_end=True)
    table = market_table(bars, eurusd, rules)
    run = run_actions(table, rules, actions, first)
    deals = deals_frame(run.log, table)
    print(f"costs x {scale:.0f}: net {run.equity[-1] - rules.deposit:>9.2f} USD in {len(deals)} deals")
