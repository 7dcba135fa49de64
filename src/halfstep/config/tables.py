"""The tables of the configuration that belong to no single floor, and the tree that holds all tables."""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from halfstep.backtest.statistics import SEEDS_FOR_A_VERDICT
from halfstep.broker.rules import AccountRules
from halfstep.experience.settings import ResearchSettings
from halfstep.training.settings import EncoderTraining, OptimizerSettings, StudySettings


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """Which bars, and how they are read."""

    bars: Path | None = None
    """File of bars: MetaTrader export, any known CSV or Parquet. Default: the EURUSD hours of 2017 that come with
    the installation."""
    detail: Path | None = None
    """File of finer bars of the same symbol, such as M1 or M15 inside H1: they decide the order of stop and target
    where broker.intrabar is m1, and in the report's sensitivity."""
    profit_rate: Path | None = None
    """File of bars of the pair of the symbol's quote currency and broker.currency, named after it (GBPUSD_H1.csv):
    converts profits where the account's currency is neither currency of the symbol."""
    margin_rate: Path | None = None
    """File of bars of the pair of the symbol's base currency and broker.currency: converts margins likewise."""
    made_up: int = 0
    """Use this many made-up hourly bars instead of a file; for tests of the machinery, never for results."""
    symbol: str | None = None
    """Symbol of the bars. Default: from the file's name."""
    zone: str | None = None
    """Time zone of the file's clock: server-eu, server-us, est, UTC or an IANA name. Default: by format."""
    side: Literal["bid", "ask"] | None = None
    """Which price the bars show. Default: by format."""
    repair: tuple[str, ...] = ()
    """Repairs to make while reading (sort, dedupe, drop-bad, widen, snap, drop-last); each is counted in the
    report. Default: none, a faulty file is refused."""
    features: Literal["robust9", "published9"] = "robust9"
    """Feature set the networks read."""

    def __post_init__(self) -> None:
        if self.made_up < 0:
            raise ValueError(f"made_up: {self.made_up}, must be 0 or more bars. Leave it out to read a file.")
        if self.made_up and self.bars is not None:
            raise ValueError(f"made_up: {self.made_up}, but bars names {self.bars}. Give one of the two.")
        if self.detail is not None and self.bars is None:
            raise ValueError(f"detail: {self.detail}, but no bars. Name both files.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """Spans of the data, as half-open pairs of dates (first day, day after the last) of the server's clock."""

    train: tuple[str, str] | None = None
    """Days the networks learn from. Default: chosen for the file; the report names them."""
    validation: tuple[str, str] | None = None
    """Days that decide which weights are kept."""
    test: tuple[str, str] | None = None
    """Days that are opened once, at the end."""

    def __post_init__(self) -> None:
        spans = {"train": self.train, "validation": self.validation, "test": self.test}
        absent = [name for name, span in spans.items() if span is None]
        if 0 < len(absent) < len(spans):
            raise ValueError(
                f"{absent[0]}: not given, but other spans are. Give train, validation and test, or none."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class InstrumentSettings:
    """What is traded, and the costs of trading it."""

    profile: Literal["standard", "raw", "free"] = "standard"
    """Cost profile of the preset: standard (spread only), raw (small spread, commission) or free (no costs)."""
    base: str | None = None
    """Currency of the margin. Default of this and the following: the preset of the symbol; what it lacks must be
    given, and the message of the program says what that is."""
    quote: str | None = None
    """Currency of prices and profits."""
    digits: int | None = None
    """Decimals of a price, 0 to 8; those of the preset in points are converted."""
    contract_size: float | None = None
    """Units of the base currency, ounces, shares or contracts in one lot."""
    lot_min: float | None = None
    """Least volume of a position, lots."""
    lot_step: float | None = None
    """Grid of volumes, lots."""
    lot_max: float | None = None
    """Largest volume of a side, lots."""
    stops_level_points: int | None = None
    """Least distance of stop and target from the price, points."""
    swap_mode: Literal["points", "percent"] | None = None
    """Swap as points per lot and night, or as percent a year of the price."""
    swap_long: float | None = None
    """Swap of a long position; positive is received."""
    swap_short: float | None = None
    """Swap of a short position; positive is received."""
    swap_days: tuple[int, int, int, int, int, int, int] | None = None
    """Nights charged at the rollover that ends Monday, Tuesday, ..., Sunday."""
    margin_rate: float | None = None
    """Multiplies contract value / leverage."""
    level_scale_points: int | None = None
    """Points that a stop or target of 1.0 in an action means; about one percent of the price."""

    @property
    def stated(self) -> dict[str, Any]:
        """Fields of `Instrument` that are given, as arguments of `instrument`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["profile"]
        return {name: value for name, value in fields.items() if value is not None}


WINDOW_BARS = 120  # that the encoder of every preset reads


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Sizes of the networks."""

    preset: Literal["tiny", "default", "reference"] = "default"
    """Named sizes of encoder, actor and critic: tiny (tests), default, or reference (the published ones, whose
    recurrent encoder needs 360 settled bars before the training span)."""
    level_floor: float = 0.05
    """Least fraction of a target or stop that a policy asks for (0.05 of 1,000 points are 50 points)."""
    context_bars: int = 4
    """Newest bars that actor and critic see themselves, beside the forecast."""

    def __post_init__(self) -> None:
        if not 0 <= self.level_floor < 1:
            raise ValueError(f"level_floor: {self.level_floor}, must lie in [0, 1).")
        if not 0 <= self.context_bars <= WINDOW_BARS:
            raise ValueError(
                f"context_bars: {self.context_bars}, must lie between 0 and the {WINDOW_BARS} bars of a window."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSettings:
    """What is computed about the test besides trading it."""

    __test__ = False  # not a test class, whatever its name

    risk_free: float = 0.04
    """Annual rate of a deposit, shown beside the profit, as a fraction."""
    random_runs: int = 1000
    """Random policies with as many positions that the result is compared with."""
    bootstrap_draws: int = 10_000
    """Draws of the stationary bootstrap behind the intervals."""
    rerun_policy: bool = False
    """Let the policy also decide anew under each assumption of the sensitivity table, because the account that it sees
    changes; a pass over the test span for each."""

    def __post_init__(self) -> None:
        for name in ("random_runs", "bootstrap_draws"):
            value = getattr(self, name)
            if value < 100:
                raise ValueError(f"{name}: {value}, must be at least 100. Fewer say nothing.")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSettings:
    """Which optimizers do the same work, how often."""

    optimizers: tuple[str, ...] = ("sgd", "adamw", "adam_mini")
    """Optimizers to compare; adamw must be among them, the others are paired with it seed by seed."""
    scope: Literal["encoder", "chain"] = "chain"
    """What each arm does: the encoder alone, or encoder, critic, actor and the test on one frozen store."""
    seeds: int = 5
    """Seeds 1 ... n for each optimizer; fewer than 5 need few_seeds."""
    few_seeds: bool = False
    """Go on with fewer than 5 seeds; then no verdict is given."""
    sweep: bool = False
    """Choose the learning rates of AdamW and SGD first, by validation loss of the encoder on a seed of its own; the
    other optimizers take AdamW's."""
    code: tuple[Path, ...] = ()
    """Python files that each process runs first: they call register_optimizer for optimizers of your own."""
    margin: float = 0.01
    """Equivalence margin, as a fraction of AdamW's mean validation loss."""
    headline: str = "adam_mini"
    """Optimizer whose seeds the report leads with; fixed before the test span is opened."""
    timing_rounds: int = 30
    """Interleaved rounds behind the time of an optimizer step."""

    def __post_init__(self) -> None:
        if "adamw" not in self.optimizers:
            raise ValueError(
                f"optimizers: {self.optimizers}, must hold adamw, which the others are compared with."
            )
        if self.headline not in self.optimizers:
            raise ValueError(f"headline: {self.headline!r}, must be one of {self.optimizers}.")
        if self.seeds < 1:
            raise ValueError(f"seeds: {self.seeds}, must be at least 1.")
        if self.seeds < SEEDS_FOR_A_VERDICT and not self.few_seeds:
            raise ValueError(
                f"seeds: {self.seeds}, must be at least {SEEDS_FOR_A_VERDICT} for a verdict. "
                "Add --compare.few-seeds to go on without one."
            )
        if len(set(self.optimizers)) < len(self.optimizers):
            raise ValueError(f"optimizers: {self.optimizers}, must differ from each other.")
        if not 0 < self.margin < 1:
            raise ValueError(f"margin: {self.margin}, must lie between 0 and 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkForwardSettings:
    """Months that are tested one after the other, each by fresh models of the months before it."""

    train_months: int = 12
    """Whole months that each fold learns from."""
    validation_months: int = 2
    """Months after them that decide which weights are kept."""
    test_months: int = 1
    """Months after those that are traded."""
    step_months: int = 1
    """Months from one fold to the next."""
    anchored: bool = False
    """Every fold learns from the first month on, instead of from as many months."""
    months: tuple[str, str] | None = None
    """First and last month to test, such as 2023-01 2023-12. Default: all that the bars have the history for."""
    optimizer: str = "adam_mini"
    """Optimizer of all networks."""
    seeds: int = 5
    """Seeds 1 ... n of each fold."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds: {self.seeds}, must be at least 1.")
        for month in self.months or ():
            if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
                raise ValueError(f"months: {month!r}, must be a year and a month such as 2023-01.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneSettings:
    """The search for settings. The test span is not loaded."""

    trials: int = 20
    """Configurations to try; every one is counted against the result."""
    seeds: int = 2
    """Seeds 1 ... n of each trial."""
    objective: Literal["encoder_skill", "log_growth"] = "encoder_skill"
    """What is maximised: mean skill of the encoder over features and seeds; or log growth on the validation span, mean
    over seeds minus half their deviation."""
    space: tuple[str, ...] = ("optim.lr log 1e-4 1e-2", "study_encoder.batch choice 64 128 256")
    """What is searched, a line for each setting: ``KEY uniform LOW HIGH``, ``KEY log LOW HIGH``, ``KEY int LOW HIGH``
    or ``KEY choice A B C``."""

    def __post_init__(self) -> None:
        for name in ("trials", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1.")
        if not self.space:
            raise ValueError("space: empty, must name at least one setting.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The whole chain."""

    seed: int = 1
    """Root seed of every use of randomness; `run` and `compare` give each arm its own."""
    optimizer: str = "adam_mini"
    """Optimizer of what is trained once: study-encoder, study and the pilot of `run`."""
    rounds: int = 2
    """Rounds of collecting trajectories; from the second on, the pilot actor takes part."""
    threads: int = 1
    """Threads of one training process. One gives the same numbers on every number of cores."""
    jobs: int = 0
    """Training processes side by side; 0 = one per core. Has no influence on the results."""
    tensorboard: bool = False
    """Also write the curves of every stage as TensorBoard's events, beside its metrics.jsonl; needs halfstep[tensorboard].
    Has no influence on the results."""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("threads", 1), ("jobs", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: {value}, must be at least {least}.")

    @property
    def processes(self) -> int:
        """Training processes to run side by side."""
        return self.jobs or os.cpu_count() or 1


class Config(BaseModel):
    """Everything that decides the result of a run; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = "quick"
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    instrument: InstrumentSettings = InstrumentSettings()
    broker: AccountRules = AccountRules()
    model: ModelSettings = ModelSettings()
    optim: OptimizerSettings = OptimizerSettings()
    research: ResearchSettings = ResearchSettings()
    study_encoder: EncoderTraining = EncoderTraining()
    study: StudySettings = StudySettings()
    test: TestSettings = TestSettings()
    compare: CompareSettings = CompareSettings()
    walk_forward: WalkForwardSettings = WalkForwardSettings()
    tune: TuneSettings = TuneSettings()
    run: RunSettings = RunSettings()
