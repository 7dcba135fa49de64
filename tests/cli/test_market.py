"""The market of a configuration: bars, and finer bars inside them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from halfstep.cli.programs.market import load_market
from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.errors import ConfigError


def test_finer_bars_reach_both_tables(shared_data: Callable[[str], Path]) -> None:
    hours = shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz")
    quarters = shared_data("EURUSD_M15_mt5_2022-01_2024-01.csv.gz")
    config = merged(
        Config(), {"data": {"bars": hours, "detail": quarters}, "broker": {"intrabar": "m1"}}, source="test"
    )
    market = load_market(config)
    for table in (market.table, market.test_table):
        assert table.detail is not None
        assert table.detail.missing == 0  # all 12,963 hours are made of their quarters


def test_finer_bars_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detail: .*M15.csv, but no bars\. Name both files\."):
        merged(Config(), {"data": {"detail": tmp_path / "M15.csv"}}, source="test")
