"""The arms of a comparison: one optimizer with one seed does the whole chain, in a process of its own.

An arm's folder holds its networks, its curves and ``arm.json``, which is written last: an arm with that file is
finished, another one continues where it stopped.
"""

import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from halfstep import files
from halfstep.backtest.metrics import Path as TestPath
from halfstep.backtest.metrics import compute_rows
from halfstep.broker.deals import deals_frame, positions_frame, trades_frame
from halfstep.broker.engine import Run
from halfstep.cli.programs.market import Market, load_market
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import study_encoder
from halfstep.config.load import validated
from halfstep.config.tables import Config
from halfstep.experience.rollout import trade
from halfstep.experience.store import EpisodeStore
from halfstep.market.calendar import years_between
from halfstep.progress import SILENT, Progress
from halfstep.training.encoder import EncoderResult
from halfstep.training.policy import NeuralPolicy
from halfstep.training.study import StudyResult

_events: Any = None  # the queue of a worker process, set when the process starts


@dataclass(frozen=True, slots=True)
class Arm:
    """One optimizer with one seed."""

    optimizer: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the arm's folder."""
        return f"{self.optimizer}-s{self.seed}"


def arms_of(config: Config) -> list[Arm]:
    """Return the arms of a comparison, seed by seed."""
    return [
        Arm(name, seed) for seed in range(1, config.compare.seeds + 1) for name in config.compare.optimizers
    ]


def run_arm(
    config: Config, market: Market, arm: Arm, store_folder: Path, folder: Path, progress: Progress = SILENT
) -> None:
    """Do one arm: encoder, contexts, study, one pass over the test span."""
    encoder, contexts = study_encoder(
        config, market, folder, progress, optimizer=arm.optimizer, seed=arm.seed
    )
    store = EpisodeStore.open(store_folder, expect=market.store_header)
    policy = study_policy(
        config,
        market,
        folder,
        progress,
        encoder_folder=folder,
        contexts=contexts,
        store=store,
        optimizer=arm.optimizer,
        seed=arm.seed,
    )
    first, stop = market.spans.test
    actions, run = trade(
        NeuralPolicy(policy.actor, contexts),
        market.test_table,
        market.test_rules,
        first=first - 1,
        stop=stop - 1,
    )
    files.write_json(folder / "arm.json", _record(arm, encoder, policy, market, actions.tolist(), run))


