"""How long work is going: what library functions tell whoever started them.

Library code calls a `Progress`; the command line shows it as a bar with rate and time left, tests and
notebooks pass `SILENT`.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A listener to one piece of work at a time."""

    def start(self, name: str, total: int, unit: str) -> None:
        """Begin a piece of work of ``total`` units, for example ``("encoder", 24000, "samples")``."""

    def advance(self, done: int, **figures: float) -> None:
        """Count ``done`` more units and show the newest figures, for example ``loss=0.4``."""

    def finish(self) -> None:
        """End the piece of work."""


class _Silent:
    """Listens and says nothing."""

    def start(self, name: str, total: int, unit: str) -> None:
        pass

    def advance(self, done: int, **figures: float) -> None:
        pass

    def finish(self) -> None:
        pass


SILENT: Progress = _Silent()
