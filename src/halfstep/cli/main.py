"""``halfstep VERB``: finds the verb, runs it, and turns errors into one line and an exit status.

Exit status: 0 done; 1 a check found something, or an unexpected error; 2 wrong input; 3 training diverged;
130 interrupted. Only the verb that is asked for is imported, so ``halfstep --help`` answers at once.
"""

import difflib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from halfstep import files
from halfstep._version import __version__
from halfstep.cli import torchrun
from halfstep.errors import HalfstepError, RankLostError


@dataclass(frozen=True, slots=True)
class Verb:
    """One program of the command line."""

    name: str
    summary: str
    function: str
    """Name of the function in `halfstep.cli.verbs`."""
    is_distributed: bool = False
    """Whether several processes can do it together under torchrun."""

    def load(self) -> Callable[[str, Sequence[str]], int]:
        """Import the function ``(description, arguments) -> exit status``."""
        function: Callable[[str, Sequence[str]], int] = getattr(
            importlib.import_module("halfstep.cli.verbs"), self.function
        )
        return function


VERBS = (
    Verb("run", "Everything: bars, trajectories, training for each optimizer and seed, test, report.", "run"),
    Verb(
        "study-encoder",
        "Train the encoder that forecasts the next bars of every feature.",
        "study_encoder",
        is_distributed=True,
    ),
    Verb(
        "research", "Collect trajectories over the training span, with noise or a trained actor.", "research"
    ),
    Verb("replay-signals", "Turn recorded deals of real accounts into trajectories.", "replay_signals"),
    Verb("study", "Train critic and actor on collected trajectories.", "study", is_distributed=True),
    Verb("report", "Build the page of a finished run again, or put several runs side by side.", "report"),
    Verb("compare", "Optimizers on the same work, seed by seed: table, chart and verdict.", "compare"),
    Verb(
        "walk-forward",
        "Trade month after month, each with models trained on the months before it.",
        "walk_forward",
    ),
    Verb("tune", "Search settings on the validation span; every trial is counted.", "tune"),
    Verb(
        "test",
        "Trade the test span once with each trained model, and say what the seeds give together.",
        "test",
    ),
    Verb(
        "partition", "Show how Adam-mini cuts a model into blocks, and the bytes that it saves.", "partition"
    ),
    Verb("show-config", "Print the resolved configuration as TOML.", "show_config"),
    Verb("data", "Import files of bars as checked Parquet, or check one: data import, data check.", "data"),
    Verb("lookahead", "Prove that features, and a policy, do not depend on the future.", "lookahead"),
    Verb("warmup", "Measure how much history each feature needs.", "warmup"),
    Verb("export", "Write a policy as one ONNX file for MetaTrader 5, checked against torch.", "export"),
    Verb(
        "doctor", "Say what is installed, which kernels and threads there are, and what is missing.", "doctor"
    ),
    Verb(
        "bench",
        "Measure the speed of this machine beside the bars; exit status 0 also where one is missed.",
        "bench",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        _print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        _print(f"halfstep {__version__}")
        return 0
    verb = next((verb for verb in VERBS if verb.name == arguments[0]), None)
    if verb is None:
        _complain(f"{arguments[0]}: no such verb. {_nearest(arguments[0])}")
        return 2
    if torchrun.world_size() > 1 and not verb.is_distributed:
        several = " and ".join(verb.name for verb in VERBS if verb.is_distributed)
        _complain(
            f"{verb.name}: {torchrun.world_size()} processes, must be one. Start it without torchrun; {several} "
            "train on several."
        )
        return 2
    return _run(verb, arguments[1:])


def overview() -> str:
    """Return the help of the program as a whole."""
    width = max(len(verb.name) for verb in VERBS)
    lines = [f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS]
    return "\n".join(
        [
            "halfstep trains neural networks that trade, with half the optimizer memory.",
            "",
            "usage: halfstep VERB [flags]        halfstep VERB --help for the flags of a verb",
            "",
            *lines,
            "",
            "First time: halfstep run            real EURUSD hours of 2017 to a report, about five minutes",
            "Your bars:  halfstep run --bars FILE",
        ]
    )


def _run(verb: Verb, arguments: Sequence[str]) -> int:
    try:
        with torchrun.speaking_first():
            return verb.load()(verb.summary, arguments)
    except RankLostError as error:
        folder = _folder_of(error)
        way_out = f" Continue, on any number of processes, with: halfstep {verb.name} --resume {files.as_words(folder)}"
        _complain(f"{error}{way_out if folder else ''}")
        return error.exit_status
    except HalfstepError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt as error:
        folder = _folder_of(error)
        _complain(
            f"interrupted. Continue with: halfstep {verb.name} --resume {files.as_words(folder)}"
            if folder
            else "interrupted."
        )
        return 130
    except BrokenPipeError:  # the reader of our output, for example head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _write_error(
            f"{error.strerror or error}: {error.filename or 'a file'}. Free space or permissions may be missing."
        )
        return 2
    except Exception as error:
        _write_error(
            f"unexpected {type(error).__name__}: {error}. This is a defect of halfstep; {_details(error)}."
        )
        return 1
    except SystemExit as stop:  # help and usage errors of the flag parser
        return stop.code if isinstance(stop.code, int) else 2


def _folder_of(error: BaseException) -> str:
    """Return the run's folder that an error passed through, if any."""
    return next(iter(getattr(error, "__notes__", ())), "")


def _details(error: Exception) -> str:
    """Say where the traceback stands: in the run's log, or in a file made now."""
    if _folder_of(error):
        return f"the details are in {Path(_folder_of(error)) / 'log.txt'}"
    with tempfile.NamedTemporaryFile("w", prefix="halfstep-error-", suffix=".txt", delete=False) as stream:
        stream.write("".join(traceback.format_exception(error)))
    return f"the details are in {stream.name}"


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, [verb.name for verb in VERBS], n=1, cutoff=0.0)
    return f"The nearest verb is {close[0]}; halfstep --help lists all."


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    """Say what is wrong, once for all ranks."""
    if torchrun.rank() == 0:
        _write_error(text)


def _write_error(text: str) -> None:
    sys.stderr.write(f"halfstep: {text}\n")
