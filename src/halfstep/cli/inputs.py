"""What a program reads besides its configuration: the folders of earlier programs. Light, for ``--help``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class NoInputs:
    """Nothing but bars and the configuration; the base of all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowConfigInputs(NoInputs):
    """What ``halfstep show-config`` prints."""

    diff: bool = False
    """Only what differs from the recipe, as a file for --config."""
    schema: bool = False
    """The JSON schema of all settings, for editors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResearchInputs(NoInputs):
    """Inputs of ``halfstep research``."""

    encoder: Path | None = None
    """Folder of a finished `halfstep study-encoder`. Default: that of the actor; without an actor noise acts."""
    actor: Path | None = None
    """Folder of a finished `halfstep study`. Default: the encoder's, where it holds one."""
    previous: Path | None = None
    """Folder of an earlier `halfstep research` or `halfstep replay-signals`, whose trajectories the store begins with."""
    round: int | None = None
    """Number of the round; rounds of one store differ in it, and in their random numbers. Default: 0, or one more than
    the last round of the previous folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayInputs(NoInputs):
    """Inputs of ``halfstep replay-signals``."""

    signals: tuple[Path, ...] = ()
    """Deal histories: mql5.com signals (MT4 or MT5) or MT4 statements saved as CSV."""
    previous: Path | None = None
    """Folder of an earlier `halfstep research` or `halfstep replay-signals`, whose trajectories the store begins with."""
    zone: str | None = None
    """Clock of the histories: server-eu, server-us, est, UTC or an IANA name. Default: that of the bars."""
    lot_scale: float = 1.0
    """Multiplies the recorded volumes."""
    use_file_tp: bool = False
    """Take the targets of the files, although they may have been moved while the deal was open."""
    impute_levels: Literal["none", "exit_price"] = "none"
    """exit_price turns the later close price into target or stop, as published: look-ahead, for reproduction only;
    the store is marked as leaking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyInputs(NoInputs):
    """Inputs of ``halfstep study``."""

    encoder: Path | None = None
    """Folder of a finished `halfstep study-encoder` (or of any program that carried its encoder on)."""
    episodes: Path | None = None
    """Folder of a finished `halfstep research` or `halfstep replay-signals`, or a store of trajectories."""
    previous: Path | None = None
    """Folder of a finished `halfstep study` of the round before, with the same encoder, target and objective: its critic
    and actor go on. Default: fresh ones."""
    allow_leak: bool = False
    """Train on actions that know later prices (replay-signals --impute-levels exit_price): for reproduction only."""
    drop_damaged: bool = False
    """Leave out shards of trajectories that fail their checks; a warning counts and names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareInputs(NoInputs):
    """Inputs of ``halfstep compare``."""

    episodes: Path | None = None
    """Folder of a finished `halfstep research`, or a store of trajectories, that all arms study. Default: collected
    first, as in `halfstep run`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestInputs(NoInputs):
    """Inputs of ``halfstep test``."""

    __test__ = False  # not a test class, whatever its name

    models: tuple[Path, ...] = ()
    """Folders of finished `halfstep study` runs, or arms of `halfstep run`: one for each seed."""
    sampled: bool = False
    """Draw actions instead of taking the most likely one; needs --seed."""
    seed: int | None = None
    """Seed of the drawn actions."""
