"""Everything a program needs to know of the market: bars, features, spans, instrument, account table."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.config.tables import Config
from halfstep.experience.store import StoreHeader
from halfstep.market.bars import Bars
from halfstep.market.calendar import iso
from halfstep.market.features import Features, compute_features
from halfstep.market.indicators import atr_points
from halfstep.market.instruments import Instrument, instrument
from halfstep.market.read import default_bars, read_bars
from halfstep.market.splits import Split, SplitSpans, choose_split, split_spans
from halfstep.market.synthetic import random_bars

MADE_UP_SEED = 1  # of the bars, whatever the seed of a run


class Rates(TypedDict, total=False):
    """Bars of the connecting symbols that a configuration names, as arguments of `market_table`."""

    profit_rate: Bars
    margin_rate: Bars


@dataclass(frozen=True, kw_only=True)
class Market:
    """Frozen inputs of every stage, made from a configuration alone."""

    bars: Bars
    features: Features
    split: Split
    spans: SplitSpans
    instrument: Instrument
    rules: AccountRules
    table: MarketTable
    test_rules: AccountRules
    test_table: MarketTable
    discount: float
    rates: Rates

    @property
    def store_header(self) -> StoreHeader:
        """What trajectories over this market carry."""
        return StoreHeader.of(
            self.bars, feature_set=self.features.set_id, rules=self.rules, instrument=self.instrument,
            discount=self.discount, other_bars=self.other_bars,
        )  # fmt: skip

    @property
    def other_bars(self) -> dict[str, Bars]:
        """Bars beside the traded ones that decide what is filled and earned in training."""
        detail = self.table.detail
        fine = None if detail is None or self.rules.intrabar != "m1" else detail.bars
        others = {
            "detail": fine, "profit_rate": self.rates.get("profit_rate"), "margin_rate": self.rates.get("margin_rate"),
        }  # fmt: skip
        return {name: each for name, each in others.items() if each is not None}


def market_facts(market: Market) -> dict[str, str | int]:
    """Return what identifies the data of a run, for its manifest."""
    bars = market.bars
    detail = market.table.detail
    others = {
        "detail": None if detail is None else detail.bars,
        "profit_rate": market.rates.get("profit_rate"), "margin_rate": market.rates.get("margin_rate"),
    }  # fmt: skip
    return {
        **{name: f"{each.symbol} {each.timeframe.name} {each.hash}" for name, each in others.items() if each},
        "path": "made up" if bars.source.path is None else str(bars.source.path),
        "sha256": str(bars.source.sha256), "hash": bars.hash, "bars": len(bars), "symbol": bars.symbol,
        "first": iso(int(bars.server_time[0])), "last": iso(int(bars.server_time[-1])), "zone": bars.zone.name,
        "side": bars.side, "feature_set": market.features.set_id,
    }  # fmt: skip


def load_bars(config: Config) -> Bars:
    """Return the bars a configuration names."""
    data = config.data
    if data.made_up:
        return random_bars(data.made_up, seed=MADE_UP_SEED)
    if data.bars is None:
        return default_bars()
    return _read(config, data.bars, symbol=data.symbol, digits=config.instrument.digits)


def load_rates(config: Config) -> Rates:
    """Return the bars for conversion that a configuration names."""
    data, rates = config.data, Rates()
    if data.profit_rate is not None:
        rates["profit_rate"] = _read(config, data.profit_rate, symbol=None, digits=None)
    if data.margin_rate is not None:
        rates["margin_rate"] = _read(config, data.margin_rate, symbol=None, digits=None)
    return rates


def _read(config: Config, path: Path, *, symbol: str | None, digits: int | None) -> Bars:
    data = config.data
    return read_bars(path, symbol=symbol, zone=data.zone, side=data.side, digits=digits, repair=data.repair)


def traded_instrument(config: Config, bars: Bars) -> Instrument:
    """Return the contract of the bars' symbol: its preset, with what the configuration states.

    Raises:
        ConfigError: the symbol has no preset, and what is not stated; or a wrong figure.
    """
    stated = {"digits": bars.digits, **config.instrument.stated}
    if config.broker.spread_floor_points is not None:
        stated["spread_floor_points"] = config.broker.spread_floor_points
    return instrument(bars.symbol, profile=config.instrument.profile, **stated)


def load_market(config: Config, *, with_test: bool = True) -> Market:
    """Return the market of a configuration.

    Args:
        with_test: False for programs that choose settings: the bars end before the test span, which is empty.

    Raises:
        HalfstepError: of the reader, or where the bars do not cover the spans.
    """
    bars = load_bars(config)
    given = config.split
    if given.train is None or given.validation is None or given.test is None:
        split = choose_split(bars)
    else:
        split = Split(train=given.train, validation=given.validation, test=given.test)
    spans = split_spans(bars, split)
    if not with_test:
        end = spans.test[0]
        bars, spans = bars.slice(0, end), replace(spans, test=(end, end))
    traded = traded_instrument(config, bars)
    rules = config.broker
    closing = replace(rules, close_at_end=True)
    atr = atr_points(bars)
    detail = None
    if config.data.detail is not None:
        detail = _read(config, config.data.detail, symbol=config.data.symbol, digits=config.instrument.digits)
        detail = detail.slice(0, int(np.searchsorted(detail.time, bars.close_time[-1])))
    rates = load_rates(config)
    return Market(
        bars=bars,
        features=compute_features(bars, config.data.features),
        split=split,
        spans=spans,
        instrument=traded,
        rules=rules,
        table=market_table(bars, traded, rules, detail=detail, atr_points=atr, **rates),
        test_rules=closing,
        test_table=market_table(bars, traded, closing, detail=detail, atr_points=atr, **rates),
        discount=config.research.discount,
        rates=rates,
    )
