"""Flags of the verbs, made from the settings classes, so that help text and checks have one source.

A verb shows the tables it reads (``--study.updates 500``) and the flags every program has. What is given on the
command line is laid over ``--config FILE``, which is laid over ``--recipe NAME``; with ``--resume FOLDER`` the
folder's own configuration is the base.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from pydantic import TypeAdapter

from halfstep.cli.inputs import NoInputs
from halfstep.cli.run_folder import Facts, RunFolder
from halfstep.config.load import merged, read_toml
from halfstep.config.recipes import RECIPES
from halfstep.config.tables import Config

Flags = TypeVar("Flags")
Inputs = TypeVar("Inputs", bound=NoInputs)
ALL_TABLES = tuple(name for name in Config.model_fields if name != "recipe")
MARKET_TABLES = ("data", "split", "instrument", "broker")
VERB_TABLES = MappingProxyType(
    {
        "study-encoder": (*MARKET_TABLES, "model", "optim", "study_encoder", "run"),
        "research": (*MARKET_TABLES, "model", "research", "run"),
        "replay-signals": (*MARKET_TABLES, "research", "run"),
        "study": (*MARKET_TABLES, "model", "optim", "study", "run"),
        "test": (*MARKET_TABLES, "model", "test", "run"),
    }
)
"""Tables whose settings are flags, by verb; the other verbs show all."""
JOBS_SHORT = MappingProxyType({"--jobs": "--run.jobs"})
COMPARE_SHORT = MappingProxyType(
    {
        f"--{name}": f"--compare.{name}"
        for name in ("scope", "sweep", "few-seeds", "seeds", "optimizers", "code")
    }
    | JOBS_SHORT
)
"""Short names of flags, by the verb that has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFlags:
    """Flags of every program."""

    recipe: Literal["default", "smoke", "quick", "reference"] = "quick"
    """Named settings to start from: smoke (seconds, made-up bars), quick (minutes), reference (under two hours; needs
    --bars with EURUSD hours of 2023 and January 2024) or default (every setting's own)."""
    config: Path | None = None
    """TOML file of settings, laid over the recipe; halfstep show-config prints the form."""
    bars: Path | None = None
    """File of bars, short for --data.bars."""
    out: Path | None = None
    """Folder for the results. Default: a new one below runs/."""
    resume: Path | None = None
    """Folder of an interrupted run to continue; it ends with the same numbers as an unbroken one."""
    dry_run: bool = False
    """Print the resolved configuration and the plan, and stop."""
    json: bool = False
    """Print the final metrics as JSON to standard output; everything else goes to standard error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionFlags:
    """Flags of ``halfstep partition``."""

    model: str
    """What to look at: transformers:Qwen3Config (any configuration class of Hugging Face), preset:default (networks
    of halfstep), package.module:Name or file.py:Name (a torch module, or what makes one), or weights.safetensors."""
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Sizes that replace the defaults of the configuration or arguments of what makes the model, as NAME=VALUE:
    --set hidden_size=64 num_hidden_layers=2"""
    value: Literal["row", "tensor"] = "row"
    """Blocks of value projections: one per output unit, or one for each projection (runs under 10,000 steps)."""
    norm: Literal["tensor", "element"] | None = None
    """Blocks of gains and other vectors: one each, or one per element. Default: tensor; presets take element."""
    json: bool = False
    """Print the table as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFlags:
    """Flags of ``halfstep report``."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs: one builds its page again, several are put side by side."""
    out: Path | None = None
    """New folder for the comparison of several runs. Default: one below runs/."""
    json: bool = False
    """Print metrics.json to standard output; everything else goes to standard error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportFlags:
    """Flags of ``halfstep export``."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, or of a study."""
    what: Literal["onnx", "safetensors"] = "onnx"
    """One ONNX file with a test vector and an expert advisor's source for MetaTrader 5; or the weights as they are."""
    arm: str | None = None
    """Which policy of a run, such as adam_mini-s3. Default: the one with the greatest log growth on validation."""
    out: Path | None = None
    """Folder for the files. Default: export/ in the run's folder."""
    name: str | None = None
    """Name of the files, letters, digits and underscores. Default: from the folder's name."""
    json: bool = False
    """Print what was written and checked as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchFlags:
    """Flags of ``halfstep bench``."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure: step, broker, features, research, encoder, context, study, sample, report, help. Default: all,
    about a minute on two idle cores, more on a busy machine."""
    quick: bool = False
    """Three rounds of each instead of 5 to 100: a rough look."""
    dry_run: bool = False
    """Print what would be measured, with about the times, and stop."""
    json: bool = False
    """Print the figures as JSON to standard output; the table goes to standard error."""


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Inputs]):
    """What the command line asks for: flags of every program, the program's own inputs, the resolved configuration."""

    flags: ProgramFlags
    inputs: Inputs
    config: Config
    argv: tuple[str, ...]

    @property
    def is_resumed(self) -> bool:
        """Whether an interrupted run is to be continued."""
        return self.flags.resume is not None

    def folder(self, verb: str, facts: Facts) -> RunFolder:
        """Open the folder of the run that was asked for."""
        path = self.flags.resume or self.flags.out or RunFolder.name_for(verb, self.config)
        given = TypeAdapter(type(self.inputs)).dump_python(self.inputs, mode="json")
        return RunFolder(
            path, verb=verb, config=self.config, argv=self.argv, resume=self.is_resumed,
            facts=replace(facts, inputs=given),
        )  # fmt: skip


