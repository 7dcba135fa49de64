"""What a policy is, and policies that need no network."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

ACTION_SIZE = 6


@runtime_checkable
class Policy(Protocol):
    """Turns accounts at a bar into actions."""

    @property
    def hash(self) -> str:
        """What tells this policy from others, for the record of an episode."""
        ...

    def prepare(self, first: int, last: int) -> Any:
        """Return whatever depends on bars ``first`` to ``last - 1`` only."""
        ...

    def act(
        self,
        account: Float32[np.ndarray, "path 12"],
        prepared: Any,
        row: int,
        noise: Float32[np.ndarray, "path 6"] | None,
    ) -> Float64[np.ndarray, "path 6"]:
        """Return netted actions in lots and level fractions; without noise they are deterministic.

        Args:
            account: `halfstep.market.account_vector` of each account.
            prepared: of a chunk of bars.
            row: the bar, counted from the chunk's first.
            noise: standard normal numbers, correlated over time by the caller.
        """
        ...


class NoisePolicy:
    """Acts on noise alone: the first trajectories need no model.

    Args:
        lot_cap: largest volume, lots.
        level_floor: least fraction of a target or stop.
    """

    hash = "noise"

    def __init__(self, lot_cap: float, level_floor: float = 0.0) -> None:
        self._low = np.array(2 * (0.0, level_floor, level_floor))
        self._range = np.array(2 * (lot_cap, 1.0, 1.0)) - self._low

    def prepare(self, first: int, last: int) -> None:
        """Nothing depends on the bars."""

    def act(
        self,
        account: Float32[np.ndarray, "path 12"],
        prepared: None,  # noqa: ARG002  # the protocol's signature
        row: int,  # noqa: ARG002
        noise: Float32[np.ndarray, "path 6"] | None,
    ) -> Float64[np.ndarray, "path 6"]:
        """Return the squashed, netted noise; no noise is flat."""
        raw = np.zeros((len(account), ACTION_SIZE)) if noise is None else noise.astype(np.float64)
        return net_sides(self._low + self._range / (1 + np.exp(-raw)))


def net_sides(action: Float64[np.ndarray, "path 6"]) -> Float64[np.ndarray, "path 6"]:
    """Subtract opposite volumes from each other."""
    smaller = np.minimum(action[:, 0], action[:, 3])
    netted = action.copy()
    netted[:, 0] -= smaller
    netted[:, 3] -= smaller
    return netted


def scripted_actions(
    script: str, bars: int, lot_cap: float, lot_min: float, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the actions of a policy that looks at nothing, ``(bars, 6)``.

    Args:
        script: ``"flat"``, ``"long"``, ``"short"`` or ``"random"`` (entries held 1 to 48 bars, either side).
    """
    actions = np.zeros((bars, ACTION_SIZE))
    if script == "flat":
        return actions
    lots = random.uniform(lot_min, lot_cap)
    levels = random.uniform(0.05, 1.0, 2)
    if script in ("long", "short"):
        column = 0 if script == "long" else 3
        actions[:, column : column + 3] = (lots, *levels)
        return actions
    at = 0
    while at < bars:
        hold, pause = random.integers(1, 49, 2)
        column = 3 * int(random.integers(0, 2))
        actions[at : at + hold, column : column + 3] = (
            random.uniform(lot_min, lot_cap),
            *random.uniform(0.05, 1.0, 2),
        )
        at += int(hold + pause)
    return actions


SCRIPTS = ("flat", "long", "short", "random")
