"""What is traded: sizes, steps, limits and costs of a symbol, with presets for common ones.

The presets are round, indicative figures of no particular broker, because quotes differ more between brokers
than any preset could promise; every run prints the ones it used. A symbol without a preset is described by whoever
trades it: what its name does not tell must be stated.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from halfstep.errors import ConfigError

Profile = Literal["standard", "raw", "free"]
Sessions = Literal["fx", "metals", "always"]

CURRENCIES = frozenset((
    "USD", "EUR", "JPY", "GBP", "CHF", "AUD", "NZD", "CAD", "SEK", "NOK", "DKK", "PLN", "HUF", "CZK", "TRY", "ZAR",
    "MXN", "SGD", "HKD", "CNH", "RUB", "ILS", "THB",
))  # fmt: skip
METALS = frozenset(("XAU", "XAG", "XPT", "XPD"))
THREE_DIGITS = frozenset(("JPY", "HUF", "THB"))  # quote currencies of three decimals; other pairs have five


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
    sessions: Sessions = "fx"
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


PROFILES: dict[Profile, dict[str, Any]] = {
    "standard": {},
    "raw": {"spread_floor_points": 2, "commission": 3.5},
    "free": {"spread_floor_points": 0, "commission": 0.0, "swap_long": 0.0, "swap_short": 0.0},
}

UNTOLD = {  # by no name; with the words of a command line that state them
    "quote": "--instrument.quote USD",
    "digits": "--instrument.digits 2",
    "contract_size": "--instrument.contract-size 1",
    "level_scale_points": "--instrument.level-scale-points 1000",
    "spread_floor_points": "--broker.spread-floor-points 20",
    "swap_long": "--instrument.swap-long -5",
    "swap_short": "--instrument.swap-short -2",
}


def instrument(name: str, *, profile: Profile = "standard", **stated: Any) -> Instrument:
    """Return the contract of a symbol: its preset with what is stated, or what is stated alone.

    A symbol without a preset takes base and quote from its name if that is a pair (``"USDCHF"``), 100,000 units a lot
    if it is a pair of currencies, and nothing else: its costs, and the size of anything that is no pair, are stated.

    >>> instrument("EURUSDm").spread_floor_points, instrument("EURUSDm", digits=4).spread_floor_points
    (10, 1)
    >>> instrument("USDCHF", spread_floor_points=15, swap_long=4.0, swap_short=-10.0).point_value
    1.0

    Args:
        name: the symbol as the broker spells it; the longest known prefix counts (``"EURUSDm"``, ``"eurusd."``).
        profile: ``"standard"`` (spread, no commission), ``"raw"`` (floor of 2 points, commission 3.50 per lot
            and side) or ``"free"`` (no costs at all).
        stated: fields of `Instrument`, which win. Points are those of the stated digits; what the preset says
            in points is converted to them.

    Raises:
        ConfigError: there is no preset, and something is not stated; the message lists what, and the presets. Or
            another swap mode is stated, and not the swaps, which would be read in another unit.
    """
    known = preset_of(name) or _pair(name.upper())
    if known is not None:
        known = _with_digits(replace(known, **PROFILES[profile]), stated.get("digits", known.digits))
    missing = _untold(name, {**PROFILES[profile], **stated})
    if missing:
        raise ConfigError(
            f"symbol: {name!r} has no preset (those are {', '.join(PRESETS)}), and these are not stated: "
            f"{', '.join(missing)}. Write for example {' '.join(UNTOLD[field] for field in missing)}, "
            "with your broker's figures."
        )
    if known is not None:
        _check_swaps(known, stated)
        return replace(known, **stated)
    letters = name.upper()
    return Instrument(
        **{"symbol": letters, "base": letters, "sessions": "always", **PROFILES[profile], **stated}
    )


def preset_of(symbol: str) -> Instrument | None:
    """Return the preset whose name a symbol begins with (the longest), or None."""
    known = [name for name in PRESETS if symbol.upper().startswith(name)]
    return PRESETS[max(known, key=len)] if known else None


def is_pair(letters: str) -> bool:
    """Return whether upper-case letters begin with a currency or metal and another currency."""
    return letters[:3] in CURRENCIES | METALS and letters[3:6] in CURRENCIES and letters[:3] != letters[3:6]


def sessions_of(symbol: str) -> Sessions:
    """Return the trading week of a symbol: of its preset, ``"fx"`` for two currencies, ``"metals"``, or ``"always"``."""
    preset = preset_of(symbol)
    if preset is not None:
        return preset.sessions
    letters = symbol.upper()
    if not is_pair(letters):
        return "always"
    return "metals" if letters[:3] in METALS else "fx"


def _untold(name: str, stated: dict[str, Any]) -> list[str]:
    """Return the fields that neither a preset, nor the name, nor anybody tells."""
    letters = name.upper()
    if preset_of(name):
        return []
    told = {"quote", "digits"} if is_pair(letters) else set()
    if is_pair(letters) and letters[:3] not in METALS:
        told |= {"contract_size", "level_scale_points"}
    return [field for field in UNTOLD if field not in told and field not in stated]


def _check_swaps(known: Instrument, stated: dict[str, Any]) -> None:
    """Refuse swaps of a preset in a unit that is not theirs."""
    mode = stated.get("swap_mode", known.swap_mode)
    if mode != known.swap_mode and not {"swap_long", "swap_short"} <= stated.keys():
        raise ConfigError(
            f"swap_mode: {mode!r}, but the swaps of {known.symbol} are in {known.swap_mode}. "
            "State both: --instrument.swap-long, --instrument.swap-short."
        )


def _pair(letters: str) -> Instrument | None:
    """Return what the name of a pair tells, with no costs."""
    if not is_pair(letters):
        return None
    digits = 3 if letters[3:6] in THREE_DIGITS else 5
    return Instrument(
        symbol=letters[:6], base=letters[:3], quote=letters[3:6], digits=digits, sessions=sessions_of(letters)
    )


def _with_digits(known: Instrument, digits: int) -> Instrument:
    """Return an instrument with other digits: what it says in points becomes as many points as hold the same price."""
    scale = 10.0 ** (digits - known.digits)
    swaps = scale if known.swap_mode == "points" else 1.0
    return replace(
        known,
        digits=digits,
        stops_level_points=_whole(known.stops_level_points * scale),
        spread_floor_points=_whole(known.spread_floor_points * scale),
        level_scale_points=_whole(known.level_scale_points * scale),
        swap_long=known.swap_long * swaps,
        swap_short=known.swap_short * swaps,
    )


def _whole(points: float) -> int:
    """Return points rounded up, but for what floating point adds: 30 x 0.1 are 3."""
    return math.ceil(points - 1e-9)