def parse(
    verb: str,
    description: str,
    argv: Sequence[str],
    inputs: type[Inputs],
    *,
    short: Mapping[str, str] = JOBS_SHORT,
) -> Request[Inputs]:
    """Resolve one command line; prints help or a usage error and exits where tyro would.

    Every path becomes absolute, so that the configuration means the same in another folder.

    Args:
        verb: decides which tables of the configuration are flags; the others come from recipe and file.
        inputs: dataclass of the program's own inputs.
        short: short names of flags.
    """
    tables = VERB_TABLES.get(verb, ALL_TABLES)
    argv = [_written_out(word, short) for word in argv]
    known = _known_early(argv)
    base = _base(known)
    own = _inputs_of(known.resume, inputs)
    tables_shown = [(name, type(getattr(base, name)), field(default=getattr(base, name))) for name in tables]
    shown = make_dataclass(
        "Flags",
        [
            *(
                [("inputs", Annotated[inputs, tyro.conf.arg(name="")], field(default=own))]
                if fields(own)
                else []
            ),
            ("program", Annotated[ProgramFlags, tyro.conf.arg(name="")], field(default=ProgramFlags())),
            *tables_shown,
        ],
        frozen=True,
    )
    given: Any = parse_plain(verb, description, argv, shown)
    changes: dict[str, Mapping[str, Any]] = {
        name: {key: _absolute(getattr(getattr(given, name), key)) for key in _keys(getattr(base, name))}
        for name in tables
    }
    return Request(
        flags=given.program, inputs=_absolute_inputs(getattr(given, "inputs", own)),
        config=merged(base, changes, source="command line"), argv=tuple(argv),
    )  # fmt: skip


def parse_plain(verb: str, description: str, argv: Sequence[str], flags: type[Flags]) -> Flags:
    """Return the flags of a verb that reads no configuration; prints help or a usage error and exits as `parse`."""
    return tyro.cli(
        flags,
        prog=f"halfstep {verb}",
        description=description,
        args=list(argv),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _known_early(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags that decide what all others are laid over."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--recipe", default="quick")
    early.add_argument("--config", type=Path)
    early.add_argument("--resume", type=Path)
    early.add_argument("--bars", type=Path)
    try:
        return early.parse_known_args(list(argv))[0]
    except (argparse.ArgumentError, SystemExit):
        return early.parse_args([])  # tyro will say what is wrong


def _written_out(word: str, short: Mapping[str, str]) -> str:
    """Return a word of the command line with the long name of its flag: ``--jobs=2`` is ``--run.jobs=2``."""
    name, sign, value = word.partition("=")
    return short.get(name, name) + sign + value


def _base(known: argparse.Namespace) -> Config:
    """Return what the flags are laid over: the folder's configuration, or recipe and file; with the file of ``--bars``."""
    if known.resume is not None:
        base = RunFolder.config_of(known.resume)
    else:
        base = RECIPES.get(known.recipe, RECIPES["quick"])()
        if known.config is not None:
            base = merged(base, read_toml(known.config), source=str(known.config))
    if known.bars is None:
        return base
    return merged(base, {"data": {"bars": known.bars, "made_up": 0}}, source="--bars")


def _inputs_of(resumed: Path | None, inputs: type[Inputs]) -> Inputs:
    """Return a program's inputs before the command line: none, or those of the run that is continued."""
    if resumed is None:
        return inputs()
    found: Inputs = TypeAdapter(inputs).validate_python(RunFolder.inputs_of(resumed))
    return found


def _absolute_inputs(inputs: Inputs) -> Inputs:
    return replace(inputs, **{name: _absolute(value) for name, value in asdict(inputs).items()})


def _absolute(value: Any) -> Any:
    """Return a value whose paths hold also from another folder."""
    if isinstance(value, tuple):
        return tuple(_absolute(each) for each in value)
    return value.absolute() if isinstance(value, Path) else value


def _keys(settings: Any) -> list[str]:
    return list(settings.__dataclass_fields__)
