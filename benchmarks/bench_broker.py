"""Speed of the broker: accounts alone, with observation windows, with a policy network; against other simulators.

Everything runs in one process in interleaved rounds; a figure is the median over rounds, beside the best round,
because a parallel call waits for the slower thread and another program on the machine then shows in it. Ratios are
of medians.

    python benchmarks/bench_broker.py                      # the table of speeds
    python benchmarks/bench_broker.py --growth             # 64 to 65,536 accounts, a year to 3.7 million bars
    python benchmarks/bench_broker.py --compile            # first compilation and start from the cache
    python benchmarks/bench_broker.py --json FILE          # also write the figures
"""

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numba
import numpy as np

from halfstep.broker import (
    AccountRules,
    BatchedAccounts,
    TradingEnv,
    TradingVectorEnv,
    market_table,
    run_actions,
)
from halfstep.market.bars import Bars
from halfstep.market.features import compute_features
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe

YEAR = 6207  # hourly bars
BATCH = 4096
RULES = AccountRules()
EURUSD = instrument("EURUSD")
PLANS = 8  # action arrays in turn, so that they are not always in the cache


@dataclass
class Case:
    """Something to time.

    Attributes:
        name: as it stands in the table.
        units: what is counted per call, e.g. account steps.
        call: one call.
        calls: calls per round.
        before: before each round, not timed.
        bar: figure to reach, with its unit; empty where there is none.
    """

    name: str
    units: float
    call: Callable[[int], Any]
    calls: int = 1
    before: Callable[[], Any] = lambda: None
    bar: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)


def interleaved(cases: list[Case], rounds: int) -> None:
    """Time all cases round by round."""
    for case in cases:
        case.before()
        case.call(0)
    for _ in range(rounds):
        for case in cases:
            case.before()
            start = time.perf_counter()
            for k in range(case.calls):
                case.call(k)
            case.seconds.append((time.perf_counter() - start) / case.calls)


def plans(n: int, seed: int = 0, cap: float = 1.0) -> np.ndarray:
    """Return random actions, ``(8, n, 6)``."""
    return np.random.default_rng(seed).random((PLANS, n, 6)) * [cap, 1, 1, cap, 1, 1]


