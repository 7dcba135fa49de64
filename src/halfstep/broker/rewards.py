"""Forms of the reward, all of what one step did to the money. A gain is positive in every one of them."""

import numpy as np
import numpy.typing as npt

Money = npt.NDArray[np.float64]


def log_reward(equity: Money, previous_equity: Money, floor: float) -> Money:
    """Return ln(max(E, f) / max(PE, f)); over an episode the sum is ln(max(E_end, f) / deposit).

    Args:
        equity, previous_equity: account currency now and one bar before.
        floor: f, the account's ruin level, above 0.
    """
    return np.asarray(np.log(np.maximum(equity, floor) / np.maximum(previous_equity, floor)), np.float64)


def relative_components(components: Money, previous_balance: Money, floor: float) -> Money:
    """Return components / max(previous balance, f), the scale of the published rewards.

    Args:
        components: change of balance, change of equity, minus the idle charge, ``(..., 3)``, account currency.
        previous_balance: one bar before, ``(...)``.
        floor: f, the account's ruin level, above 0.
    """
    return np.asarray(components / np.maximum(previous_balance, floor)[..., None], np.float64)


def weighted_reward(
    components: Money, previous_balance: Money, weights: tuple[float, float, float], floor: float
) -> Money:
    """Return the scalar sum of weights_j components_j / max(previous balance, f); arguments as above."""
    return np.asarray(relative_components(components, previous_balance, floor) @ np.asarray(weights))
