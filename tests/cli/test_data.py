"""The commands about bars: ``data import``, ``data check``, ``lookahead``, ``warmup``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfstep.cli.main import main
from halfstep.market.bars import Bars
from halfstep.market.parquet import write_parquet
from halfstep.market.read import default_bars, read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars

Captured = pytest.CaptureFixture[str]
SharedData = Callable[[str], Path]

FEATURES = """
import numpy as np
from halfstep.market.features import FeatureColumn, FeatureSet
from halfstep.market.indicators import median_before

def compute(bars):
    return {body}

PLANTED = FeatureSet(name="planted", version=1, columns=(FeatureColumn("x", compute, {warmup}),))
"""


def features_file(path: Path, body: str, *, warmup: int = 0) -> Path:
    """Write a file of features with one column, x."""
    path.write_text(FEATURES.format(body=body, warmup=warmup), encoding="utf-8")
    return path


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
    assert not out.exists()
    assert run(capsys, "data", "import", str(bad), "--out", str(out), "--repair", "widen")[0] == 0


def test_import_writes_all_files_or_none(
    export: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "GBPUSD_H1.mt5.csv"
    write_bars(random_bars(300, seed=2), other)
    out = tmp_path / "out"
    command = ("data", "import", str(export), str(other), "--out", str(out))

    def full(bars: Bars, path: Path) -> None:
        write_parquet(bars, path)
        if bars.symbol == "GBPUSD":
            raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("halfstep.cli.programs.data.write_parquet", full)
        status, _, errors = run(capsys, *command)
    assert (status, errors.count("\n")) == (2, 1)
    assert "No space left" in errors
    assert list(out.iterdir()) == []
    status, text, _ = run(capsys, *command, "--json")
    assert status == 0
    assert [(one["symbol"], one["bars"]) for one in json.loads(text)] == [("EURUSD", 900), ("GBPUSD", 300)]
    for one, source in zip(json.loads(text), (export, other), strict=True):
        assert read_bars(one["written"]).hash == one["hash"] == read_bars(source).hash
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 2
    status, _, errors = run(capsys, *command)
    assert status == 2
    assert "--overwrite" in errors
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run(capsys, *command, "--overwrite")[0] == 0


def test_repairs_are_made_and_counted(export: Path, tmp_path: Path, capsys: Captured) -> None:
    whole = read_bars(export)
    for flags in (("--drop-last",), ("--repair", "drop-last"), ("--repair", "drop-last", "--drop-last")):
        command = ("data", "import", str(export), "--out", str(tmp_path), "--overwrite", "--json", *flags)
        status, text, _ = run(capsys, *command)
        (one,) = json.loads(text)
        assert (status, one["bars"]) == (0, 899)
        assert one["repairs"] == ["drop-last: 1 row (line 901)"]
        assert np.array_equal(read_bars(one["written"]).close, whole.close[:-1])


def test_the_default_bars_can_be_checked(capsys: Captured) -> None:
    """The tutorial says to leave the file out everywhere."""
    status, text, _ = run(capsys, "data", "check", "--json")
    report = json.loads(text)
    assert (status, report["rows"], report["symbol"], report["timeframe"]) == (0, 6225, "EURUSD", "H1")
    status, text, _ = run(capsys, "data", "check")
    assert status == 0
    assert "the bars that come with the installation" in text
    status, _, errors = run(capsys, "data", "check", "--zone", "UTC")
    assert status == 2
    assert "flags of reading are given, but no file" in errors


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


def test_check_of_made_up_bars_with_known_faults(tmp_path: Path, capsys: Captured) -> None:
    """Twin of the goldens: ten weeks of 120 slots; five bars are taken away, one has no volume, one a wick."""
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(random_bars(1200, seed=3), path)  # ends before New York changes its clock
    header, *rows = path.read_text(encoding="ascii").splitlines()
    cells = [row.split("\t") for row in rows]
    for k, row in enumerate(cells):
        row[8] = "0" if k % 10 == 0 else "7"
    cells[1000][6] = "0"  # volume: the prices moved, so the bar is wrong
    cells[1100][3] = "1.90000"  # high
    kept = [row for k, row in enumerate(cells) if k not in (700, 701, 702, 703, 900)]
    path.write_text("\n".join([header, *("\t".join(row) for row in kept)]), encoding="ascii")
    status, text, _ = run(capsys, "data", "check", str(path), "--price-range", "0.5", "1.8", "--json")
    report: dict[str, Any] = json.loads(text)
    grid = report["grid"]
    assert status == 0
    assert (report["rows"], grid["slots"], grid["missing"], grid["wrong"]) == (1195, 1200, 5, 1)
    assert report["quality"] == 99.5  # 1,194 of 1,200
    assert [gap["bars"] for gap in grid["gaps"]] == [4, 1]
    codes = {finding["code"]: finding for finding in report["findings"]}
    assert set(codes) == {"zero_spread", "zero_volume", "spike", "range", "gap", "zone"}
    line = 1100 - 5 + 2  # a header, and lines begin at 1
    assert codes["spike"]["rows"] == codes["range"]["rows"] == [line]
    assert codes["zero_volume"]["count"] == 1
    assert codes["zero_spread"]["count"] == 120 - 2  # two of them were taken away
    assert "server-eu 9 of 9" in codes["zone"]["text"]


GOLDENS = {
    "EURUSD_H1_mt5_2022-01_2024-01.csv.gz": (12_963, 13_032, 99.47),
    "GBPUSD_H1_mt5_2022-01_2024-01.csv.gz": (12_964, 13_032, 99.47),
    "EURUSD_H1_dukascopy_utc_2023-01_2024-01.csv.gz": (6_755, 6_794, 99.42),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_check_of_real_bars(name: str, shared_data: SharedData, capsys: Captured) -> None:
    status, text, _ = run(capsys, "data", "check", str(shared_data(name)), "--json")
    report: dict[str, Any] = json.loads(text)
    assert status == 0
    rows, slots, quality = GOLDENS[name]
    assert (report["rows"], report["grid"]["slots"], report["grid"]["missing"]) == (rows, slots, slots - rows)
    assert report["quality"] == quality


def test_check_of_the_reference_bars(shared_data: SharedData, capsys: Captured) -> None:
    path = str(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    report: dict[str, Any] = json.loads(run(capsys, "data", "check", path, "--json")[1])
    gaps = {str(np.datetime64(gap["start"], "s"))[:10]: gap["bars"] for gap in report["grid"]["gaps"]}
    long = {"2022-12-26": 9, "2023-01-02": 7, "2023-12-25": 22, "2024-01-01": 24}
    days = ("2022-03-13", "2022-03-20", "2022-10-30", "2023-03-12", "2023-03-19", "2023-07-14", "2023-10-29")
    assert gaps == {**long, **dict.fromkeys(days, 1)}
    codes = {finding["code"]: finding for finding in report["findings"]}
    assert set(codes) == {"zero_spread", "outlier", "volume_level", "gap", "zone"}
    assert "82.6 %" in codes["zero_spread"]["text"]
    assert codes["outlier"]["count"] == 4
    assert "in 2024-01 (3.38 times):" in codes["volume_level"]["text"]
    assert "server-eu 107 of 108, server-us 101 of 108" in codes["zone"]["text"]
    assert run(capsys, "data", "check", path, "--strict")[0] == 1


def test_check_of_the_default_bars(capsys: Captured) -> None:
    path = default_bars().source.path
    assert path is not None
    status, _, errors = run(capsys, "data", "check", str(path), "--json")
    assert status == 2
    assert "--zone" in errors
    status, text, _ = run(capsys, "data", "check", str(path), "--zone", "UTC", "--json")
    report = json.loads(text)
    assert status == 0
    assert (report["rows"], report["grid"]["slots"], report["quality"]) == (6_225, 6_240, 99.75)
    assert report["side"] == "ask"


def test_lines_are_those_of_the_file_and_bars_those_of_the_import(
    export: Path, tmp_path: Path, capsys: Captured
) -> None:
    lines = export.read_text(encoding="ascii").splitlines()
    cells = lines[700].split("\t")
    cells[3] = "1.90000"
    export.write_text("\n".join([*lines[:700], "\t".join(cells), *lines[701:]]), encoding="ascii")
    _, checked, _ = run(capsys, "data", "check", str(export))
    _, read, _ = run(capsys, "data", "import", str(export), "--out", str(tmp_path))
    assert "(line 701)" in " ".join(checked.replace("│", " ").split())
    assert "(bar 700)" in " ".join(read.replace("│", " ").split())


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


PLANTED = {
    "whole_span": "(bars.close - bars.close.mean()) / bars.close.std()",
    "centred": "np.convolve(np.pad(bars.close, 2, mode='edge'), np.full(5, 0.2), mode='valid')",
    "next_close": "np.append(bars.close[1:], np.nan)",
    "back_filled": "np.where(np.arange(len(bars)) < 14, bars.close[min(14, len(bars) - 1)], bars.close)",
    "median": "np.append(median_before(np.append(bars.volume, 0.0), 20)[2:], np.nan)",
}


@pytest.mark.parametrize("leak", PLANTED)
def test_a_planted_leak_is_found(leak: str, export: Path, tmp_path: Path, capsys: Captured) -> None:
    source = features_file(tmp_path / f"{leak}.py", PLANTED[leak])
    command = ("lookahead", "--bars", str(export), "--features", str(source))
    status, text, _ = run(capsys, *command)
    assert status == 1
    assert "1 of 1 columns depend on the future." in text
    status, text, _ = run(capsys, *command, "--json")
    (result,) = json.loads(text)
    assert status == 1
    assert {one["column"] for one in result["leaks"]} == {"x"}
    assert all(one["row"] <= one["cut"] for one in result["leaks"])


def test_a_warm_up_that_is_declared_too_short_is_found(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "EURUSD_H1.mt5.csv"
    write_bars(random_bars(1500, seed=2), path)
    mean = "np.array([bars.close[max(0, k - 99) : k + 1].mean() for k in range(len(bars))])"
    for warmup, status in ((40, 1), (98, 1), (99, 0)):  # a mean of 100 bars needs 99 earlier ones
        source = features_file(tmp_path / "mean.py", mean, warmup=warmup)
        command = ("warmup", "--bars", str(path), "--features", str(source))
        found, text, _ = run(capsys, *command)
        assert found == status
        assert ("Too short" in text) == bool(status)
        found, text, _ = run(capsys, *command, "--json")
        assert found == status
        report = json.loads(text)
        assert (report["settled"], report["too_short"]) == (warmup, ["x"] if status else [])


@pytest.mark.pitfall("U11")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "cannot be imported: invalid syntax"),
        ("import no_such_package", "cannot be imported: No module named 'no_such_package'"),
        ("import sys; sys.exit(0)", "cannot be imported: 0"),  # which is no proof
        ("", "defines 0 feature sets, must define exactly one FeatureSet"),
        ("bars.nonsense", "column 'x' of {file} cannot be computed for 900 bars: 'Bars' object has no"),
        ("bars.close[:-1]", "column 'x' of planted/1 has shape (899,), must be (900,)"),
        ("['a'] * len(bars)", "column 'x' of {file} cannot be computed for 900 bars: could not convert"),
    ],
)
def test_faulty_files_of_features_are_no_leaks(
    text: str, message: str, export: Path, tmp_path: Path, capsys: Captured
) -> None:
    source = tmp_path / "features.py"
    if "bars" in text:
        features_file(source, text)
    else:
        source.write_text(text, encoding="utf-8")
    for verb in ("lookahead", "warmup"):
        status, out, errors = run(capsys, verb, "--bars", str(export), "--features", str(source))
        assert (status, out, errors.count("\n")) == (2, "", 1)
        assert message.format(file=source) in errors


def test_a_file_of_features_may_define_dataclasses(export: Path, tmp_path: Path, capsys: Captured) -> None:
    source = features_file(tmp_path / "own.py", "bars.close")
    own = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Own:\n    n: int\n"
    source.write_text(own + source.read_text(encoding="utf-8"), encoding="utf-8")
    assert run(capsys, "lookahead", "--bars", str(export), "--features", str(source))[0] == 0


@pytest.mark.pitfall("U11")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("data", "import"), "no file to import"),
        (("data", "import", "absent.csv"), "no file at absent.csv"),
        (("data", "import", "EXPORT", "EXPORT"), "and so would another file"),
        (("data", "import", "EXPORT", "--out", "EXPORT"), "is a file, must be a folder"),
        (("data", "import", "EXPORT", "--repair", "magic"), "repair: 'magic', must be one of drop-bad"),
        (("data", "chek", "EXPORT"), "data: 'chek', must be one of import, check"),
        (("data", "check", "."), "this is a folder"),
        (("data", "check", "EXPORT", "--price-range", "3", "2"), "price_range: (3.0, 2.0)"),
        (("data", "check", "EXPORT", "--start", "2050-01-01"), "no bar between 2050-01-01 and the end"),
        (("data", "check", "EXPORT", "--zone", "Mars/Base"), "zone: 'Mars/Base'"),
        (("lookahead", "--bars", "EXPORT", "--features", "robust8"), "features: 'robust8', must be one of"),
        (("lookahead", "--bars", "EXPORT", "--features", "absent.py"), "--features: no file at"),
        (("lookahead", "--bars", "EXPORT", "--cuts", "-1"), "cuts: -1"),
        (("lookahead", "--bars", "EXPORT", "--seed", "-1"), "seed: -1"),
        (("lookahead", "--bars", "EXPORT", "--policy", "."), "no encoder in"),
        (("lookahead", "--zone", "UTC"), "zone: 'UTC', but no file is named for it. Add --bars FILE."),
        (("warmup", "--start", "2050-01-01"), "start: '2050-01-01', but no file is named for it"),
        (("warmup", "--bars", "EXPORT", "--seed", "-1"), "seed: -1"),
        (("warmup", "--bars", "EXPORT", "--stop", "2022-01-10"), "are needed to test a warm-up of"),
    ],
)
def test_wrong_input_is_one_line(
    argv: tuple[str, ...], message: str, export: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, out, errors = run(capsys, *(str(export) if word == "EXPORT" else word for word in argv))
    assert (status, out, errors.count("\n")) == (2, "", 1)
    assert message in errors
    assert "unexpected" not in errors
    assert sorted(tmp_path.iterdir()) == before
