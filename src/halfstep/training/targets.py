"""What a critic learns: sums of rewards, and the value of the state after them. Pure functions of a batch.

With r_{t+k} the rewards of a stored episode from step t on, gamma the discount and Q', pi' slow copies of critic and actor
(Sutton and Barto 2018, chapters 6 and 7):

    one_step        y = r_t
    n_step          y = sum_{k<m} gamma^k r_{t+k} [+ gamma^m (1 - terminated) Q'(s_{t+m}, pi'(s_{t+m})) with bootstrap]
    td              y = r_t + gamma (1 - terminated) min_j Q'_j(s_{t+1}, pi'(s_{t+1}))       (Fujimoto et al. 2018)
    return_to_go    y = sum_k gamma^k r_{t+k} to the episode's end
    value           y = w r_t + gamma (1 - terminated) V(s_{t+1})                          (Kostrikov et al. 2021)

m is n, or fewer where the episode ends earlier. Termination (ruin) cuts the sum and what follows; truncation (the end of the
recorded span) cuts the sum alone, and the value of the state after the last recorded step stands for the rest. Without a
bootstrap, ``n_step`` samples no step whose sum truncation would cut, and ``return_to_go`` counts what is missing as 0.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from halfstep.training.settings import StudySettings

NEGLIGIBLE = 2.0**-24  # weight below which a reward adds nothing to a float32


def reward_bars(settings: StudySettings, longest: int) -> int:
    """Return how many rewards from a step on a target reads.

    Args:
        longest: most steps of an episode.
    """
    if settings.target == "n_step":
        return settings.horizon
    if settings.target == "return_to_go":
        if settings.discount == 1:
            return longest
        return min(longest, math.ceil(math.log(NEGLIGIBLE) / math.log(settings.discount)))
    return 1


def discounted_sum(
    reward: Float[Tensor, "batch horizon component"], discount: float
) -> Float[Tensor, "batch component"]:
    """Return sum_k discount^k reward_k; rewards after an episode's end are 0.

    >>> discounted_sum(torch.tensor([[[1.0], [2.0], [3.0]]]), 0.99).item()  # doctest: +ELLIPSIS
    5.9203...
    """
    weights = discount ** torch.arange(reward.shape[1], dtype=reward.dtype)
    return torch.einsum("bhc,h->bc", reward, weights)


def bootstrapped(
    sum_: Float[Tensor, "batch component"],
    after: Float[Tensor, "batch component"],
    *,
    steps: Int[Tensor, " batch"],
    terminated: Bool[Tensor, " batch"],
    discount: float,
) -> Float[Tensor, "batch component"]:
    """Return sum + discount^steps (1 - terminated) after.

    Args:
        sum_: discounted rewards of ``steps`` steps.
        after: value of the state after them; not looked at where the episode terminated.
        steps: rewards in the sum, at least 1.
        terminated: whether ruin ended the episode with the last of these steps.
    """
    weight = discount ** steps.to(sum_.dtype)
    return sum_ + torch.where(terminated[:, None], 0.0, weight[:, None] * after)


def least(
    values: Float[Tensor, "critic batch component"], weights: Float[Tensor, " component"]
) -> Float[Tensor, "batch component"]:
    """Return each sample's values by the critic that thinks least of it, by the weighted sum of components."""
    chosen = (values @ weights).argmin(dim=0)  # (batch,)
    return values[chosen, torch.arange(values.shape[1])]
