"""The folder of a run: one process at a time, same configuration or nothing, everything written down."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from halfstep.cli.run_folder import Facts, RunFolder
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.config.tables import Config
from halfstep.errors import MissingInputError, OutputExistsError, ResumeError


def opened(
    path: Path,
    *,
    config: Config | None = None,
    resume: bool = False,
    facts: Facts | None = None,
    verb: str = "run",
) -> RunFolder:
    return RunFolder(
        path,
        verb=verb,
        config=config or smoke(),
        argv=("--recipe", "smoke"),
        resume=resume,
        facts=facts or Facts(),
    )


def test_a_folder_tells_what_ran(tmp_path: Path) -> None:
    with opened(tmp_path / "a", facts=Facts(data={"hash": "1"})) as folder:
        assert json.loads((folder.path / "manifest.json").read_text())["status"] == "running"
        folder.log("a line")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["argv"] == ["--recipe", "smoke"]
    assert manifest["data"] == {"hash": "1"}
    assert {"halfstep", "python", "torch", "numpy", "numba", "polars", "system", "processor"} <= manifest[
        "versions"
    ].keys()
    assert RunFolder.config_of(tmp_path / "a") == smoke()
    assert (tmp_path / "a" / "log.txt").read_text().endswith("a line\n")
    assert not (tmp_path / "a" / "lock").exists()


def test_an_error_is_logged_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught, opened(tmp_path / "a"):
        raise ZeroDivisionError
    assert "Traceback" in (tmp_path / "a" / "log.txt").read_text()
    assert caught.value.__notes__ == [str(tmp_path / "a")]
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["status"] == "failed"


def _hold(path: Path, ready: object, done: object) -> None:
    with opened(path):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "a", ready, done))
    process.start()
    assert ready.wait(60)
    try:
        with pytest.raises(ResumeError, match=f"process {process.pid} works in this folder"):
            opened(tmp_path / "a", resume=True)
    finally:
        done.set()
        process.join(60)
    with opened(tmp_path / "a", resume=True):
        pass


def test_a_killed_start_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lock").write_text("999999999")
    (tmp_path / "a" / ".config.toml.999999999.halfstep-tmp").write_text("[da")
    with opened(tmp_path / "a"):
        assert not list((tmp_path / "a").glob(".*halfstep-tmp"))


def test_another_configuration_is_no_continuation(tmp_path: Path) -> None:
    with opened(tmp_path / "a"):
        pass
    with pytest.raises(ResumeError, match=r"study.updates: 50 became 7"):
        opened(tmp_path / "a", config=merged(smoke(), {"study": {"updates": 7}}, source="x"), resume=True)
    with opened(tmp_path / "a", config=merged(smoke(), {"run": {"jobs": 7}}, source="x"), resume=True):
        pass  # jobs have no influence on results
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    manifest["versions"]["numpy"] = "0.1"
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match=r"numpy: 0.1 became"):
        opened(tmp_path / "a", resume=True)


@pytest.mark.pitfall("D20")
@pytest.mark.parametrize("name", ["hash", "feature_set", "detail", "profit_rate", "margin_rate"])
def test_other_data_are_no_continuation(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / "a", facts=Facts(data={name: "one", "path": "here"})):
        pass
    with opened(tmp_path / "a", facts=Facts(data={name: "one", "path": "there"}), resume=True):
        pass  # a file may move
    for other in ({name: "two"}, {}):
        with pytest.raises(ResumeError, match=rf"data\.{name}: one became {other.get(name)}"):
            opened(tmp_path / "a", facts=Facts(data=other), resume=True)


def test_results_are_never_written_over(tmp_path: Path) -> None:
    with opened(tmp_path / "a"):
        pass
    with pytest.raises(OutputExistsError, match="continue its run with --resume"):
        opened(tmp_path / "a")
    with pytest.raises(MissingInputError, match="no run in"):
        RunFolder.config_of(tmp_path / "b")


def test_default_names_tell_runs_apart() -> None:
    other = smoke().model_copy(update={"run": replace(smoke().run, seed=2)})
    names = {RunFolder.name_for("run", config).name.rsplit("-", 1)[1] for config in (smoke(), other)}
    assert len(names) == 2
