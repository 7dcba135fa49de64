"""Features to inputs of one scale, with statistics of the training rows alone."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.features import Features

Kind = Literal["none", "standard", "robust"]
IQR_OF_NORMAL = 1.349  # interquartile range of a standard normal distribution
SPREAD: dict[Kind, str] = {"standard": "standard deviation", "robust": "interquartile range"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Normaliser:
    """(values - centre) / scale, by column.

    ``"none"`` changes nothing (networks that normalise each window need no more), ``"standard"`` takes mean and
    population standard deviation, ``"robust"`` median and interquartile range / 1.349.
    """

    kind: Kind
    """How centre and scale were found."""
    names: tuple[str, ...]
    """Columns it was fitted on, in order."""
    centre: tuple[float, ...]
    """By column."""
    scale: tuple[float, ...]
    """By column; 1 where it would be 0."""
    rows: tuple[int, int]
    """Half-open range of the training rows."""
    bars_hash: str
    """`halfstep.market.Bars.hash` of the bars it was fitted on."""
    notes: tuple[str, ...] = ()
    """Columns whose scale is 1 for that reason."""

    @classmethod
    def fit(cls, features: Features, rows: tuple[int, int], kind: Kind = "none") -> Self:
        """Return the statistics of ``rows`` (half-open), computed in float64 from nothing else.

        Raises:
            ConfigError: unknown kind.
            CoverageError: no such rows, or a value among them is missing.
        """
        if kind not in get_args(Kind):
            raise ConfigError(f"normaliser: {kind!r}, must be one of {', '.join(get_args(Kind))}.")
        first, stop = rows
        if not 0 <= first < stop <= len(features.values):
            raise CoverageError(
                f"rows {first} to {stop} of {len(features.values)}", hint="Give rows inside the features."
            )
        table = features.values[first:stop].astype(np.float64)
        if not np.isfinite(table).all():
            raise CoverageError(
                f"rows {first} to {stop} hold missing values",
                hint=f"Begin at row {features.first_valid} or later.",
            )
        centre, scale = np.zeros(table.shape[1]), np.ones(table.shape[1])
        if kind == "standard":
            centre, scale = table.mean(axis=0), table.std(axis=0)
        elif kind == "robust":
            lower, centre, upper = np.quantile(table, [0.25, 0.5, 0.75], axis=0)
            scale = (upper - lower) / IQR_OF_NORMAL
        constant = scale == 0
        return cls(
            kind=kind,
            names=features.names,
            centre=tuple(centre.tolist()),
            scale=tuple(np.where(constant, 1.0, scale).tolist()),
            rows=(int(first), int(stop)),
            bars_hash=features.bars_hash,
            notes=tuple(
                f"feature {name!r} has {SPREAD[kind]} 0 in the training rows: its scale is 1"
                for name, still in zip(features.names, constant, strict=True)
                if still
            ),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of everything that decides the result."""
        return hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode()).hexdigest()

    def apply(self, features: Features) -> npt.NDArray[np.float32]:
        """Return ``(n, columns)`` float32.

        Raises:
            ConfigError: the features have other columns.
        """
        features.require_names(self.names, "the normaliser")
        if self.kind == "none":
            return features.values
        values = features.values.astype(np.float64)
        return np.asarray((values - np.array(self.centre)) / np.array(self.scale), np.float32)

    def to_json(self) -> str:
        """Return the text that `from_json` reads back."""
        return json.dumps({**self._facts(), "notes": list(self.notes), "sha256": self.hash})

    @classmethod
    def from_json(cls, text: str | None, *, bars_hash: str | None = None) -> Self:
        """Return the normaliser that a model was trained with.

        Args:
            text: of `to_json`; None where a model's file holds none.
            bars_hash: the training bars that the model names, which must be those of the statistics.

        Raises:
            ConfigError: absent, damaged, or of other bars; a model without its statistics must not be evaluated.
        """
        if text is None:
            raise ConfigError(
                "normaliser: none stored with the model, so it cannot be evaluated. Train it again."
            )
        try:
            facts: dict[str, Any] = json.loads(text)
            made = cls(
                kind=facts["kind"],
                names=tuple(facts["names"]),
                centre=tuple(float(value) for value in facts["centre"]),
                scale=tuple(float(value) for value in facts["scale"]),
                rows=(int(facts["rows"][0]), int(facts["rows"][1])),
                bars_hash=str(facts["bars_hash"]),
                notes=tuple(facts["notes"]),
            )
            is_whole = facts["sha256"] == made.hash
        except (ValueError, TypeError, KeyError, IndexError):
            is_whole = False
        if not is_whole:
            raise ConfigError("normaliser: the stored statistics are damaged. Train the model again.")
        if bars_hash is not None and made.bars_hash != bars_hash:
            raise ConfigError(
                f"normaliser: fitted on bars {made.bars_hash[:8]}, but the model was trained on {bars_hash[:8]}. "
                "Use the statistics that were stored with the model."
            )
        return made

    def _facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "names": list(self.names), "centre": list(self.centre), "scale": list(self.scale),
            "rows": list(self.rows), "bars_hash": self.bars_hash,
        }  # fmt: skip
