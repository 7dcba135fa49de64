"""The value that the page and its twins are made of."""

import json
import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.backtest import content
from halfstep.backtest.content import ROW_GROUPS, SCHEMA, TABLES, Banner, Report
from halfstep.backtest.figures import Row, Table, Unit, money, number, percent, table, text_of


def row(key: str, value: float | None) -> Row:
    return Row(
        key=key, label=key.title(), value=value, text=money(value), unit="money", definition="what it is",
        interval=None if value is None else (value - 1, value + 1),
    )  # fmt: skip


def report() -> Report:
    return Report(
        title="EURUSD H1", verdict="Cannot be told from random trading (p = 0.41).", currency="USD",
        representative="seed 3", banners=(Banner("few", "26 positions: too few."),), settings=(row("a", None),),
        summary=(row("b", 1.5),), tester=(row("c", -0.0),), ours=(), uncertainty=(row("d", 2.0),),
        remarks=(("forecast", "Skill is not above 0."),), assumptions=("one",), limits=(), versions=(("numpy", "2"),),
        tables=(table(content.COSTS, [{"part": "spread", "money": float("nan")}, {"part": "net", "money": 1e-9}]),),
    )  # fmt: skip


def test_a_stored_report_is_the_same_report() -> None:
    before = report()
    words = json.loads(json.dumps(before.as_dict(), allow_nan=False))
    after = Report.of(words, {each.kind.key: each.frame for each in before.tables})
    assert after.as_dict() == before.as_dict()
    assert [a.frame.equals(b.frame) for a, b in zip(after.tables, before.tables, strict=True)] == [True]
    assert after.row("d").interval == (1.0, 3.0)
    assert after.table("costs") is not None
    assert after.table("seeds") is None
    with pytest.raises(ValueError, match=r"schema: 'other', must be 'halfstep\.report/1'"):
        Report.of(words | {"schema": "other"}, {})
    assert words["schema"] == SCHEMA


def test_a_table_has_the_columns_of_its_kind() -> None:
    with pytest.raises(ValueError, match=r"table costs: columns \['money'\], must be \['part', 'money'\]"):
        Table(content.COSTS, pl.DataFrame({"money": [1.0]}))
    costs = report().tables[0]
    assert costs.frame["money"].to_list() == [None, 1e-9]
    assert costs.texts() == [("spread", "--"), ("net", "0.00")]


def test_names_are_unique() -> None:
    keys = [kind.key for kind in TABLES]
    assert len(set(keys)) == len(keys)
    assert len(keys) == sum(isinstance(value, content.TableKind) for value in vars(content).values())
    for kind in TABLES:
        names = [column.name for column in kind.columns]
        assert len(set(names)) == len(names), kind.key
    assert {"settings", "summary", "tester", "ours", "uncertainty"} == set(ROW_GROUPS)


@given(
    st.one_of(st.floats(), st.integers(-(10**12), 10**12).map(float)),
    st.sampled_from(["money", "share", "ratio", "growth", "count", "lots", "price", "points", "bytes", "ms", "error", "skill"]),
)  # fmt: skip
def test_texts_never_show_what_is_no_number(value: float, unit: Unit) -> None:
    text = text_of(value, unit)
    assert "nan" not in text.lower()
    assert "inf" not in text.lower()
    if math.isfinite(value):
        assert not (text.startswith("-") and not text.strip("-0.%")), text
    else:
        assert text == "--"


def test_texts_by_hand() -> None:
    assert money(1234567.894).replace("\u00a0", " ") == "1 234 567.89"
    assert (percent(0.1927), percent(-0.00001), number(12.806), money(None)) == (
        "19.27%",
        "0.00%",
        "12.81",
        "--",
    )
    assert (text_of(3661.0, "seconds"), text_of(183_600.4, "seconds")) == ("1:01:01", "2 d 3:00:00")
    assert (text_of(0.12, "skill"), text_of(-0.0001, "skill"), text_of(True, "flag")) == (
        "+0.120",
        "0.000",
        "yes",
    )
    assert (text_of(1_704_189_600, "time"), text_of(1417, "count")) == ("2024-01-02 10:00", "1\u00a0417")
