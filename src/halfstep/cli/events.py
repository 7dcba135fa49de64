"""The curves of ``metrics.jsonl`` as TensorBoard's events, beside it: setting ``run.tensorboard``, extra ``tensorboard``.

    50-arms/adamw-s1/metrics.jsonl                     what a stage recorded
    50-arms/adamw-s1/events.out.tfevents.halfstep      its numbers, tag ``phase/name`` at the update or step of the line

``metrics.jsonl`` is the source: a process writes each events file whole when it first sees the stage, then appends what
is new. So whatever a killed process has left, a continuation ends with each number once.
"""

import importlib.util
import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halfstep import files
from halfstep.errors import ConfigError
from halfstep.progress import Progress

EVENTS_FILE = "events.out.tfevents.halfstep"
INTERVAL = 10.0  # seconds between two looks for new lines
STEPS = ("update", "step", "epoch")  # where a line stands, by the first of these that it has
NAMES = ("phase", "seed")  # say whose line it is; seeds are told apart by their folders

Scalars = dict[tuple[str, int], float]
"""Numbers by tag and step."""


def check_installed() -> None:
    """Refuse the setting where its package is missing.

    Raises:
        ConfigError: names the extra.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "run.tensorboard: tensorboard is not installed. Install it with: pip install 'halfstep[tensorboard]', or "
            "leave the setting out; metrics.jsonl holds the same numbers."
        )


def scalars_of(text: str) -> Scalars:
    """Return the numbers of a ``metrics.jsonl``; nested names are joined by ``/``, lists and words are left out."""
    found: Scalars = {}
    for line in text.splitlines():
        record = json.loads(line)
        key = next((name for name in STEPS if name in record), None)
        step = 0 if key is None else int(record[key])
        for name, value in _flat(record, ()):
            if name[0] != key and name[0] not in NAMES:
                found["/".join((record["phase"], *name)), step] = value
    return found


@contextmanager
def recorded(folder: Path, progress: Progress, *, wanted: bool) -> Iterator[Progress]:
    """Keep the events of a run's stages up to date while it works, and at its end, whatever the end is.

    Args:
        folder: of the run.
        progress: is told of all that happens.
        wanted: otherwise nothing is written.

    Yields:
        What the work should tell its progress.
    """
    if not wanted:
        yield progress
        return
    events = EventFiles(folder)
    try:
        yield _Watching(progress, events)
    finally:
        events.refresh()


@dataclass(kw_only=True, slots=True)
class _Stage:
    changed: tuple[int, int] = (0, 0)
    written: Scalars = field(default_factory=dict)


class EventFiles:
    """Events files of all stages below a folder, written by one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stages: dict[Path, _Stage] = {}

    def refresh(self) -> None:
        """Write what the stages have recorded since the last time."""
        for path in sorted(self._folder.glob("**/metrics.jsonl")):
            stage = self._stages.setdefault(path, _Stage())
            status = path.stat()
            changed = (status.st_mtime_ns, status.st_size)
            if changed != stage.changed:
                self._write(path, stage)
                stage.changed = changed

    def _write(self, path: Path, stage: _Stage) -> None:
        text = path.read_text(encoding="utf-8")
        if '"where":' in text:
            return  # what a run has gathered from its stages, which have their own
        scalars, target = scalars_of(text), path.with_name(EVENTS_FILE)
        if stage.written and stage.written.items() <= scalars.items():
            new = {key: value for key, value in scalars.items() if key not in stage.written}
            with target.open("ab") as stream:
                stream.write(_records(new))
        else:
            with files.replacing(target) as temporary:
                temporary.write_bytes(_records(scalars, begin=True))
        stage.written = scalars


class _Watching:
    """Passes everything on, and looks for new lines now and then, and when a piece of work ends."""

    def __init__(self, progress: Progress, events: EventFiles) -> None:
        self._progress, self._events = progress, events
        self._looked = time.monotonic()

    def start(self, name: str, total: int, unit: str) -> None:
        self._progress.start(name, total, unit)

    def advance(self, done: int, **figures: float) -> None:
        self._progress.advance(done, **figures)
        if time.monotonic() - self._looked >= INTERVAL:
            self._look()

    def finish(self) -> None:
        self._progress.finish()
        self._look()

    def _look(self) -> None:
        self._events.refresh()
        self._looked = time.monotonic()


def _flat(record: Mapping[str, Any], before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*before, name))
        elif isinstance(value, int | float):
            yield (*before, name), float(value)


def _records(scalars: Scalars, *, begin: bool = False) -> bytes:
    """Return events as a file holds them; one event for each step, in the order of the steps."""
    from tensorboard.compat.proto.event_pb2 import Event  # slow, and of an extra
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    steps: dict[int, list[Any]] = {}
    for (tag, step), value in scalars.items():
        steps.setdefault(step, []).append(Summary.Value(tag=tag, simple_value=value))
    events = [Event(wall_time=now, file_version="brain.Event:2")] if begin else []
    events += [
        Event(wall_time=now, step=step, summary=Summary(value=values))
        for step, values in sorted(steps.items())
    ]
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        writer.write(event.SerializeToString())
    return stream.getvalue()
