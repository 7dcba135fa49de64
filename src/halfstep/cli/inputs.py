"""What a program reads besides its configuration: the folders of earlier programs. Light, for ``--help``."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class NoInputs:
    """Nothing but bars and the configuration; the base of all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyInputs(NoInputs):
    """Inputs of ``halfstep study``."""

    encoder: Path | None = None
    """Folder of a finished `halfstep study-encoder` (or of any program that carried its encoder on)."""
    episodes: Path | None = None
    """Folder of a finished `halfstep research` or `halfstep replay-signals`, or a store of trajectories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestInputs(NoInputs):
    """Inputs of ``halfstep test``."""

    __test__ = False  # not a test class, whatever its name

    models: tuple[Path, ...] = ()
    """Folders of finished `halfstep study` runs, or arms of `halfstep run`: one for each seed."""
    sampled: bool = False
    """Draw actions instead of taking the most likely one; needs --seed."""
