"""Where arithmetic must not be rounded to 16 bits: statistics, cell states, transforms, log-probabilities.

The operations of these places are elementwise or sums, which autocast leaves in the type of their input; so raising
the input is enough, and they need no switch around them.
"""

import torch
from torch import Tensor


def raised(x: Tensor) -> Tensor:
    """Return a 16-bit tensor in float32, a wider one unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
