"""``halfstep report``: a page comes back byte for byte, runs are put side by side, output is for people or machines."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from halfstep.backtest.content import Report
from halfstep.cli.main import main
from halfstep.cli.programs.report import write_report

from .made_up import made_up_report
from .test_html import Reader

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with a report."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    write_report(made_up_report(positions=130), folder)
    return folder


@pytest.fixture
def halfstep(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a command line in an empty folder: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Again(NamedTuple):
    """What building a page again gave."""

    status: int
    out: str
    err: str
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def again(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Again:
    """Delete what can be derived, and build it again."""
    copy = tmp_path_factory.mktemp("again") / "copy"
    shutil.copytree(run, copy)
    before = files_of(copy)
    (copy / "report" / "report.html").unlink()
    for path in (copy / "report" / "tables").glob("*.csv"):
        path.unlink()
    for name in ("metrics", "baselines", "seeds", "monthly", "optimizers", "forecast"):
        (copy / "report" / "tables" / f"{name}.parquet").unlink()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["report", str(copy), "--json"])
    return Again(status, out.getvalue(), err.getvalue(), before, files_of(copy))


def test_what_was_deleted_comes_back_byte_for_byte(again: Again) -> None:
    assert again.status == 0
    assert again.after == again.before


def test_json_stands_alone_on_standard_output(again: Again) -> None:
    assert again.out.encode() == again.after["report/metrics.json"]
    assert json.loads(again.out)["schema"] == "halfstep.report/1"


def test_a_pipe_gets_plain_words(again: Again) -> None:
    assert "Cannot be told from random trading" in again.err
    assert again.err.rstrip().endswith("copy/report/report.html")
    assert "\x1b" not in again.err
    assert "\u00a0" not in again.err
    assert re.search(r"always long +│ +-310\.20", again.err)
    assert max(len(line) for line in again.err.splitlines() if "│" in line) <= 132


def test_several_runs_stand_side_by_side(halfstep: Run, run: Path, tmp_path: Path) -> None:
    write_report(made_up_report(positions=40, seed=1, bars=300), tmp_path / "second")
    status, out, err = halfstep("report", run, tmp_path / "second", "--out", tmp_path / "both", "--json")
    assert status == 0
    words = json.loads(out)
    assert words["schema"] == "halfstep.comparison/1"
    assert [each["name"] for each in words["runs"]] == ["first", "second"]
    reader = Reader((tmp_path / "both" / "report.html").read_text())
    reports: list[Report] = [made_up_report(positions=130), made_up_report(positions=40, seed=1, bars=300)]
    for number, report in enumerate(reports):
        for group in (report.summary, report.tester, report.ours, report.uncertainty):
            for row in group:
                assert reader.texts[f"{number}.{row.key}"] == row.text
                assert words["runs"][number]["rows"][row.key] == row.value
    assert "40 positions: too few" in reader.visible
    assert "second: Cannot be told" in err
    assert halfstep("report", run, tmp_path / "second", "--out", tmp_path / "both")[0] == 2


def test_other_bars_are_pointed_out(halfstep: Run, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    path = tmp_path / "other" / "report" / "metrics.json"
    path.write_text(path.read_text().replace('"text": "EURUSD"', '"text": "USDJPY"'))
    _, _, err = halfstep("report", run, tmp_path / "other", "--out", tmp_path / "both")
    assert "Not the same in all runs: Symbol." in err
    assert "Not the same in all runs: Symbol." in (tmp_path / "both" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no folder of a run was given"),
        (("nowhere",), "nowhere: no such folder"),
        (("empty",), "empty/report/metrics.json: not there"),
        (("old",), "not a report of this version"),
        (("old", "--out", "x"), "--out is for several runs"),
    ],
)
def test_wrong_input_is_named(
    halfstep: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "old" / "report" / "tables").mkdir(parents=True)
    (tmp_path / "old" / "report" / "metrics.json").write_text('{"schema": "halfstep.report/0"}')
    status, out, err = halfstep("report", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
