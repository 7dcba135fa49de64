"""Adam-mini (Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", arXiv 2406.16793) as a torch optimizer.

Model → partition → state → update rule. A *block* is a set of elements that share one second moment; a *row* is all
weights that feed one output unit; the *partition* names the blocks of every parameter. This package depends on
torch alone.
"""

from typing import TYPE_CHECKING

from halfstep._lazy import lazy_names

if TYPE_CHECKING:
    from halfstep.optim.optimizer import AdamMini
    from halfstep.optim.partition import Partition, partition_model
    from halfstep.optim.rules import Rule, head, sections

__all__ = ["AdamMini", "Partition", "Rule", "head", "partition_model", "sections"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AdamMini": "halfstep.optim.optimizer",
        "Partition": "halfstep.optim.partition",
        "Rule": "halfstep.optim.rules",
        "head": "halfstep.optim.rules",
        "partition_model": "halfstep.optim.partition",
        "sections": "halfstep.optim.rules",
    },
)
