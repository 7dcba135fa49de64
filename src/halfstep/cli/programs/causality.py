"""``halfstep lookahead`` and ``halfstep warmup``: that nothing depends on the future, and how much past it needs."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from halfstep.cli.console import output
from halfstep.cli.programs.data import ReadFlags, parse_flags, print_json
from halfstep.cli.user_code import first_line, imported
from halfstep.errors import ConfigError, CoverageError, HalfstepError, MissingInputError
from halfstep.market.bars import Bars
from halfstep.market.causality import CUTS, SETTLED_BELOW, LookAhead, WarmUp, lookahead, warmup
from halfstep.market.features import FEATURE_SETS, FeatureColumn, FeatureSet, compute_features, feature_set
from halfstep.market.raw import ReadOptions
from halfstep.market.read import bars_of, default_bars, read_raw

POLICY_BARS = 300  # bars that a policy decides in one pass
POLICY_CUTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofFlags(ReadFlags):
    """What to test, and on which bars."""

    bars: Path | None = None
    """File of bars. Default: the EURUSD hours of 2017 that come with the installation."""
    features: str | None = None
    """Feature set: robust9, published9, or a Python file that defines one FeatureSet of yours. Default: robust9, or
    the policy's own."""
    seed: int = 0
    """Seed of the rows that are tested and of the noise."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookAheadFlags(ProofFlags):
    """What to test, and on which bars."""

    policy: Path | None = None
    """Trained policy to test as well: the folder of an arm (runs/.../50-arms/adam_mini-s1) or its actor file."""
    cuts: int = CUTS
    """Random rows after which the future is taken away; the first valid row, the last five and holes come on top."""


def prove_no_lookahead(description: str, argv: list[str]) -> int:
    """Test features and a policy for look-ahead; 1 where something depends on the future."""
    flags = parse_flags(LookAheadFlags, "halfstep lookahead", description, argv)
    bars = _bars(flags)
    chosen = _feature_set(flags.features or (_features_of(flags.policy) if flags.policy else "robust9"))
    results = [lookahead(bars, chosen, cuts=flags.cuts, seed=flags.seed)]
    if flags.policy is not None:
        results.append(_test_policy(flags.policy, bars, chosen, flags.seed))
    if flags.json:
        print_json([_as_dict(result) for result in results])
    else:
        for result in results:
            _print_leaks(result)
    return int(any(result.leaks for result in results))


def prove_warmup(description: str, argv: list[str]) -> int:
    """Measure how much history each feature needs; 1 where the declared warm-up is too short."""
    flags = parse_flags(ProofFlags, "halfstep warmup", description, argv)
    result = warmup(_bars(flags), _feature_set(flags.features or "robust9"), seed=flags.seed)
    if flags.json:
        print_json(_warmup_dict(result))
    else:
        _print_warmup(result)
    return int(bool(result.too_short))


def _bars(flags: ProofFlags) -> Bars:
    options = flags.options()
    if flags.bars is None:
        unused = [one.name for one in fields(ReadOptions) if getattr(options, one.name) != one.default]
        if unused and unused != ["repair"]:
            raise ConfigError(
                f"{unused[0]}: {getattr(options, unused[0])!r}, but no file is named for it. Add --bars FILE."
            )
        return default_bars()
    return bars_of(read_raw(flags.bars, options), options)


def _feature_set(name: str) -> FeatureSet:
    """Return a set of the package, or the one that a Python file defines."""
    if name in FEATURE_SETS or not name.endswith(".py"):
        return feature_set(name)
    module = imported(name, flag="--features")
    found = {id(value): value for value in vars(module).values() if isinstance(value, FeatureSet)}
    if len(found) != 1:
        raise ConfigError(
            f"features: {name} defines {len(found)} feature sets, must define exactly one FeatureSet."
        )
    chosen = next(iter(found.values()))
    return replace(chosen, columns=tuple(_guarded(column, name) for column in chosen.columns))


def _guarded(column: FeatureColumn, place: str) -> FeatureColumn:
    """Return the same column, whose errors are wrong input and not a defect of this program."""

    def compute(bars: Bars) -> npt.NDArray[np.float64]:
        try:
            return np.asarray(column.compute(bars), np.float64)
        except HalfstepError:
            raise
        except Exception as error:
            raise ConfigError(
                f"features: column {column.name!r} of {place} cannot be computed for {len(bars):,} bars: "
                f"{first_line(error)}."
            ) from error

    return replace(column, compute=compute)


def _features_of(checkpoint: Path) -> str:
    from halfstep.cli.run_folder import RunFolder  # heavy: torch

    return str(RunFolder.config_of(_run_of(checkpoint)).data.features)


def _arm_of(checkpoint: Path) -> Path:
    folder = checkpoint.parent.parent if checkpoint.is_file() else checkpoint
    for kind in ("encoder", "actor"):
        if not (folder / "models" / f"{kind}.safetensors").is_file():
            raise MissingInputError(
                f"no {kind} in {folder}. Name the folder of a finished arm, such as runs/.../50-arms/adam_mini-s1."
            )
    return folder


def _run_of(checkpoint: Path) -> Path:
    folder = _arm_of(checkpoint).absolute()
    run = next((parent for parent in folder.parents if (parent / "config.toml").is_file()), None)
    if run is None:
        raise MissingInputError(
            f"no config.toml above {folder}. Keep an arm's folder inside that of its run."
        )
    return run


def _test_policy(checkpoint: Path, bars: Bars, chosen: FeatureSet, seed: int) -> LookAhead:
    """Let the policy trade a stretch of the bars, and again with other bars after each cut."""
    from halfstep.cli.programs.policy import policy_of_arm  # heavy: torch

    acts, first = policy_of_arm(_arm_of(checkpoint), _run_of(checkpoint), chosen)
    stop = min(len(bars), first + POLICY_BARS)
    if stop < first + 20:
        raise CoverageError(
            f"{len(bars)} bars, but the policy decides from bar {first} on and 20 decisions are needed",
            file=bars.source.path,
            hint="Give a longer file.",
        )
    stretch = bars.slice(0, stop)

    def actions(some: Bars) -> npt.NDArray[np.float64]:
        values = compute_features(some, chosen).values
        rows = np.full((len(some), 6), np.nan)
        rows[first - 1 : len(some) - 1] = acts(some, values)
        return rows

    return lookahead(stretch, None, policy=actions, cuts=POLICY_CUTS, seed=seed)


def _print_leaks(result: LookAhead) -> None:
    table = Table(title=f"Look-ahead: {len(result.cuts)} cuts", title_justify="left")
    for heading in ("column", "way", "first bad row", "largest difference"):
        table.add_column(heading, justify="right" if heading.startswith(("first", "largest")) else "left")
    leaking = {leak.column for leak in result.leaks}
    for leak in result.leaks:
        table.add_row(
            Text(leak.column, style="bold red"), leak.way, f"{leak.row:,}", f"{leak.difference:.3g}"
        )
    for column in result.columns:
        if column not in leaking:
            table.add_row(
                column, "truncation, future noise" if "action" not in column else "future noise", "none", "0"
            )
    out = output()
    out.print(table)
    out.print(
        f"{len(leaking)} of {len(result.columns)} columns depend on the future."
        if leaking
        else f"None of {len(result.columns)} columns depends on the future, bit for bit."
    )


def _print_warmup(result: WarmUp) -> None:
    table = Table(
        title="Largest difference from the full history, in standard deviations", title_justify="left"
    )
    table.add_column("column")
    for heading in ("declared", "needed", *(f"{history:,} bars" for history in result.histories)):
        table.add_column(heading, justify="right")
    for k, name in enumerate(result.columns):
        needed = result.needed(k)
        cells = ["absent" if math.isinf(value) else f"{value:.1e}" for value in result.differences[:, k]]
        style = "bold red" if name in result.too_short else ""
        table.add_row(
            Text(name, style=style),
            f"{result.declared[k]:,}",
            "more" if needed is None else f"{needed:,}",
            *cells,
        )
    out = output()
    out.print(table)
    out.print(
        f"Too short: after {result.settled} bars {', '.join(result.too_short)} still depends on where the bars begin."
        if result.too_short
        else f"{result.settled} bars settle every column below {SETTLED_BELOW:g} standard deviations."
    )


def _as_dict(result: LookAhead) -> dict[str, object]:
    return {
        "columns": result.columns,
        "cuts": result.cuts,
        "leaks": [
            {
                "column": leak.column, "way": leak.way, "cut": leak.cut, "row": leak.row,
                "difference": leak.difference if math.isfinite(leak.difference) else None,
            }
            for leak in result.leaks
        ],
    }  # fmt: skip


def _warmup_dict(result: WarmUp) -> dict[str, object]:
    return {
        "settled": result.settled,
        "histories": result.histories,
        "too_short": result.too_short,
        "columns": {
            name: {
                "declared": result.declared[k],
                "needed": result.needed(k),
                "differences": [
                    value if math.isfinite(value) else None for value in result.differences[:, k].tolist()
                ],
            }
            for k, name in enumerate(result.columns)
        },
    }