def run_arms(
    config: Config, arms: Sequence[Arm], store_folder: Path, folder: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Run every unfinished arm, several side by side, and return the records of all."""
    todo = [arm for arm in arms if not (folder / arm.name / "arm.json").exists()]
    progress.start(f"{len(arms)} arms (optimizer, seed)", 100 * len(arms), "%")
    progress.advance(100 * (len(arms) - len(todo)))
    if todo:
        _run_in_processes(config, todo, store_folder, folder, progress)
    progress.finish()
    return [read_arm(folder / arm.name) for arm in arms]


def read_arm(folder: Path) -> dict[str, Any]:
    """Return the record of a finished arm."""
    record: dict[str, Any] = json.loads((folder / "arm.json").read_text(encoding="utf-8"))
    return record


def path_of_test(market: Market, run: Run) -> TestPath:
    """Return a run over the test span as the report's arithmetic reads it."""
    deals = deals_frame(run.log, market.test_table)
    first, last = int(run.bar[0]), int(run.bar[-1])
    return TestPath(
        deposit=market.rules.deposit,
        balance=run.balance,
        equity=run.equity,
        equity_worst=run.equity_worst,
        margin=run.margin,
        lots=run.lots,
        years=years_between(int(market.bars.time[first]), int(market.bars.close_time[last])),
        trades=trades_frame(deals),
        positions=positions_frame(deals, market.test_table),
        deals=int(run.log.counts[0]),
    )


def _record(
    arm: Arm,
    encoder: EncoderResult,
    policy: StudyResult,
    market: Market,
    actions: list[list[float]],
    run: Run,
) -> dict[str, Any]:
    parameters = sum(
        param.numel()
        for module in (encoder.encoder, policy.actor, policy.critic)
        for param in module.parameters()
    )
    return {
        "optimizer": arm.optimizer,
        "seed": arm.seed,
        "encoder": {
            "curve": encoder.curve, "validation_loss": encoder.validation_loss, "mse": encoder.mse,
            "naive_mse": encoder.naive_mse, "skill": encoder.skill, "updates": encoder.updates,
        },
        "study": {"validation": policy.validation, "log_growth": policy.log_growth, "curve": policy.curve},
        "state_bytes": encoder.state_bytes + policy.state_bytes,
        "parameters": parameters,
        "test": {
            "actions": actions,
            "rows": {row.key: row.value for row in compute_rows(path_of_test(market, run))},
            "net_profit": float(run.equity[-1] - market.rules.deposit),
            "log_growth": float(run.reward.sum()),
            "status": run.status,
        },
        "clock": {"encoder_seconds": encoder.seconds, "study_seconds": policy.seconds},
    }  # fmt: skip


def _run_in_processes(
    config: Config, arms: Sequence[Arm], store_folder: Path, folder: Path, progress: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    shares = dict.fromkeys((arm.name for arm in arms), 0.0)
    workers = min(config.run.processes, len(arms))
    lifeline, held = context.Pipe(duplex=False)
    with (
        held,
        ProcessPoolExecutor(workers, context, _begin_worker, (events, lifeline, config.run.threads)) as pool,
    ):
        tree = config.model_dump(mode="json")
        jobs = {pool.submit(_worker, tree, arm, store_folder, folder / arm.name): arm for arm in arms}
        pending: set[Future[None]] = set(jobs)
        try:
            while pending:
                _listen(events, shares, progress)
                for job in [job for job in pending if job.done()]:
                    pending.remove(job)
                    job.result()  # raises what the arm raised
                    _count(jobs[job].name, 1.0, shares, progress)
        except BaseException:
            held.close()  # ends the workers now instead of after their arms
            raise


def _listen(events: Any, shares: dict[str, float], progress: Progress) -> None:
    try:
        name, share, figures = events.get(timeout=0.2)
    except queue.Empty:
        return
    _count(name, share, shares, progress, **figures)


def _count(name: str, share: float, shares: dict[str, float], progress: Progress, **figures: float) -> None:
    gain = int(100 * share) - int(100 * shares[name])
    if gain > 0:
        progress.advance(gain, **figures)
        shares[name] = share


def _begin_worker(events: Any, lifeline: Connection, threads: int) -> None:
    """Prepare a worker process, which ends when the other end of ``lifeline`` closes: also when its parent is killed."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """Wait for the lifeline to close, then end this process; its checkpoints are whole at any moment."""
    lifeline.poll(None)
    os._exit(1)


def _worker(tree: dict[str, Any], arm: Arm, store_folder: Path, folder: Path) -> None:
    config = validated(tree, source="the run")
    run_arm(config, load_market(config), arm, store_folder, folder, _QueueProgress(arm.name))


class _QueueProgress:
    """Reports an arm's share of work to the parent process: encoder first half, study second half."""

    def __init__(self, name: str) -> None:
        self._name, self._stage, self._done, self._total = name, -1, 0, 1

    def start(self, name: str, total: int, unit: str) -> None:  # noqa: ARG002  # the protocol's signature
        self._stage, self._done, self._total = self._stage + 1, 0, max(1, total)

    def advance(self, done: int, **figures: float) -> None:
        before = self._done * 50 // self._total
        self._done += done
        if self._done * 50 // self._total > before:
            share = min(1.0, self._done / self._total)
            _events.put((self._name, min(0.99, 0.5 * (self._stage + share)), figures))

    def finish(self) -> None:
        pass
