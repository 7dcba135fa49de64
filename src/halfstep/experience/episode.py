"""Steps and episodes as values: what writers hand to a store and what readers get from it.

A *step* k of an episode whose first decision is made at the close of bar b belongs to bar b + k: account before the
action, executed action, reward until the next close, what became of the decision. The account after the last step
belongs to the episode.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from halfstep.errors import StoreError

ACCOUNT_SIZE = 7  # balance, equity, buy lots, sell lots, buy profit, sell profit, discount
ACTION_SIZE = 6
REWARD_SIZE = 3
SOURCES = ("policy", "noise", "scripted", "signal", "imported")
STEP = np.dtype(
    [
        ("account", "<f4", ACCOUNT_SIZE),
        ("action", "<f4", ACTION_SIZE),
        ("reward", "<f4", REWARD_SIZE),
        ("mark", "u1"),
    ]
)
"""One stored step, 65 bytes."""

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]  # of STEP


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Episodes as arrays ``(path, step, ...)``; steps after an episode's length are not kept.

    Attributes:
        first_bar: newest closed bar at the first decision, ``(path,)``.
        account: the account at each decision, ``(path, step + 1, 7)``; row ``length`` is the account after the end.
        action: executed, netted: lots on the grid (0 when refused), levels as asked, ``(path, step, 6)``.
        reward: `halfstep.broker.rewards.relative_components`, ``(path, step, 3)``.
        mark: outcome in the low three bits, flags above, ``(path, step)``.
        length: steps of each path, ``(path,)``, at least 1.
        terminated: ended by ruin; otherwise by its span, ``(path,)``.
        source: names among `SOURCES`, one a path.
        seed: of the randomness of each path, ``(path,)``; -1 = none.
        policy: hash of what acted, one a path.
        initial_balance: account currency, ``(path,)`` float64.
        final_equity: after the last step, ``(path,)`` float64.
        trades: deals that each path made, ``(path,)``.
        zero_level: meaning of a level of 0, see `halfstep.broker.AccountRules`.
    """

    first_bar: Indices
    account: Floats
    action: Floats
    reward: Floats
    mark: npt.NDArray[np.uint8]
    length: Indices
    terminated: npt.NDArray[np.bool_]
    source: tuple[str, ...]
    seed: Indices
    policy: tuple[str, ...]
    initial_balance: Doubles
    final_equity: Doubles
    trades: Indices
    zero_level: str = "reject"

    def __len__(self) -> int:
        return len(self.length)

    def check(self, name: str, bars: int) -> None:
        """Raise StoreError unless shapes agree, numbers are finite and every step lies on one of ``bars`` bars."""
        n, steps = len(self), self.action.shape[1]
        shapes = {
            "first_bar": (n,), "account": (n, steps + 1, ACCOUNT_SIZE), "action": (n, steps, ACTION_SIZE),
            "reward": (n, steps, REWARD_SIZE), "mark": (n, steps), "terminated": (n,), "source": (n,), "seed": (n,),
            "policy": (n,), "initial_balance": (n,), "final_equity": (n,), "trades": (n,),
        }  # fmt: skip
        for field, shape in shapes.items():
            found = np.shape(getattr(self, field))
            if found != shape:
                raise _refused(name, f"{field} has shape {found}, must be {shape}")
        unknown = sorted(set(self.source) - set(SOURCES))
        if unknown:
            raise _refused(name, f"source {unknown[0]!r}, must be one of {', '.join(SOURCES)}")
        if n == 0 or self.length.min() < 1 or self.length.max() > steps:
            raise _refused(name, f"lengths {self.length.tolist()}, must lie in 1 to {steps}")
        if self.first_bar.min() < 0 or (self.first_bar + self.length).max() >= bars:
            last = int((self.first_bar + self.length).max())
            raise _refused(name, f"bars {int(self.first_bar.min())} to {last}, must lie in 0 to {bars - 1}")
        for field in ("account", "action", "reward", "initial_balance", "final_equity"):
            if not np.isfinite(getattr(self, field)).all():
                raise _refused(name, f"{field} is not finite")

    def rows(self, path: int) -> Rows:
        """Return the steps of a path as records, ``(length,)`` of `STEP`."""
        length = int(self.length[path])
        rows = np.empty(length, STEP)
        rows["account"] = self.account[path, :length]
        for field in ("action", "reward", "mark"):
            rows[field] = getattr(self, field)[path, :length]
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """All steps of one episode.

    Attributes:
        bar: of each decision, ``(step,)``.
        account: at each decision and after the last, ``(step + 1, 7)``.
        action, reward, mark: as in `Group`, ``(step, ...)``.
    """

    bar: Indices
    account: Floats
    action: Floats
    reward: Floats
    mark: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A batch of steps, the rewards that follow, and where they lead.

    Attributes:
        bar: bar of the decision, ``(batch,)``.
        now, previous: the account at the decision and one bar before (at step 0 the initial one), ``(batch, 7)``.
        action: executed, ``(batch, 6)``.
        reward: of this step and the following ones, 0 after the episode's end, ``(batch, horizon, 3)``.
        count: how many of these rewards the episode has, m = min(horizon, length - step), ``(batch,)``.
        after, after_previous: the account m bars after the decision and one bar before that, ``(batch, 7)``; their
            bar is ``bar + count``.
        terminated: ruin ended the episode with the last of these rewards, so nothing may be added for what
            follows, ``(batch,)``. A truncated episode is not terminated.
    """

    bar: Indices
    now: Floats
    previous: Floats
    action: Floats
    reward: Floats
    count: Indices
    after: Floats
    after_previous: Floats
    terminated: npt.NDArray[np.bool_]


def _refused(name: str, what: str) -> StoreError:
    return StoreError(f"shard {name}: {what}. Nothing was written.")
