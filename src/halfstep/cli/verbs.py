"""The verbs: each resolves its configuration and calls one program."""

import json
import sys
from collections.abc import Sequence

import tomli_w

from halfstep.cli import flags
from halfstep.cli.console import console
from halfstep.cli.inputs import (
    CompareInputs,
    NoInputs,
    ReplayInputs,
    ResearchInputs,
    ShowConfigInputs,
    StudyInputs,
    TestInputs,
)
from halfstep.config.load import changes_from, to_toml
from halfstep.config.recipes import RECIPES
from halfstep.config.tables import Config
from halfstep.errors import ConfigError


def run(description: str, argv: Sequence[str]) -> int:
    """Bars to report."""
    request = flags.parse("run", description, argv, NoInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.run import PROGRAM

    return run_program(PROGRAM, request)


def study_encoder(description: str, argv: Sequence[str]) -> int:
    """Bars to an encoder."""
    request = flags.parse("study-encoder", description, argv, NoInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.study_encoder import PROGRAM

    return run_program(PROGRAM, request)


def research(description: str, argv: Sequence[str]) -> int:
    """Bars, and an actor if there is one, to trajectories."""
    request = flags.parse("research", description, argv, ResearchInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.research import PROGRAM

    return run_program(PROGRAM, request)


def replay_signals(description: str, argv: Sequence[str]) -> int:
    """Recorded deals to trajectories."""
    request = flags.parse("replay-signals", description, argv, ReplayInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.replay_signals import PROGRAM

    return run_program(PROGRAM, request)


def study(description: str, argv: Sequence[str]) -> int:
    """Trajectories and an encoder to a critic and an actor."""
    request = flags.parse("study", description, argv, StudyInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.study import PROGRAM

    return run_program(PROGRAM, request)


def test(description: str, argv: Sequence[str]) -> int:
    """Trained models to what they earn on unseen bars."""
    request = flags.parse("test", description, argv, TestInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.test import PROGRAM

    return run_program(PROGRAM, request)


def compare(description: str, argv: Sequence[str]) -> int:
    """Optimizers on the same work."""
    request = flags.parse("compare", description, argv, CompareInputs, short=flags.COMPARE_SHORT)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.compare import PROGRAM

    return run_program(PROGRAM, request)


def walk_forward(description: str, argv: Sequence[str]) -> int:
    """Month after month by models that do not know it."""
    request = flags.parse("walk-forward", description, argv, NoInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.walk_forward import PROGRAM

    return run_program(PROGRAM, request)


def tune(description: str, argv: Sequence[str]) -> int:
    """A search for settings on the validation span."""
    request = flags.parse("tune", description, argv, NoInputs)
    from halfstep.cli.frame import run_program  # heavy: torch, numba, polars
    from halfstep.cli.programs.tune import PROGRAM

    return run_program(PROGRAM, request)


def show_config(description: str, argv: Sequence[str]) -> int:
    """Print the resolved configuration, its difference to the recipe, or the schema."""
    request = flags.parse("show-config", description, argv, ShowConfigInputs)
    if request.inputs.schema:
        text = json.dumps(Config.model_json_schema(), indent=2) + "\n"
    elif request.inputs.diff:
        changes = changes_from(RECIPES[request.config.recipe](), request.config)
        text = tomli_w.dumps(changes.settings) + "".join(
            f"# {key} has no value here, which a file cannot say: give --{key} None\n"
            for key in changes.emptied
        )
    else:
        text = to_toml(request.config)
    sys.stdout.write(text)
    return 0


def data(description: str, argv: Sequence[str]) -> int:
    """Import or check files of bars."""
    words = {
        "import": "Read files of bars, say what they are, and write checked Parquet.",
        "check": "Say what is right and wrong with a file of bars; exit status 0 clean, 1 errors, 2 unreadable.",
    }
    if not argv or argv[0] not in words:
        if argv and argv[0] not in ("-h", "--help"):
            raise ConfigError(f"data: {argv[0]!r}, must be one of {', '.join(words)}.")
        sys.stdout.write(
            "usage: halfstep data import FILE... [flags]\n       halfstep data check FILE [flags]\n\n"
            f"{description}\n\n" + "".join(f"  {name:<8}{text}\n" for name, text in words.items())
        )
        return 0
    from halfstep.cli.programs.data import check_file, import_files  # heavy: numba, polars

    return (import_files if argv[0] == "import" else check_file)(list(argv[1:]), words[argv[0]])


def lookahead(description: str, argv: Sequence[str]) -> int:
    """Prove that nothing depends on the future."""
    from halfstep.cli.programs.causality import prove_no_lookahead  # heavy: numba, polars

    return prove_no_lookahead(description, list(argv))


def warmup(description: str, argv: Sequence[str]) -> int:
    """Measure how much history each feature needs."""
    from halfstep.cli.programs.causality import prove_warmup  # heavy: numba, polars

    return prove_warmup(description, list(argv))


def doctor(description: str, argv: Sequence[str]) -> int:
    """Say what is installed and what is missing."""
    if any(flag in argv for flag in ("-h", "--help")):
        sys.stdout.write(f"usage: halfstep doctor\n\n{description}\n")
        return 0
    from halfstep.cli.programs.doctor import examine  # heavy: torch

    return examine(console())


def bench(description: str, argv: Sequence[str]) -> int:
    """Measure the speed of this machine."""
    request = flags.parse_plain("bench", description, argv, flags.BenchFlags)
    from halfstep.cli.programs.bench import answer  # heavy: torch, numba, polars

    return answer(request)


def partition(description: str, argv: Sequence[str]) -> int:
    """Print the blocks of a model and the optimizer state they need."""
    request = flags.parse_plain("partition", description, argv, flags.PartitionFlags)
    from halfstep.cli.programs.partition import describe  # heavy: torch

    found = describe(request)
    text = json.dumps(found.as_json(), indent=2) if request.json else found.lines()
    sys.stdout.write(text + "\n")
    return 0


def report(description: str, argv: Sequence[str]) -> int:
    """Build the page of a run again, or put several runs side by side."""
    request = flags.parse_plain("report", description, argv, flags.ReportFlags)
    if not request.runs:
        raise ConfigError("report: no folder of a run was given. For example: halfstep report runs/NAME")
    if len(request.runs) == 1 and request.out is not None:
        raise ConfigError("report: --out is for several runs; the page of one goes into its own folder.")
    from halfstep.cli.programs.report import rebuild, side_by_side  # heavy: polars, matplotlib

    screen = console()
    built = (
        rebuild(request.runs[0], screen)
        if len(request.runs) == 1
        else side_by_side(request.runs, request.out, screen)
    )
    if request.json:
        sys.stdout.write(json.dumps(built.metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    screen.print(f"Report: {built.page.absolute()}", soft_wrap=True)
    return 0


def export(description: str, argv: Sequence[str]) -> int:
    """Write a policy for MetaTrader 5 or other programs."""
    request = flags.parse_plain("export", description, argv, flags.ExportFlags)
    from halfstep.cli.programs.export import export as write  # heavy: torch, onnx

    written = write(request)
    sys.stdout.write((json.dumps(written.as_json(), indent=2) if request.json else written.lines()) + "\n")
    return 0
