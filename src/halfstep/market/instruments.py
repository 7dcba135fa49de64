"""What is traded: sizes, steps, limits and costs of a symbol, with presets for common ones.

The presets are round, indicative figures of no particular broker, because quotes differ more between brokers
than any preset could promise; every run prints the ones it used.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from halfstep.errors import ConfigError

Profile = Literal["standard", "raw", "free"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Instrument:
    """A symbol's contract. Prices are counted in points of ``1 / 10**digits``, volumes in lots."""

    symbol: str
    """Name of the pair or metal, upper case."""
    base: str
    """Currency of the margin."""
    quote: str
    """Currency of the profit."""
    digits: int = 5
    """Decimals of a price, 0 to 8."""
    contract_size: float = 100_000.0
    """Units of the base currency in one lot."""
    lot_min: float = 0.01
    """Least volume of a position, lots; a whole multiple of the step."""
    lot_step: float = 0.01
    """Grid of volumes, lots."""
    lot_max: float = 100.0
    """Largest volume of a side, lots; a whole multiple of the step."""
    stops_level_points: int = 0
    """Least distance of stop and target from the price, points."""
    spread_floor_points: int = 10
    """Least spread ever charged, points; demo feeds show far too small ones."""
    commission: float = 0.0
    """Account currency per lot and side."""
    swap_mode: Literal["points", "percent"] = "points"
    """Swap as points per lot and night, or as percent a year of the price."""
    swap_long: float = 0.0
    """Swap of a long position; positive is received."""
    swap_short: float = 0.0
    """Swap of a short position; positive is received."""
    swap_days: tuple[int, ...] = (1, 1, 3, 1, 1, 0, 0)
    """Nights charged at the rollover that ends Monday, Tuesday, ..., Sunday."""
    margin_rate: float = 1.0
    """Multiplies contract value / leverage."""
    hedged_contract_size: float | None = None
    """Units charged per lot held on both sides; None = the contract size."""
    level_scale_points: int = 1000
    """Points that a stop or target fraction of 1.0 in an action means."""
    sessions: Literal["fx", "metals", "always"] = "fx"
    """Trading week on the New York clock."""

    def __post_init__(self) -> None:
        for name in ("symbol", "base", "quote"):
            text = getattr(self, name)
            if text != text.upper() or not text:
                raise ConfigError(f"{name}: {text!r}, must be upper case.")
        if not 0 <= self.digits <= 8:
            raise ConfigError(f"digits: {self.digits}, must be 0 to 8.")
        for name in ("contract_size", "lot_min", "lot_step", "lot_max", "margin_rate", "level_scale_points"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: {value}, must be above 0.")
        for name in ("stops_level_points", "spread_floor_points", "commission"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}: {value}, must be 0 or more.")
        for name in ("lot_min", "lot_max"):
            steps = getattr(self, name) / self.lot_step
            if abs(steps - round(steps)) > 1e-6:
                raise ConfigError(
                    f"{name}: {getattr(self, name)}, must be a whole multiple of lot_step {self.lot_step}."
                )
        if self.hedged_contract_size is not None and not self.hedged_contract_size > 0:
            raise ConfigError(f"hedged_contract_size: {self.hedged_contract_size}, must be above 0.")
        for name, allowed in (("swap_mode", ("points", "percent")), ("sessions", ("fx", "metals", "always"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: {getattr(self, name)!r}, must be one of {', '.join(allowed)}.")
        if not (math.isfinite(self.swap_long) and math.isfinite(self.swap_short)):
            raise ConfigError(f"swap_long, swap_short: {self.swap_long}, {self.swap_short}, must be finite.")
        if len(self.swap_days) != 7 or min(self.swap_days) < 0:
            raise ConfigError(f"swap_days: {self.swap_days}, must be seven numbers of nights, Monday first.")

    @property
    def point(self) -> float:
        """Size of one point, in price."""
        return 1 / 10.0**self.digits

    @property
    def point_value(self) -> float:
        """Quote currency per point and lot: EURUSD 1.00 USD, USDJPY 100 JPY."""
        return self.contract_size / 10.0**self.digits


def _preset(symbol: str, floor: int, swap: tuple[float, float], **others: object) -> Instrument:
    return Instrument(
        symbol=symbol,
        base=symbol[:3],
        quote=symbol[3:],
        spread_floor_points=floor,
        swap_long=swap[0],
        swap_short=swap[1],
        **others,  # type: ignore[arg-type]  # keyword arguments of the dataclass, checked by it
    )


PRESETS = {
    preset.symbol: preset
    for preset in (
        _preset("EURUSD", 10, (-6.5, 1.5)),
        _preset("GBPUSD", 14, (-3.0, -2.5)),
        _preset("USDJPY", 12, (10.0, -24.0), digits=3),
        _preset("USDCAD", 16, (1.0, -6.0)),
        _preset("EURGBP", 14, (-5.0, 1.0)),
        _preset(
            "XAUUSD",
            25,
            (-30.0, 12.0),
            digits=2,
            contract_size=100.0,
            level_scale_points=2000,
            sessions="metals",
        ),
        _preset(
            "BTCUSD",
            3000,
            (-20.0, -5.0),
            digits=2,
            contract_size=1.0,
            level_scale_points=200_000,
            lot_max=10.0,
            margin_rate=10.0,
            swap_mode="percent",
            swap_days=(1,) * 7,
            sessions="always",
        ),
    )
}


def instrument(name: str, *, profile: Profile = "standard") -> Instrument:
    """Return the preset of a symbol, whatever the broker appends to it (``"EURUSDm"``, ``"eurusd."``).

    Args:
        name: the symbol as the broker spells it; the longest known prefix counts.
        profile: ``"standard"`` (spread, no commission), ``"raw"`` (floor of 2 points, commission 3.50 per lot
            and side) or ``"free"`` (no costs at all).

    Raises:
        ConfigError: no preset fits; the message lists the known ones.
    """
    known = max((symbol for symbol in PRESETS if name.upper().startswith(symbol)), key=len, default=None)
    if known is None:
        raise ConfigError(
            f"symbol: {name!r}, must begin with one of {', '.join(PRESETS)}. "
            "For another one build Instrument(symbol=..., base=..., quote=..., digits=..., contract_size=...)."
        )
    preset = PRESETS[known]
    if profile == "raw":
        return replace(preset, spread_floor_points=2, commission=3.5)
    if profile == "free":
        return replace(preset, spread_floor_points=0, commission=0.0, swap_long=0.0, swap_short=0.0)
    return preset
