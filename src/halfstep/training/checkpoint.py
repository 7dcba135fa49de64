"""The newest states of a training on disk, so that a killed one continues to the same bytes.

    checkpoints/encoder/step-00000120/trainer.json            counters, curves, and where each tensor stands
                                      model.safetensors       one file for each entry of the state that holds tensors
                                      optimizer.safetensors
                                      best.safetensors

A folder is whole or absent; the last two are kept. Nothing is ever unpickled.
"""

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from halfstep import files
from halfstep.errors import CheckpointError, DivergenceError

CHECKPOINT_SECONDS = 60.0  # a killed training loses at most this much work
KEPT = 2
FORMAT = "halfstep-checkpoint/1"

Tree = dict[str, Any]


class Checkpoint:
    """The newest states of one training.

    As a context it puts an interrupt (Ctrl-C) off until the update in progress is done: then `is_due` is true, and
    `save` raises KeyboardInterrupt when the state is safe. A second interrupt is not put off.

    Args:
        folder: holds one folder for each kept state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saved = time.monotonic()
        self._is_interrupted = False
        self._handler: Any = None

    @property
    def newest(self) -> Path | None:
        """Folder of the newest state."""
        return max(self.folder.glob("step-*"), default=None)

    @property
    def is_due(self) -> bool:
        """Whether the last save is so long ago that the next update should be kept, or an interrupt waits."""
        return self._is_interrupted or time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def save(self, state: Mapping[str, Any], *, step: int) -> None:
        """Write a state of tensors, numbers, strings, lists, tuples and dictionaries; older ones but one are deleted.

        Args:
            step: updates made so far; names the folder.

        Raises:
            KeyboardInterrupt: after the write, if an interrupt was put off.
        """
        with files.replacing_folder(self.folder / f"step-{step:08}") as temporary:
            temporary.mkdir(parents=True)
            parts: dict[str, dict[str, Tensor]] = {}
            tree = {key: _encode(value, key, "", parts) for key, value in state.items()}
            for key, tensors in parts.items():
                save_file(tensors, temporary / f"{key}.safetensors")
            text = json.dumps({"format": FORMAT, "state": tree})
            (temporary / "trainer.json").write_text(text, encoding="utf-8")
        for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
        self._saved = time.monotonic()
        self._raise_interrupt()

    def load(self) -> Tree | None:
        """Return the newest state, or None.

        Raises:
            CheckpointError: it is damaged, or of another format.
        """
        folder = self.newest
        if folder is None:
            return None
        try:
            return _read(folder)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder}: not a whole checkpoint ({error}). Delete this folder to continue from the one before."
            ) from None

    @contextmanager
    def named_on_divergence(self) -> Iterator[None]:
        """Let a `DivergenceError` say where the newest good state lies."""
        try:
            yield
        except DivergenceError as error:
            where = (
                "No state was saved yet."
                if self.newest is None
                else f"The newest good state is {self.newest}."
            )
            raise DivergenceError(f"{error} {where}") from None

    def __enter__(self) -> "Checkpoint":
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # others decide for themselves
        ):
            self._handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None
        if kind is None:
            self._raise_interrupt()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_interrupted:
            signal.default_int_handler(number, frame)
        self._is_interrupted = True

    def _raise_interrupt(self) -> None:
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt


def _read(folder: Path) -> Tree:
    found = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']!r}, must be {FORMAT!r}")
    parts = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    return {key: _decode(value, parts) for key, value in found["state"].items()}


def _encode(value: Any, part: str, name: str, parts: dict[str, dict[str, Tensor]]) -> Any:
    """Return a value as JSON can hold it; its tensors are collected, as copies that share nothing."""
    if isinstance(value, Tensor):
        parts.setdefault(part, {})[name or "value"] = value.detach().clone().contiguous()
        return {"tensor": [part, name or "value"]}
    if isinstance(value, Mapping):
        items = [
            [key, _encode(item, part, f"{name}.{key}".lstrip("."), parts)] for key, item in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        items = [_encode(item, part, f"{name}.{k}".lstrip("."), parts) for k, item in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{part}.{name}: {type(value).__name__}, must be a tensor or a plain value.")


def _decode(value: Any, parts: Mapping[str, Mapping[str, Tensor]]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return parts[content[0]][content[1]]
    if kind == "dict":
        return {key: _decode(item, parts) for key, item in content}
    items = [_decode(item, parts) for item in content]
    return tuple(items) if kind == "tuple" else items
