"""`halfstep tune`: a search for settings that is judged on the validation span, and that counts every trial.

    tune.db           optuna's study, in SQLite
    trials/000/       the chain of a trial without the test, and 50-arms/ with one arm per seed
    tables/trials.parquet; best.toml  the best settings, for --config

The bars of the test span are not loaded. A trial that was interrupted is asked for again with the same settings, and
continues; what is suggested depends on the seed and the trials before it only.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl
import tomli_w
from rich.console import RenderableType
from rich.table import Table

from halfstep import files
from halfstep.backtest.registry import REGISTRY, count_trials, record_trials
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import NoInputs
from halfstep.cli.programs.arms import Arm, Scope, arm_task, check_optimizers, read_arm, run_unfinished
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import encoder_steps, run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.run import collect
from halfstep.cli.programs.trials import arm_trials, failed_trials
from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.errors import ConfigError
from halfstep.progress import SILENT, Progress

if TYPE_CHECKING:
    import optuna

LEAST_SHARE = 0.5  # of the deviation over seeds, which is taken off mean log growth
STARTUP = 8  # random trials before the sampler models the others

Kind = Literal["uniform", "log", "int", "choice"]
Value = float | int | str | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One line of a search space."""

    key: str
    kind: Kind
    values: tuple[Value, ...]

    def suggest(self, trial: "optuna.trial.Trial") -> Value:
        """Return what a trial should take."""
        if self.kind == "choice":
            return cast(Value, trial.suggest_categorical(self.key, self.values))
        low, high = float(self.values[0]), float(self.values[1])
        if self.kind == "int":
            return trial.suggest_int(self.key, int(low), int(high))
        return trial.suggest_float(self.key, low, high, log=self.kind == "log")


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial: its settings, its objective (None where it failed), and what each seed gave."""

    number: int
    settings: dict[str, Value]
    objective: float | None
    seeds: tuple[float, ...]
    error: str = ""


def parse_space(lines: Sequence[str]) -> tuple[Parameter, ...]:
    """Return the parameters of a search space.

    Raises:
        ConfigError: a line that is none, or a key twice.

    >>> parse_space(["optim.lr log 1e-4 1e-2"])
    (Parameter(key='optim.lr', kind='log', values=(0.0001, 0.01)),)
    """
    found = tuple(_parameter(line) for line in lines)
    keys = [parameter.key for parameter in found]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"tune.space: {key} stands in two lines. Give each setting one.")
    return found


def with_settings(config: Config, settings: Mapping[str, Value]) -> Config:
    """Return the configuration with dotted keys set."""
    return merged(config, tables_of(settings), source="tune.space")


def tables_of(settings: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """Return dotted keys as the tables of a configuration file."""
    tree: dict[str, dict[str, Value]] = {}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        tree.setdefault(table, {})[name] = value
    return tree


def run_tune(config: Config, market: Market, folder: Path, progress: Progress) -> list[TrialResult]:
    """Run trials until there are as many as were asked for; continues what stands in the folder.

    Args:
        market: loaded without its test span.
    """
    study = _open_study(folder)
    space = parse_space(config.tune.space)
    done = _ended(study)
    progress.start(f"{config.tune.trials} trials", config.tune.trials, "trials")
    progress.advance(len(done))
    while len(done) < config.tune.trials:
        number = len(done)
        study.sampler = _sampler(config.run.seed + number)
        trial = study.ask()
        settings = {parameter.key: parameter.suggest(trial) for parameter in space}
        result = _run_trial(config, market, settings, number, folder)
        trial.set_user_attr("number", number)
        trial.set_user_attr("seeds", list(result.seeds))
        trial.set_user_attr("error", result.error)
        if result.objective is None:
            study.tell(trial, state=_states().FAIL)
        else:
            study.tell(trial, result.objective)
        done = _ended(study)
        progress.advance(
            1, best=max((r.objective for r in done if r.objective is not None), default=math.nan)
        )
    progress.finish()
    return done


def objective_of(config: Config, records: Sequence[Mapping[str, Any]]) -> tuple[float, tuple[float, ...]]:
    """Return the objective of a trial, and the figure of each seed that it is made of.

    ``encoder_skill`` is the mean over seeds of the mean skill over features; ``log_growth`` the mean over seeds of the
    log growth on the validation span, minus half its deviation (ddof 1; 0 for one seed).
    """
    if config.tune.objective == "encoder_skill":
        seeds = [float(np.mean(record["encoder"]["skill"])) for record in records]
        return float(np.mean(seeds)), tuple(seeds)
    seeds = [float(record["study"]["log_growth"]) for record in records]
    deviation = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
    return float(np.mean(seeds)) - LEAST_SHARE * deviation, tuple(seeds)


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """Return the trial with the greatest objective, the first of equals; None where all failed."""
    known = [result for result in results if result.objective is not None]
    return max(known, key=lambda result: (result.objective, -result.number)) if known else None


def _run_trial(
    config: Config, market: Market, settings: dict[str, Value], number: int, folder: Path
) -> TrialResult:
    home = folder / "trials" / f"{number:03d}"
    changed = with_settings(config, settings)
    scope: Scope = "encoder" if config.tune.objective == "encoder_skill" else "study"
    store = home
    if scope == "study":
        store = episodes_folder(collect(changed, market, home, SILENT))
    arms = [Arm(config.run.optimizer, seed) for seed in range(1, config.tune.seeds + 1)]
    arms_home = home / "50-arms"
    tasks = {
        arm.name: arm_task(changed, arm, store, arms_home / arm.name, scope=scope, with_test=False)
        for arm in arms
    }
    failures = run_unfinished(changed, tasks, arms_home, SILENT)
    records = [read_arm(arms_home / arm.name) for arm in arms if arm.name not in failures]
    lost = [arm for arm in arms if arm.name in failures]
    record_trials(
        [
            *arm_trials(changed, market, records, program="tune", run=folder),
            *failed_trials(changed, market, lost, program="tune", run=folder),
        ]
    )
    if failures:
        name, failure = next(iter(failures.items()))
        return TrialResult(
            number=number, settings=settings, objective=None, seeds=(),
            error=f"{name}: {failure.error} Log: {failure.log}",
        )  # fmt: skip
    objective, seeds = objective_of(config, records)
    return TrialResult(number=number, settings=settings, objective=objective, seeds=seeds)


def _parameter(line: str) -> Parameter:
    key, *rest = line.split()
    kind, values = (rest[0], tuple(_value(word) for word in rest[1:])) if rest else ("", ())
    if kind == "choice" and len(values) >= 2:
        return Parameter(key=key, kind="choice", values=values)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if kind in ("uniform", "log", "int") and len(numbers) == len(values) == 2 and numbers[0] < numbers[1]:
        if kind == "log" and numbers[0] <= 0:
            raise ConfigError(
                f"tune.space: {line!r}, log needs a lower end above 0. Take uniform, or raise it."
            )
        return Parameter(key=key, kind=kind, values=values)  # type: ignore[arg-type]  # one of the three
    raise ConfigError(
        f"tune.space: {line!r}, must be KEY uniform LOW HIGH, KEY log LOW HIGH, KEY int LOW HIGH or KEY choice A B ... "
        "For example: optim.lr log 1e-4 1e-2"
    )


def _value(word: str) -> Value:
    try:
        value = tomllib.loads(f"x = {word}")["x"]
    except tomllib.TOMLDecodeError:
        return word
    return value if isinstance(value, int | float | bool) else word


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "tune: optuna is not installed. Install it with: pip install 'halfstep[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _states() -> Any:
    return _optuna().trial.TrialState


def _sampler(seed: int) -> Any:
    return _optuna().samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)


def _open_study(folder: Path) -> "optuna.Study":
    """Return the study of a folder; a trial that was interrupted counts as none, and is asked for again."""
    library = _optuna()
    storage = library.storages.RDBStorage(f"sqlite:///{(folder / 'tune.db').absolute()}")
    study = cast(
        "optuna.Study",
        library.create_study(study_name="tune", storage=storage, direction="maximize", load_if_exists=True),
    )
    for left in study.get_trials(deepcopy=False, states=(_states().RUNNING,)):
        study.tell(left.number, state=_states().FAIL)
    return study


def _ended(study: "optuna.Study") -> list[TrialResult]:
    """Return the trials that came to an end, in order."""
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if "number" in trial.user_attrs and trial.state.is_finished()
    ]
    return [
        TrialResult(
            number=trial.user_attrs["number"], settings=dict(trial.params),
            objective=None if trial.user_attrs["error"] else trial.value,
            seeds=tuple(trial.user_attrs["seeds"]), error=trial.user_attrs["error"],
        )
        for trial in ended
    ]  # fmt: skip


def _open(request: Request[NoInputs], market: Market) -> tuple[Parameter, ...]:  # noqa: ARG001
    _optuna()
    check_optimizers(request.config)
    space = parse_space(request.config.tune.space)
    for parameter in space:
        for value in parameter.values:
            end = int(value) if parameter.kind == "int" else value
            with_settings(
                request.config, {parameter.key: end}
            )  # refuses unknown keys and values out of range
    return space


def _plan(job: Job[NoInputs]) -> list[Step]:
    config = job.config
    changes = {
        "compare": {
            "optimizers": ("adamw",),
            "headline": "adamw",
            "seeds": config.tune.seeds,
            "few_seeds": True,
        }
    }
    if config.tune.objective == "encoder_skill":
        steps = encoder_steps(config, job.market)
        each = sum(step.seconds or 0.0 for step in steps) * config.tune.seeds / config.run.processes
    else:
        each = sum(
            step.seconds or 0.0 for step in run_steps(merged(config, changes, source="plan"), job.market)
        )
    lines = ", ".join(config.tune.space)
    return [
        Step(
            what=f"{config.tune.trials} trials of {config.tune.seeds} seeds over {lines}",
            seconds=config.tune.trials * each,
        )
    ]


def _shown(config: Config, results: Sequence[TrialResult], counted: int) -> tuple[RenderableType, ...]:
    best = best_of(results)
    table = Table(title=f"{config.tune.objective} on the validation span, {config.tune.seeds} seeds")
    keys = [parameter.key for parameter in parse_space(config.tune.space)]
    for heading in ("trial", *keys, "objective", "seeds", ""):
        table.add_column(heading, justify="right")
    for result in results:
        seeds = ", ".join(f"{value:+.4f}" for value in result.seeds)
        table.add_row(
            f"{result.number}", *(_text(result.settings.get(key)) for key in keys),
            "failed" if result.objective is None else f"{result.objective:+.5f}", seeds,
            "best" if result is best else "",
        )  # fmt: skip
    errors = [f"FAILED trial {result.number}: {result.error}" for result in results if result.error]
    return (
        table, *errors,
        f"{counted} configurations are counted in {REGISTRY}: the deflated Sharpe ratio of a test takes all of them into "
        "account. The best of many trials looks better than it is.",
    )  # fmt: skip


def _text(value: Value | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _work(job: Job[NoInputs]) -> Outcome:
    home, config = job.folder.path, job.config
    results = run_tune(config, job.market, home, job.progress)
    best = best_of(results)
    counted = count_trials(is_made_up=config.data.made_up > 0, observation="bar").n
    frame = pl.DataFrame(
        [
            {
                "trial": r.number,
                "objective": r.objective,
                **r.settings,
                "seeds": list(r.seeds),
                "error": r.error,
            }
            for r in results
        ],
        infer_schema_length=None,
    )
    with files.replacing(home / "tables" / "trials.parquet") as temporary:
        frame.write_parquet(temporary)
    last: tuple[str, ...] = ()
    if best is not None:
        files.write_text(home / "best.toml", tomli_w.dumps(tables_of(best.settings)))
        last = (
            f"Best settings: {home / 'best.toml'}; halfstep run --config {home / 'best.toml'} uses them.",
        )
    metrics = {
        "schema": "halfstep.tune/1",
        "objective": config.tune.objective,
        "trials": [
            {"number": r.number, "settings": r.settings, "objective": r.objective, "seeds": list(r.seeds), "error": r.error}
            for r in results
        ],
        "best": None if best is None else best.number,
        "configurations_counted": counted,
    }  # fmt: skip
    return Outcome(
        metrics=metrics,
        shown=_shown(config, results, counted),
        last=last,
        status=0 if best is not None else 1,
    )


PROGRAM = Program(verb="tune", open=_open, plan=_plan, work=_work, with_test=False)
