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
    from halfstep.market.causality import lookahead, warmup
    from halfstep.market.check import DataReport, check_bars
    from halfstep.market.features import FeatureColumn, Features, FeatureSet, compute_features
    from halfstep.market.instruments import Instrument, instrument
    from halfstep.market.normaliser import Normaliser
    from halfstep.market.raw import ReadOptions
    from halfstep.market.read import default_bars, read_bars
    from halfstep.market.resample import resample
    from halfstep.market.splits import Split, split_spans, walk_forward
    from halfstep.market.state import account_vector, windows
    from halfstep.market.timeframes import Timeframe
    from halfstep.market.write import write_bars

__all__ = [
    "Bars",
    "DataReport",
    "FeatureColumn",
    "FeatureSet",
    "Features",
    "Instrument",
    "Normaliser",
    "ReadOptions",
    "ServerZone",
    "Split",
    "Timeframe",
    "account_vector",
    "check_bars",
    "compute_features",
    "default_bars",
    "instrument",
    "lookahead",
    "read_bars",
    "resample",
    "split_spans",
    "walk_forward",
    "warmup",
    "windows",
    "write_bars",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Bars": "halfstep.market.bars",
        "DataReport": "halfstep.market.check",
        "FeatureColumn": "halfstep.market.features",
        "FeatureSet": "halfstep.market.features",
        "Features": "halfstep.market.features",
        "Instrument": "halfstep.market.instruments",
        "Normaliser": "halfstep.market.normaliser",
        "ReadOptions": "halfstep.market.raw",
        "ServerZone": "halfstep.market.calendar",
        "Split": "halfstep.market.splits",
        "Timeframe": "halfstep.market.timeframes",
        "account_vector": "halfstep.market.state",
        "check_bars": "halfstep.market.check",
        "compute_features": "halfstep.market.features",
        "default_bars": "halfstep.market.read",
        "instrument": "halfstep.market.instruments",
        "lookahead": "halfstep.market.causality",
        "read_bars": "halfstep.market.read",
        "resample": "halfstep.market.resample",
        "split_spans": "halfstep.market.splits",
        "walk_forward": "halfstep.market.splits",
        "warmup": "halfstep.market.causality",
        "windows": "halfstep.market.state",
        "write_bars": "halfstep.market.write",
    },
)
