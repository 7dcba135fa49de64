"""Markets: from a file of bars to checked bars, indicators, features and the arrays a network reads.

Vocabulary: a *bar* is open, high, low, close, volume and spread of one period, known once it has closed; its
*time* is the UTC second at which it opens; *server time* is the clock of the broker's server; a *span* is a
half-open pair of bar indices. This package knows nothing of accounts, orders or networks.
"""

from typing import TYPE_CHECKING

from halfstep._lazy import lazy_names

if TYPE_CHECKING:
    from halfstep.market.bars import Bars
    from halfstep.market.calendar import ServerZone
    from halfstep.market.features import Features, compute_features
    from halfstep.market.instruments import Instrument, instrument
    from halfstep.market.read import default_bars, read_bars
    from halfstep.market.splits import Split, split_spans
    from halfstep.market.state import account_vector
    from halfstep.market.write import write_bars

__all__ = [
    "Bars",
    "Features",
    "Instrument",
    "ServerZone",
    "Split",
    "account_vector",
    "compute_features",
    "default_bars",
    "instrument",
    "read_bars",
    "split_spans",
    "write_bars",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Bars": "halfstep.market.bars",
        "Features": "halfstep.market.features",
        "Instrument": "halfstep.market.instruments",
        "ServerZone": "halfstep.market.calendar",
        "Split": "halfstep.market.splits",
        "account_vector": "halfstep.market.state",
        "compute_features": "halfstep.market.features",
        "default_bars": "halfstep.market.read",
        "instrument": "halfstep.market.instruments",
        "read_bars": "halfstep.market.read",
        "split_spans": "halfstep.market.splits",
        "write_bars": "halfstep.market.write",
    },
)
