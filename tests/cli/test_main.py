"""The command as a person meets it: help, wrong input, exit statuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from halfstep.cli.main import VERBS, main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fails_with(capsys: Captured, *argv: str) -> str:
    """Return what is printed for wrong input, which is one short message, no traceback, and exit status 2."""
    before = set(Path().rglob("*"))
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert set(Path().rglob("*")) == before, "nothing may be written"
    return message


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )


def test_help_lists_every_verb(capsys: Captured) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == text
    for verb in VERBS:
        assert f"{verb.name} " in text
        assert verb.summary in text


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_help(verb: object, capsys: Captured) -> None:
    name = verb.name  # type: ignore[attr-defined]
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"usage: halfstep {name}" in text
    if name in ("run", "show-config"):
        assert "Passes over the training span per round" in text
        assert "(default: 64)" in text
        assert "account currency" in text  # units are said


def test_help_needs_no_heavy_package() -> None:
    loaded = python(
        "import sys; from halfstep.cli.main import main; main(['--help']);"
        "print([name for name in ('torch', 'numba', 'polars', 'matplotlib', 'pydantic', 'tyro', 'numpy') if name in sys.modules])"
    ).stdout.splitlines()[-1]
    assert loaded == "[]"


@pytest.mark.pitfall("U18", "O21")
def test_import_is_silent_and_loads_no_pandas() -> None:
    done = python("import halfstep, sys; halfstep.AdamMini; assert 'pandas' not in sys.modules")
    assert (done.stdout, done.stderr) == ("", "")


def test_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "halfstep", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("halfstep 0.")


def test_unknown_verbs_and_flags_name_the_nearest(capsys: Captured) -> None:
    assert "bogus: no such verb" in fails_with(capsys, "bogus")
    assert "The nearest verb is run" in fails_with(capsys, "rnu")
    assert "--study.updates" in fails_with(capsys, "run", "--study.updats", "5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[study]\nupdats = 5\n", "study.updats: unknown key (settings.toml). The nearest known key is study.updates."),
        ("[stdy]\nupdates = 5\n", "stdy: unknown key (settings.toml). The nearest known key is study."),
        ("[study]\nupdates = 'many'\n", "study.updates: 'many', Input should be a valid integer"),
        ("[study]\nupdates = 0\n", "updates: 0, must be at least 1"),
        ("study = 5\n", "study: 5, must be a table of settings"),
        ("[study\n", "settings.toml: not a TOML file"),
    ],
)  # fmt: skip
def test_wrong_configurations_are_named(text: str, message: str, capsys: Captured) -> None:
    Path("settings.toml").write_text(text)
    for verb in ("run", "show-config"):
        assert message in fails_with(capsys, verb, "--config", "settings.toml")


HEADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"


def export(path: str, rows: int = 900) -> list[str]:
    """Write a MetaTrader export of hourly bars, and return its lines."""
    lines = [HEADER]
    for k in range(rows):
        day, hour = divmod(k, 24)
        price = 1.1 + 0.001 * ((k * 7919) % 13 - 6)
        lines.append(
            f"2023.{1 + day // 28:02d}.{1 + day % 28:02d}\t{hour:02d}:00:00\t{price:.5f}\t{price + 0.002:.5f}"
            f"\t{price - 0.002:.5f}\t{price + 0.0005:.5f}\t{100 + k % 7}\t0\t10\n"
        )
    Path(path).write_text("".join(lines))
    return lines


@pytest.mark.pitfall("U11")
def test_missing_and_faulty_bars_are_named(capsys: Captured) -> None:
    lines = export("EURUSD_H1.csv")

    def with_lines(changed: list[str]) -> str:
        Path("EURUSD_H1.csv").write_text("".join(changed))
        return fails_with(capsys, "run", "--bars", "EURUSD_H1.csv")

    here = Path().absolute()
    assert f"no file at {here / 'absent.csv'}" in fails_with(capsys, "run", "--bars", "absent.csv")
    assert "EURUSD_H1.csv: the file is empty" in with_lines([])
    assert "EURUSD_H1.csv:900: 3 cells, but the table has 9 columns" in with_lines(
        [*lines[:-2], "2023.02.10\t11:00:00\t1.1"]
    )
    assert "EURUSD_H1.csv:6: column '<TIME>'" in with_lines([*lines[:4], lines[5], lines[4], *lines[6:]])
    assert "--data.repair sort" in with_lines([*lines[:4], lines[5], lines[4], *lines[6:]])
    assert "EURUSD_H1.csv:6: column '<TIME>'" in with_lines([*lines[:5], lines[4], *lines[5:]])
    assert "--data.repair dedupe" in with_lines([*lines[:5], lines[4], *lines[5:]])
    assert "EURUSD_H1.csv:3: column '<OPEN>': 'abc' is not a number" in with_lines(
        [*lines[:2], lines[2].replace(lines[2].split("\t")[2], "abc", 1), *lines[3:]]
    )
    assert "but the warm-up alone takes 620" in with_lines(lines[:300])
    assert "but the warm-up alone takes 620" in with_lines(lines)


def test_spans_that_are_not_covered_are_named(capsys: Captured) -> None:
    export("EURUSD_H1.csv", 1900)
    spans = ["--split.train", "2023-01-28", "2023-02-20", "--split.validation", "2023-02-20", "2023-03-01"]
    late = [*spans, "--split.test", "2023-03-01", "2023-09-01"]
    assert "the test span 2023-03-01 to 2023-09-01 is not inside the bars" in fails_with(
        capsys, "run", "--bars", "EURUSD_H1.csv", *late
    )
    short = [*spans, "--split.test", "2023-03-01", "2023-03-02"]
    assert "the test span 2023-03-01 to 2023-03-02 holds 24 bars, but 48 are needed" in fails_with(
        capsys, "run", "--bars", "EURUSD_H1.csv", *short
    )
    early = ["--split.train", "2023-01-02", *spans[2:], "--split.test", "2023-03-01", "2023-03-10"]
    assert "24 bars before the training span" in fails_with(capsys, "run", "--bars", "EURUSD_H1.csv", *early)
    assert "validation: not given" in fails_with(capsys, "run", "--split.train", "2023-01-01", "2023-02-01")


def test_an_output_folder_with_results_is_refused(capsys: Captured) -> None:
    Path("results").mkdir()
    Path("results/thesis.txt").write_text("years of work")
    message = fails_with(capsys, "run", "--recipe", "smoke", "--out", "results")
    assert "results is not empty. Choose another folder with --out." in message
    assert "is a file" in fails_with(capsys, "run", "--recipe", "smoke", "--out", "results/thesis.txt")
    assert Path("results/thesis.txt").read_text() == "years of work"
    assert "no run in nowhere" in fails_with(capsys, "run", "--resume", "nowhere")


def test_unexpected_errors_are_one_line_and_leave_their_details(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, in_an_empty_folder: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(in_an_empty_folder))
    monkeypatch.setattr("halfstep.cli.verbs.show_config", lambda *_: 1 / 0)
    assert main(["show-config"]) == 1
    message = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in message
    assert message.count("\n") == 1
    details = next(in_an_empty_folder.glob("halfstep-error-*.txt"))
    assert str(details) in message
    assert "Traceback" in details.read_text()


def test_an_interrupt_says_how_to_go_on(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("halfstep.cli.programs.run.collect", interrupted)
    assert main(["run", "--recipe", "smoke", "--out", "results"]) == 130
    assert "Continue with: halfstep run --resume results" in capsys.readouterr().err
    assert '"status": "interrupted"' in Path("results/manifest.json").read_text()
    assert not Path("results/lock").exists()


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m halfstep show-config | head -n 1", shell=True, capture_output=True, text=True,
        check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, timeout=60,
    )  # fmt: skip
    assert done.stdout == 'recipe = "quick"\n'
    assert done.stderr == ""


def test_doctor_finds_this_installation_healthy(capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().err
    for what in (
        "torch",
        "threads",
        "optimizer kernels",
        "default bars",
        "6,225 bars",
        "parameters moved",
        "onnx",
        "cpu, reference",
        "pip install 'halfstep[export]'",  # once taken for markup, and gone
    ):
        assert what in " ".join(text.split()), what


def test_dry_run_prints_the_configuration_and_writes_nothing(capsys: Captured) -> None:
    assert main(["run", "--dry-run", "--study.updates", "7"]) == 0
    assert "updates = 7" in capsys.readouterr().out
    assert list(Path().iterdir()) == []