def accounts_case(
    name: str, n: int, rules: AccountRules = RULES, *, actions: np.ndarray | None = None, bar: str = "", log: int = 0,
    detail: bool = False,
) -> Case:  # fmt: skip
    """Return steps of n accounts in lockstep."""
    bars = random_bars(YEAR, seed=1)
    table = market_table(bars, EURUSD, rules, detail=quarters(bars) if detail else None)
    calls = max(4, min(2000, 400_000 // n))
    accounts = BatchedAccounts(table, rules, n, log_capacity=log)
    given = plans(n) if actions is None else actions
    return Case(
        name, n, lambda k: accounts.step(given[k % len(given)]), calls,
        lambda: accounts.reset(first=1, stop=len(table) - 1), bar,
    )  # fmt: skip


def quarters(bars: Bars) -> Bars:
    """Return four gapless quarters of every bar: open, high, low, close."""
    points = np.stack([getattr(bars, name) for name in ("open", "high", "low", "close")], axis=1)
    path = np.concatenate([points[:, :1], points], axis=1)  # open open high low close
    a, b = path[:, :-1].ravel(), path[:, 1:].ravel()
    return replace(
        bars, time=(bars.time[:, None] + 900 * np.arange(4)).ravel(), open=a, close=b, high=np.maximum(a, b),
        low=np.minimum(a, b), volume=np.ones(4 * len(bars)), spread=np.repeat(bars.spread, 4),
        timeframe=Timeframe.M15,
    )  # fmt: skip


def account_cases() -> list[Case]:
    """Return the first layer: the account alone."""
    hold = plans(BATCH)
    hold[:, :, 0], hold[:, :, 3], hold[:, :, [1, 2]] = 0.5, 0.0, 1.0
    table = market_table(random_bars(YEAR, seed=1), EURUSD, RULES)
    year = np.random.default_rng(2).random((YEAR - 2, 6))
    one = BatchedAccounts(table, RULES, 1)

    def single() -> None:
        one.reset(first=1, stop=YEAR - 1)

    return [
        accounts_case("4,096 accounts, random actions", BATCH, bar="40 M/s"),
        accounts_case("4,096 accounts, positions held", BATCH, actions=hold),
        accounts_case("4,096 accounts, flat", BATCH, actions=np.zeros((1, BATCH, 6))),
        accounts_case("64 accounts", 64, bar="5 M/s"),
        accounts_case("65,536 accounts", 65_536, bar="20 M/s"),
        accounts_case("4,096 accounts, log on", BATCH, log=500, bar="10 M/s"),
        accounts_case("4,096 accounts, both sides", BATCH, replace(RULES, net_opposite=False), bar="10 M/s"),
        accounts_case("4,096 accounts, m1, four quarters", BATCH, replace(RULES, intrabar="m1"), detail=True, bar="5 M/s"),
        Case("one account, compiled loop over a year", YEAR - 2, lambda _: one.play(year[:, None]), 1, single, "1 M/s"),
        Case("a year of H1, run_actions", 1, lambda _: run_actions(table, RULES, year, 1), 1, bar="10 ms"),
    ]  # fmt: skip


def env_cases() -> list[Case]:
    """Return the environments, and gymnasium's own vectorised CartPole."""
    table = market_table(random_bars(YEAR, seed=1), EURUSD, RULES)
    cases = []
    for n, bar in ((BATCH, "0.35 ms"), (64, "60 us")):
        env = TradingVectorEnv(n, table, RULES, length=1000)
        env.reset(seed=0)
        actions = plans(n).astype(np.float32)
        cases.append(
            Case(f"VectorEnv.step, {n:,}", n, lambda k, e=env, a=actions: e.step(a[k % PLANS]), 50, bar=bar)
        )
        pole = gymnasium.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")
        pole.reset(seed=0)
        push = np.random.default_rng(0).integers(0, 2, (PLANS, n))
        cases.append(
            Case(f"CartPole vector step, {n:,}", n, lambda k, e=pole, a=push: e.step(a[k % PLANS]), 50)
        )
    single = TradingEnv(table, RULES)
    action = plans(1)[:, 0].astype(np.float32) * np.float32(0.05)
    cases.append(
        Case(
            "Env.step", 1, lambda k: single.step(action[k % PLANS]), 2000, lambda: single.reset(seed=0), "50 k/s"
        )
    )  # fmt: skip
    return cases


def layer_cases() -> list[Case]:
    """Return the second and third layer: with windows gathered by bar index, with the default policy network."""
    bars = random_bars(YEAR, seed=1)
    table = market_table(bars, EURUSD, RULES)
    features = compute_features(bars, "robust9")
    n, rows = 1024, np.arange(-119, 1)
    accounts = BatchedAccounts(table, RULES, n)
    first = np.random.default_rng(0).integers(1000, 5000, n)
    actions = plans(n)

    def reset() -> None:
        accounts.reset(first=first, stop=np.minimum(first + 1000, YEAR - 1))

    def gathered(k: int) -> np.ndarray:
        accounts.step(actions[k % PLANS])
        accounts.vectors()
        return features.values[accounts.state.bar[:, None] + rows]

    def stepped(k: int) -> np.ndarray:
        accounts.step(actions[k % PLANS])
        return accounts.vectors()

    cases = [
        Case("layer 1: step and account vector, 1,024", n, stepped, 50, reset),
        Case("layer 2: and windows of 120 x 9 gathered", n, gathered, 10, reset),
    ]
    try:
        import torch

        from halfstep.nn.build import build_actor, build_encoder
        from halfstep.nn.presets import preset
        from halfstep.training.policy import NeuralPolicy, encode_contexts

        torch.set_num_threads(os.cpu_count() or 1)
        config = preset("default")
        begin = features.first_valid + 119
        encoder = build_encoder(config, feature_names=features.names, seed=1)
        usual = features.values[features.first_valid :].std(axis=0)
        encoder.norm.reference_std.copy_(
            torch.from_numpy(usual)
        )  # untrained weights take as long as trained ones
        contexts = encode_contexts(
            encoder,
            torch.from_numpy(features.values[: begin + 40].copy()),
            begin,
            settled=features.first_valid,
        )
        policy = NeuralPolicy(build_actor(config, seed=1), contexts)
        prepared = policy.prepare(begin, begin + 32)
        many = BatchedAccounts(table, RULES, n)

        def decided(k: int) -> None:
            many.step(policy.act(many.vectors(), prepared, k % 32, None))

        cases.append(
            Case("layer 3: and the default actor, lockstep", n, decided, 5,
                 lambda: many.reset(first=begin, stop=YEAR - 1))
        )  # fmt: skip
    except (ImportError, TypeError, ValueError, AttributeError) as problem:
        print(f"layer 3 skipped: {type(problem).__name__}: {problem}")
    return cases


def is_long_where_means_cross(bars: Bars) -> np.ndarray:
    """Return where the mean of 10 closes lies above that of 30, ``(n,)``."""
    closes = np.concatenate([[0.0], np.cumsum(bars.close)])
    fast, slow = np.zeros(len(bars)), np.zeros(len(bars))
    fast[9:], slow[29:] = (closes[10:] - closes[:-10]) / 10, (closes[30:] - closes[:-30]) / 30
    return (fast > slow) & (np.arange(len(bars)) >= 30)


def simulator_cases() -> list[Case]:
    """Return a year of H1 with a crossing of means, here, in backtesting.py and in vectorbt, where they install.

    vectorbt also takes 64 columns in one call, as `BatchedAccounts.play` takes 64 accounts.
    """
    bars = random_bars(YEAR, seed=1)
    is_long = is_long_where_means_cross(bars)
    rules = replace(RULES, zero_level="none")
    plan = np.zeros((YEAR - 2, 6))
    plan[is_long[1:-1], 0] = 0.1
    table = market_table(bars, EURUSD, rules)
    many, plans_of_many = BatchedAccounts(table, rules, 64), np.repeat(plan[:, None], 64, axis=1)
    return [
        Case("a year, crossing means: halfstep", 1, lambda _: run_actions(table, rules, plan, 1)),
        Case(
            "a year, 64 crossings: halfstep", 64, lambda _: many.play(plans_of_many), 1,
            lambda: many.reset(first=1, stop=YEAR - 1),
        ),
        *backtesting_cases(bars, is_long),
        *vectorbt_cases(bars, is_long),
    ]  # fmt: skip


def installed(simulator: str) -> tuple[Any, Any] | None:
    """Return another simulator and pandas, or None where one is not installed, after saying so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(simulator), importlib.import_module("pandas")
    except ImportError as problem:
        print(f"{simulator} skipped: {problem}")
        return None


def backtesting_cases(bars: Bars, is_long: np.ndarray) -> list[Case]:
    """Return the crossing in backtesting.py."""
    if (found := installed("backtesting")) is None:
        return []
    backtesting, pd = found
    frame = pd.DataFrame(
        {name.title(): np.array(getattr(bars, name)) for name in ("open", "high", "low", "close")},
        index=pd.to_datetime(bars.time, unit="s"),
    )

    class Crossing(backtesting.Strategy):  # type: ignore[misc]
        def init(self) -> None:
            pass

        def next(self) -> None:
            wanted = is_long[len(self.data) - 1]
            if wanted and not self.position:
                self.buy(size=10_000)
            elif not wanted and self.position:
                self.position.close()

    def theirs(_: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return backtesting.Backtest(frame, Crossing, cash=10_000, margin=0.01).run()

    return [Case(f"a year, crossing means: backtesting.py {backtesting.__version__}", 1, theirs)]


def vectorbt_cases(bars: Bars, is_long: np.ndarray) -> list[Case]:
    """Return the crossing in vectorbt, in one column and in 64; orders at the next open, as here."""
    if (found := installed("vectorbt")) is None:
        return []
    vectorbt, pd = found
    decided = np.concatenate([[False], is_long[:-1]])

    def columns(n: int) -> Callable[[int], Any]:
        close, opened = (pd.DataFrame(np.repeat(prices[:, None], n, 1)) for prices in (bars.close, bars.open))
        wanted = np.repeat(decided[:, None], n, axis=1)
        return lambda _: vectorbt.Portfolio.from_signals(
            close, entries=wanted, exits=~wanted, price=opened, size=10_000, init_cash=1e6
        ).final_value()

    name = f"vectorbt {vectorbt.__version__}"
    return [
        Case(f"a year, crossing means: {name}", 1, columns(1)),
        Case(f"a year, 64 crossings: {name}", 64, columns(64)),
    ]


def simulator_ratios(medians: dict[str, float]) -> dict[str, float]:
    """Return how many times as long the other simulators take."""
    ratios = {}
    for name in medians:
        what, _, simulator = name.partition(": ")
        if name.startswith("a year, ") and simulator not in ("", "halfstep"):
            ratios[f"{simulator} / halfstep, {what}"] = medians[name] / medians[f"{what}: halfstep"]
    return ratios


def growth() -> list[dict[str, Any]]:
    """Return time and memory over numbers of accounts and of bars."""
    rows = []
    cases = [accounts_case(f"{n:,} accounts", n) for n in (64, 1024, 4096, 16_384, 65_536)]
    interleaved(cases, 15)
    rows += [row(case) for case in cases]
    for n in (6_000, 60_000, 600_000, 3_700_000):
        bars = minutes(n)
        rules = replace(RULES, deposit=1e9)  # enough for the costs of ten years
        start = time.perf_counter()
        table = market_table(bars, EURUSD, rules)
        made = time.perf_counter() - start
        one = BatchedAccounts(table, rules, 1)
        actions = np.random.default_rng(0).random((n - 2, 1, 6))
        seconds = []
        for _ in range(3):
            one.reset(first=1, stop=n - 1)
            start = time.perf_counter()
            one.play(actions)
            seconds.append(time.perf_counter() - start)
        done = int(one.state.bar[0]) - 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            {
                "name": f"{n:,} M1 bars, one account",
                "ms": 1e3 * statistics.median(seconds),
                "best_ms": 1e3 * min(seconds),
                "rate": done / statistics.median(seconds),
                "table_s": made,
                "table_mb": table.nbytes / 1e6,
                "peak_mb": peak,
            }
        )
    return rows


def minutes(n: int) -> Bars:
    """Return n M1 bars of a random walk."""
    generator = np.random.default_rng(3)
    move = np.rint(generator.normal(0, 3, n))
    close = 110_000 + np.cumsum(move)
    close = 60_000 + np.abs(close - 60_000)  # reflected far away
    opened = np.concatenate([[close[0]], close[:-1]])
    reach = generator.integers(0, 4, (2, n))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) + reach[0],
        "low": np.minimum(opened, close) - reach[1],
        "close": close,
    }
    return Bars(
        time=1_400_000_000 + 60 * np.arange(n), **{name: column / 1e5 for name, column in columns.items()},
        volume=np.ones(n), spread=np.zeros(n, np.int32), symbol="EURUSD", timeframe=Timeframe.M1, digits=5,
    )  # fmt: skip


def compile_times() -> list[dict[str, Any]]:
    """Return seconds from nothing and from the cache to the first step, in processes of their own."""
    code = (
        "import time, numpy as np\n"
        "from halfstep.broker import *\n"
        "from halfstep.market.synthetic import random_bars\n"
        "from halfstep.market.instruments import instrument\n"
        "r = AccountRules(); t = market_table(random_bars(300, seed=1), instrument('EURUSD'), r)\n"
        "s = time.perf_counter(); run_actions(t, r, np.zeros((100, 6)), 1); a = time.perf_counter() - s\n"
        "s = time.perf_counter(); b = BatchedAccounts(t, r, 4096); b.step(np.zeros((4096, 6))); b.vectors()\n"
        "print(a, time.perf_counter() - s)\n"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        for name in ("first compilation", "from the cache"):
            out = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            one, many = map(float, out.stdout.split())
            rows += [
                {"name": f"{name}: run_actions", "ms": 1e3 * one},
                {"name": f"{name}: 4,096 accounts and their vectors", "ms": 1e3 * many},
            ]
    return rows


def row(case: Case) -> dict[str, Any]:
    """Return a case's figures."""
    return {
        "name": case.name,
        "ms": 1e3 * case.median,
        "best_ms": 1e3 * min(case.seconds),
        "rate": case.units / case.median,
        "best_rate": case.units / min(case.seconds),
        "bar": case.bar,
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "gymnasium": gymnasium.__version__,
        "threads": numba.get_num_threads(),
        "threading layer": getattr(numba.config, "THREADING_LAYER", "default"),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.growth:
        rows, ratios = growth(), {}
    elif asked.compile:
        rows, ratios = compile_times(), {}
    else:
        cases = account_cases() + env_cases() + layer_cases() + simulator_cases()
        interleaved(cases, asked.rounds)
        rows = [row(case) for case in cases]
        by_name = {case.name: case.median for case in cases}
        ratios = {
            f"CartPole / VectorEnv, {n:,}": by_name[f"CartPole vector step, {n:,}"] / by_name[f"VectorEnv.step, {n:,}"]
            for n in (BATCH, 64)
        }  # fmt: skip
        ratios |= simulator_ratios(by_name)
    about = machine()
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    for line in rows:
        rate = f"{line['rate'] / 1e6:9.3f} M/s" if "rate" in line else ""
        best = f"best {line['best_rate'] / 1e6:9.3f} M/s" if "best_rate" in line else ""
        more = "".join(
            f"  {key} {line[key]:.1f}" for key in ("table_s", "table_mb", "peak_mb") if key in line
        )
        print(f"{line['name']:52s} {line['ms']:10.4f} ms {rate} {best}{more}  {line.get('bar', '')}")
    for name, value in ratios.items():
        print(f"{name:52s} {value:10.2f} x")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": about, "rows": rows, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
