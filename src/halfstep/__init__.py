"""halfstep trains neural networks that trade, with half the optimizer memory.

Two things stand at the top: `AdamMini`, a drop-in for ``torch.optim.AdamW`` with half the state, with its
partition and rules; and the command ``halfstep``, which takes market bars through research, training and a test
to a report. The packages below are floors; each imports only floors under it:

    cli · config                the command line and one configuration
    backtest                    the test on unseen bars and its report
    training                    encoder, actor and critic
    experience                  trajectories and where they are kept
    broker                      the account and its orders
    market · nn · optim         bars and features · networks · Adam-mini
    files · progress · errors   the ground
"""

from typing import TYPE_CHECKING

from halfstep._lazy import lazy_names
from halfstep._version import __version__

if TYPE_CHECKING:
    from halfstep.optim.optimizer import AdamMini
    from halfstep.optim.partition import Partition, partition_model
    from halfstep.optim.rules import Rule, head, sections

__all__ = ["AdamMini", "Partition", "Rule", "__version__", "head", "partition_model", "sections"]

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
