"""The rules of an account: deposit, leverage, costs, and how a bar is resolved."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

from halfstep.errors import ConfigError
from halfstep.market.instruments import Instrument

INTRABAR = ("stop_first", "target_first", "adaptive", "mt5_ohlc")
GAP_FILL = ("conservative", "market", "level")


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountRules:
    """Rules that hold for every account of a run.

    Money is not rounded to cents inside the engine, because rounding would break symmetry and additivity;
    reports round on display.
    """

    deposit: float = 10_000.0
    """Money at the start, account currency."""
    currency: str = "USD"
    """Account currency."""
    leverage: float = 100.0
    """Contract value per unit of margin."""
    lot_cap: float = 1.0
    """Most lots held, within the instrument's own maximum."""
    volume_unit: Literal["lots", "lots_per_10k"] = "lots"
    """Meaning of an action's volume: lots, or lots per 10,000 of equity at the last close."""
    hold_band_steps: int = 0
    """A change of volume of at most this many lot steps is not made."""
    zero_level: Literal["reject", "none"] = "reject"
    """A stop or target of 0 points fails the distance test (reject) or means no level (none)."""
    intrabar: Literal["stop_first", "target_first", "adaptive", "mt5_ohlc"] = "stop_first"
    """Which level counts first when one bar touches both. stop_first is the careful reading; target_first is for
    sensitivity runs only; adaptive takes the level nearer to the open; mt5_ohlc the low first in rising bars."""
    gap_fill: Literal["conservative", "market", "level"] = "conservative"
    """Price of a level the market jumped over: conservative gives stops the open and targets their level,
    market gives both the open, level gives both their level."""
    spread_floor_points: int | None = None
    """Least spread charged, points. Default: the instrument's."""
    commission: float | None = None
    """Account currency per lot and side. Default: the instrument's."""
    slippage_points: int = 0
    """Adverse points on market orders, stops and stop-outs; never on a target."""
    cost_scale: float = 1.0
    """Multiplies spread, commission, slippage and negative swaps."""
    stop_out: float = 0.5
    """Margin level (equity / margin) at which the position is liquidated and the episode ends."""
    floor_fraction: float = 0.01
    """Equity at or below this share of the deposit is ruin; it also bounds the logarithm of the reward."""
    close_at_end: bool = False
    """Close what is open at the last close of an episode."""
    idle_lots: float = 0.0
    """Lots whose ATR is charged, in the idle component of the reward only, for a bar without a position."""

    def __post_init__(self) -> None:
        for name in ("deposit", "leverage", "lot_cap"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "must be above 0")
        for name in ("hold_band_steps", "slippage_points", "cost_scale", "idle_lots"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "must be 0 or more")
        for name in ("spread_floor_points", "commission"):
            value = getattr(self, name)
            _check(name, value, value is None or value >= 0, "must be 0 or more")
        _check("stop_out", self.stop_out, 0 < self.stop_out < 1, "must lie between 0 and 1")
        _check("floor_fraction", self.floor_fraction, 0 < self.floor_fraction < 1, "must lie between 0 and 1")
        _check("intrabar", self.intrabar, self.intrabar in INTRABAR, f"must be one of {', '.join(INTRABAR)}")
        _check("gap_fill", self.gap_fill, self.gap_fill in GAP_FILL, f"must be one of {', '.join(GAP_FILL)}")

    @property
    def floor(self) -> float:
        """Equity at or below which the account is ruined, account currency."""
        return self.floor_fraction * self.deposit


def rules_hash(rules: AccountRules, instrument: Instrument) -> str:
    """Return a SHA-256 of every field of both; stores and checkpoints carry it."""
    fields = {"rules": asdict(rules), "instrument": asdict(instrument)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _check(name: str, value: object, holds: bool, allowed: str) -> None:
    finite = not isinstance(value, float) or math.isfinite(value)
    if not (holds and finite):
        raise ConfigError(f"{name}: {value}, {allowed}.")
