"""The rules of an account: deposit, leverage, costs, and how a bar is resolved."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self, get_args

from halfstep.errors import ConfigError
from halfstep.market.instruments import Instrument

Intrabar = Literal["stop_first", "target_first", "adaptive", "mt5_ohlc", "m1"]
INTRABAR: tuple[Intrabar, ...] = get_args(Intrabar)
GAP_FILL = ("conservative", "market", "level")
WORDS = {
    "account_mode": ("hedging", "netting"),
    "volume_unit": ("lots", "lots_per_10k"),
    "zero_level": ("reject", "none"),
    "intrabar": INTRABAR,
    "gap_fill": GAP_FILL,
}


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
    account_mode: Literal["hedging", "netting"] = "hedging"
    """How deals are shown: netting joins the two deals of a reversal into one in/out deal. The money is the same."""
    net_opposite: bool = True
    """Opposite volumes of one action cancel, so one side at most is held. False: both sides may be held."""
    lot_cap: float = 1.0
    """Most lots held per side, within the instrument's own maximum."""
    volume_unit: Literal["lots", "lots_per_10k"] = "lots"
    """Meaning of an action's volume: lots, or lots per 10,000 of equity at the last close."""
    hold_band_steps: int = 0
    """A change of volume of at most this many lot steps is not made."""
    zero_level: Literal["reject", "none"] = "reject"
    """A stop or target of 0 points fails the distance test (reject) or means no level (none)."""
    intrabar: Intrabar = "stop_first"
    """Which level counts first when one bar touches both. stop_first is the careful reading; target_first is for
    sensitivity runs only; adaptive takes the level nearer to the open; mt5_ohlc the low first in rising bars; m1
    asks finer bars, and is careful where there are none."""
    gap_fill: Literal["conservative", "market", "level"] = "conservative"
    """Price of a level the market jumped over: conservative gives stops the open and targets their level,
    market gives both the open, level gives both their level."""
    spread_floor_points: int | None = None
    """Least spread charged, points. Default: the instrument's."""
    commission: float | None = None
    """Account currency per lot and side. Default: the instrument's."""
    slippage_points: int = 0
    """Adverse points on market orders, stops and stop-outs; never on a target."""
    slippage_random_points: int = 0
    """Up to so many more, drawn anew for each event from the account's seed."""
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
    delay_bars: int = 0
    """Bars by which every action is executed later than the next open."""

    def __post_init__(self) -> None:
        for name in ("deposit", "leverage", "lot_cap"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "must be above 0")
        for name in (
            "hold_band_steps", "slippage_points", "slippage_random_points", "cost_scale", "idle_lots", "delay_bars",
        ):  # fmt: skip
            _check(name, getattr(self, name), getattr(self, name) >= 0, "must be 0 or more")
        for name in ("spread_floor_points", "commission"):
            value = getattr(self, name)
            _check(name, value, value is None or value >= 0, "must be 0 or more")
        _check("stop_out", self.stop_out, 0 < self.stop_out < 1, "must lie between 0 and 1")
        _check("floor_fraction", self.floor_fraction, 0 < self.floor_fraction < 1, "must lie between 0 and 1")
        for name, words in WORDS.items():
            _check(
                name, getattr(self, name), getattr(self, name) in words, f"must be one of {', '.join(words)}"
            )
        if self.account_mode == "netting" and not self.net_opposite:
            raise ConfigError(
                "net_opposite: False, must be True where account_mode is netting: such an account holds one side. "
                "Use account_mode = hedging."
            )

    @classmethod
    def mt5(cls, **fields: object) -> Self:
        """Return the habits of MetaTrader's tester in its mode "1 minute OHLC": generous, and never the default."""
        return replace(cls(intrabar="mt5_ohlc", gap_fill="level"), **fields)  # type: ignore[arg-type]

    @property
    def floor(self) -> float:
        """Equity at or below which the account is ruined, account currency."""
        return self.floor_fraction * self.deposit

    @property
    def pricing(self) -> tuple[str, float, int | None]:
        """What of these rules a `MarketTable` was made with: currency, scale of costs, floor of the spread."""
        return self.currency, self.cost_scale, self.spread_floor_points


def rules_hash(rules: AccountRules, instrument: Instrument) -> str:
    """Return a SHA-256 of every field of both; stores and checkpoints carry it."""
    fields = {"rules": asdict(rules), "instrument": asdict(instrument)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _check(name: str, value: object, holds: bool, allowed: str) -> None:
    finite = not isinstance(value, float) or math.isfinite(value)
    if not (holds and finite):
        raise ConfigError(f"{name}: {value}, {allowed}.")
