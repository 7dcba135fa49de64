"""The commands about bars: ``data import``, ``data check``, ``lookahead``, ``warmup``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfstep.cli.main import main
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars

Captured = pytest.CaptureFixture[str]
SharedData = Callable[[str], Path]

LEAKS = """
import numpy as np
from halfstep.market.features import FeatureColumn, FeatureSet

def next_close(bars):
    return np.append(bars.close[1:], bars.close[-1])

LEAKY = FeatureSet(name="leaky", version=1, columns=(FeatureColumn(name="next", compute=next_close, warmup=0),))
"""


def run(capsys: Captured, *argv: str) -> tuple[int, str, str]:
    """Run a command; returns exit status, output and errors."""
    status = main(list(argv))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Return a made-up MetaTrader 5 export."""
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(random_bars(900, seed=1), path)
    return path


def test_import_writes_what_it_read(export: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    status, text, _ = run(capsys, "data", "import", str(export), "--out", str(out))
    assert status == 0
    for word in ("EURUSD H1", "server-eu", "assumed", "quality", "bid"):
        assert word in text
    (written,) = out.glob("*.parquet")
    ours, source = read_bars(written), read_bars(export)
    assert ours.hash == source.hash
    assert not list(out.glob("*tmp*"))


def test_import_of_a_bad_file_writes_nothing(export: Path, tmp_path: Path, capsys: Captured) -> None:
    lines = export.read_text(encoding="utf-8").splitlines()
    bad = tmp_path / "GBPUSD_H1.csv"
    cells = lines[5].split("\t")
    cells[3] = "0.5"  # the high, far below the others
    bad.write_text("\n".join([*lines[:5], "\t".join(cells), *lines[6:]]), encoding="utf-8")
    out = tmp_path / "out"
    status, text, errors = run(capsys, "data", "import", str(export), str(bad), "--out", str(out))
    assert status == 2
    assert text == ""
    assert len(errors.strip().splitlines()) == 1
    assert "GBPUSD_H1.csv:6: column '<HIGH>'" in errors
    assert 'repair=("widen",)' in errors
    assert not list(out.glob("*")) if out.exists() else True
    assert run(capsys, "data", "import", str(bad), "--out", str(out), "--repair", "widen")[0] == 0


def test_check_of_a_file_with_every_kind_of_fault(export: Path, tmp_path: Path, capsys: Captured) -> None:
    status, text, _ = run(capsys, "data", "check", str(export), "--json")
    report = json.loads(text)
    assert status == 0
    assert report["rows"] == 900
    assert report["zone"] == "server-eu"
    assert report["is_zone_assumed"] is True
    lines = export.read_text(encoding="utf-8").splitlines()
    lines[10], lines[11] = lines[11], lines[10]
    bad = tmp_path / "EURUSD_H1_bad.csv"
    bad.write_text("\n".join(lines), encoding="utf-8")
    status, text, _ = run(capsys, "data", "check", str(bad), "--json")
    assert status == 1
    assert "order" in {finding["code"] for finding in json.loads(text)["findings"]}
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("", encoding="utf-8")
    status, _, errors = run(capsys, "data", "check", str(nothing))
    assert status == 2
    assert "nothing.csv" in errors


def test_strict_turns_warnings_into_a_failure(export: Path, capsys: Captured) -> None:
    quiet = run(capsys, "data", "check", str(export), "--price-range", "0.5", "2.0")[0]
    assert quiet == 0
    assert run(capsys, "data", "check", str(export), "--price-range", "2.0", "3.0")[0] == 0
    assert run(capsys, "data", "check", str(export), "--price-range", "2.0", "3.0", "--strict")[0] == 1


def test_check_of_the_reference_bars(shared_data: SharedData, capsys: Captured) -> None:
    path = shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz")
    status, text, _ = run(capsys, "data", "check", str(path), "--json")
    report: dict[str, Any] = json.loads(text)
    assert status == 0
    assert (report["rows"], report["grid"]["slots"], report["grid"]["missing"]) == (12_963, 13_032, 69)
    assert report["quality"] == pytest.approx(99.47)
    codes = {finding["code"]: finding for finding in report["findings"]}
    assert set(codes) == {"zero_spread", "outlier", "volume_level", "gap", "zone"}


def test_every_format_sample_imports_or_says_why_not(
    shared_data: SharedData, tmp_path: Path, capsys: Captured
) -> None:
    folder = shared_data("formats")
    refused = {}
    for path in sorted(folder.glob("*.csv")):
        status, _, errors = run(capsys, "data", "import", str(path), "--out", str(tmp_path / path.stem))
        if status:
            assert status == 2
            assert len(errors.strip().splitlines()) == 1
            refused[path.name] = errors
    trades = {name for name in refused if name.startswith(("mql5_", "mt4_statement"))}
    assert set(refused) - trades == {"fxcm_bid_ask.csv"}
    assert len(trades) == 4
    assert all("These are trades" in refused[name] for name in trades)


def test_built_in_features_do_not_look_ahead_and_settle(export: Path, capsys: Captured) -> None:
    for name in ("robust9", "published9"):
        status, text, _ = run(capsys, "lookahead", "--bars", str(export), "--features", name)
        assert status == 0
        assert "None of 9 columns depends on the future" in text
    write_bars(random_bars(4000, seed=2), export)
    assert run(capsys, "warmup", "--bars", str(export))[0] == 0


def test_a_planted_leak_is_found(export: Path, tmp_path: Path, capsys: Captured) -> None:
    source = tmp_path / "leaky.py"
    source.write_text(LEAKS, encoding="utf-8")
    status, text, _ = run(capsys, "lookahead", "--bars", str(export), "--features", str(source))
    assert status == 1
    assert "next" in text


def test_a_warm_up_that_is_declared_too_short_is_found(
    export: Path, tmp_path: Path, capsys: Captured
) -> None:
    source = tmp_path / "short.py"
    source.write_text(
        LEAKS.replace("np.append(bars.close[1:], bars.close[-1])", "np.cumsum(bars.close - bars.close[0])"),
        encoding="utf-8",
    )
    write_bars(random_bars(4000, seed=2), export)
    status, _, _ = run(capsys, "warmup", "--bars", str(export), "--features", str(source))
    assert status == 1
    assert np.isfinite(read_bars(export).close).all()
