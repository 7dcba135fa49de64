"""A folder that holds one run: what was asked, with what, how far it is, and every number it gave.

config.toml      the resolved configuration, every value
manifest.json    verb, command line, status, versions, seeds, data
metrics.jsonl    one line per epoch, evaluation or round of trajectories; metrics.json: the final summary
models/          networks; checkpoints/: the newest state of a training; report/, tables/, episodes/
log.txt          when each piece of work ended, the printed tables, the traceback of an error
lock             the process that works here now
"""

import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from halfstep import files
from halfstep._version import __version__
from halfstep.config.load import differences, digest, read_toml, to_toml, validated
from halfstep.config.tables import Config
from halfstep.errors import MissingInputError, OutputExistsError, ResumeError

PACKAGES = ("torch", "numpy", "numba", "polars", "gymnasium", "safetensors")
DATA_FACTS = ("hash", "feature_set", "detail", "profit_rate", "margin_rate")
"""Facts of the data that a continuation must find again; a file may have moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a run was made of, besides its configuration.

    Attributes:
        data: what identifies the bars: path, SHA-256, hash, feature set, ...
        parents: folders and files of earlier programs: ``path`` and ``sha256`` by name.
        inputs: the program's own inputs as they were given.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)


class RunFolder:
    """One run's folder, locked for this process while it is open.

    Args:
        path: the folder; it is made if it is absent.
        verb: the program that works in it.
        config: the resolved configuration.
        argv: the command line, for the manifest.
        resume: continue what stands there; without it a folder that holds anything is refused.
        facts: the data and the earlier results that are read.

    Attributes:
        is_complete: set it to False where the program ends without all that it should give: the status is then
            ``failed``, not ``finished``.

    Raises:
        OutputExistsError: the folder is not empty and ``resume`` is False.
        ResumeError: another process works in the folder, or the program, configuration, data, earlier results or
            versions differ; the message lists all that do.
    """

    def __init__(
        self, path: Path, *, verb: str, config: Config, argv: Sequence[str], resume: bool, facts: Facts
    ) -> None:
        self.path, self.verb, self.config = path, verb, config
        self.is_complete = True
        if path.exists() and not path.is_dir():
            raise OutputExistsError(f"{path} is a file. Choose another folder with --out.")
        if not resume and path.is_dir() and _holds_results(path):
            other = (
                f", or continue its run with --resume {files.as_words(path)}"
                if (path / "config.toml").exists()
                else ""
            )
            raise OutputExistsError(f"{path} is not empty. Choose another folder with --out{other}.")
        path.mkdir(parents=True, exist_ok=True)
        self._lock()
        files.remove_stale_temporaries(path)
        if resume:
            try:
                self._check_same(config, facts)
            except BaseException:
                self._unlock()
                raise
        self._manifest: dict[str, Any] = {
            "verb": verb,
            "argv": list(argv),
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": digest(config),
            "versions": versions(),
            "data": dict(facts.data),
            "parents": {name: dict(parent) for name, parent in facts.parents.items()},
            "inputs": dict(facts.inputs),
        }
        self._write_manifest()
        files.write_text(path / "config.toml", to_toml(config))  # last: with it, there is a run to continue

    @classmethod
    def name_for(cls, verb: str, config: Config) -> Path:
        """Return the default folder: ``runs/<UTC stamp>-<verb>-<8 hex of the configuration>``."""
        return Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{verb}-{digest(config)[:8]}"

    @classmethod
    def config_of(cls, path: Path) -> Config:
        """Return the configuration a folder was made with."""
        if not (path / "config.toml").is_file():
            raise MissingInputError(
                f"no run in {path}: it holds no config.toml. Start one with: halfstep run --out {files.as_words(path)}"
            )
        return validated(read_toml(path / "config.toml"), source=str(path / "config.toml"))

    @classmethod
    def inputs_of(cls, path: Path) -> dict[str, Any]:
        """Return the inputs a folder's program was given."""
        manifest = path / "manifest.json"
        found = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        inputs: dict[str, Any] = found.get("inputs", {})
        return inputs

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the final summary; clock values belong under the key ``clock``."""
        files.write_json(self.path / "metrics.json", metrics)

    def log(self, text: str) -> None:
        """Append a line to the run's log, with the time."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text.rstrip()}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._manifest["status"] = "finished" if self.is_complete else "failed"
        else:
            self._manifest["status"] = "interrupted" if kind is KeyboardInterrupt else "failed"
        self._write_manifest()
        if error is not None:
            self.log("".join(traceback.format_exception(error)))
            error.add_note(str(self.path))  # where `halfstep.cli.main` says the work is kept
        self._unlock()

    def _write_manifest(self) -> None:
        files.write_json(self.path / "manifest.json", self._manifest)

    def _lock(self) -> None:
        """Take the folder: the lock appears whole, with this process in it, or not at all."""
        lock = self.path / "lock"
        own = self.path / f".lock.{os.getpid()}{files.TEMPORARY_SUFFIX}"
        own.write_text(str(os.getpid()))
        try:
            while True:
                try:
                    os.link(own, lock)
                except FileExistsError:
                    self._remove_dead(lock)
                else:
                    return
        finally:
            own.unlink(missing_ok=True)

    def _remove_dead(self, lock: Path) -> None:
        """Remove the lock of a process that is gone.

        Raises:
            ResumeError: it is alive.
        """
        try:
            holder = int(lock.read_text())
        except FileNotFoundError:
            return
        except ValueError:
            holder = 0
        if holder and files.is_alive(holder):
            raise ResumeError(
                f"{self.path}: process {holder} works in this folder. Wait for it, choose another folder with --out, "
                f"or, if that process is something else, delete {lock}."
            )
        lock.unlink(missing_ok=True)

    def _unlock(self) -> None:
        (self.path / "lock").unlink(missing_ok=True)

    def _check_same(self, config: Config, facts: Facts) -> None:
        if not (self.path / "manifest.json").is_file():
            return  # killed before its first write: nothing to continue, nothing to contradict
        before = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        pairs: list[tuple[str, Any, Any]] = [("program", before["verb"], self.verb)]
        pairs += [(f"data.{key}", before["data"].get(key), facts.data.get(key)) for key in DATA_FACTS]
        pairs += [
            (name, _hash_of(before["parents"], name), _hash_of(facts.parents, name))
            for name in sorted({*before["parents"], *facts.parents})
        ]
        now = versions()
        pairs += [
            (name, before["versions"].get(name), now[name]) for name in ("halfstep", "python", *PACKAGES)
        ]
        has_config = (self.path / "config.toml").is_file()
        lines = differences(self.config_of(self.path), config) if has_config else []
        lines += [f"{name}: {was} became {new}" for name, was, new in pairs if was != new]
        if lines:
            raise ResumeError(
                f"{self.path} cannot be continued: {'; '.join(lines)}. Start a new run, or go back to what it was."
            )


def _hash_of(parents: Mapping[str, Mapping[str, str]], name: str) -> str:
    return parents[name]["sha256"][:16] if name in parents else "nothing"


def _holds_results(folder: Path) -> bool:
    """Return whether a folder holds more than what a process leaves that is killed at its very start."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.endswith(files.TEMPORARY_SUFFIX)}
    return bool(names - {"lock", "manifest.json"})


def versions() -> dict[str, str]:
    """Return what a result may depend on: packages, interpreter, system, processor, commit."""
    found = {"halfstep": __version__, "python": platform.python_version(), "system": platform.platform()}
    found["processor"] = processor()
    found["cores"] = str(os.cpu_count())
    found |= {name: metadata.version(name) for name in PACKAGES}
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["commit"] = commit + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    return found


def _git(*arguments: str) -> str:
    """Return what git says of the source tree, or nothing for an installed package."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return ""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
