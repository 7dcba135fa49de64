"""One rank of the trainings that `test_ranks` compares: ``ranks_at_work.py RANK WORLD STORE FOLDER CASE ...``.

Writes losses and hashes of the weights, by case, to ``FOLDER/WORLD-RANK.json``.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from conftest import World, make_world
from halfstep.errors import ConfigError, HalfstepError, RankLostError
from halfstep.nn.config import EncoderConfig, ModelConfig, TpmStatefulConfig
from halfstep.nn.presets import preset
from halfstep.training import checkpoint
from halfstep.training.encoder import train_encoder
from halfstep.training.networks import build_networks
from halfstep.training.policy import weights_hash
from halfstep.training.ranks import ALONE, Ranks
from halfstep.training.samples import Batch, Batches
from halfstep.training.settings import PUBLISHED_STUDY, EncoderTraining, OptimizerSettings, StudySettings
from halfstep.training.study import Trainer, study

UPDATES = 20
DTYPES = {"float32": torch.float32, "float64": torch.float64}
STUDIES: dict[str, dict[str, Any]] = {
    "guided": {},
    "published": dict(PUBLISHED_STUDY),
    "td": {"target": "td"},
    "awr": {"objective": "awr", "target": "value"},
    "oracle": {"objective": "oracle"},
    "odd": {"batch": 30},  # four ranks get 8, 8, 7, 7
}
ENCODERS: dict[str, tuple[EncoderConfig, EncoderTraining]] = {
    # the last batch of an epoch holds a single window, so only one rank has a row
    "windows": (preset("tiny").encoder, EncoderTraining(epochs=3, patience=3, batch=35)),
    "streams": (
        TpmStatefulConfig(hidden=6, plr_segments=4, burn_in=10),
        EncoderTraining(epochs=5, patience=5, streams=4, block_bars=16),
    ),
}
Found = dict[str, Any]


@dataclass
class Losses:
    """Listens to a training, and stops it at an update."""

    stop: int = 0
    updates: int = 0
    found: list[float] = field(default_factory=list)

    def start(self, name: str, total: int, unit: str) -> None: ...

    def advance(self, done: int, **figures: float) -> None:  # noqa: ARG002  # the protocol's signature
        self.found += figures.values()
        self.updates += bool(figures)
        if self.updates == self.stop and figures:
            raise KeyboardInterrupt

    def finish(self) -> None: ...


class Typed:
    """Batches of another dtype."""

    def __init__(self, batches: Batches, dtype: torch.dtype) -> None:
        self.size, self._batches, self._dtype = batches.size, batches, dtype

    def at(self, number: int) -> Batch:
        return self._typed(self._batches.at(number))

    def _typed(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(self._dtype) if value.is_floating_point() else value
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: self._typed(getattr(value, f.name)) for f in fields(value)})
        return value


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def studied(world: World, ranks: Ranks, kind: str, dtype: torch.dtype) -> Found:
    settings = StudySettings(**{"updates": UPDATES, "batch": 32} | STUDIES[kind])
    networks = build_networks(preset("tiny"), settings, seed=1)
    for module in (*networks.trained.values(), *networks.copies.values()):
        module.to(dtype)
    batches: Any = Typed(Batches(world.study_data, settings, 1, ranks), dtype)
    trainer = Trainer(networks, batches, settings, "adam_mini", OptimizerSettings(), 1, ranks)
    losses: list[float] = []
    for number in range(UPDATES):
        losses += trainer.update(number).values()
    weights = [weights_hash(module) for module in networks.trained.values()]
    return {"updates": UPDATES, "losses": losses, "weights": weights}


def encoded(world: World, ranks: Ranks, kind: str, dtype: torch.dtype, folder: Path, stop: int = 0) -> Found:
    config, settings = ENCODERS[kind]
    data = replace(world.encoder_data, values=world.encoder_data.values.to(dtype))
    heard = Losses(stop)
    with default_dtype(dtype):
        result = train_encoder(
            ModelConfig(encoder=config), data, settings, optimizer="adam_mini", seed=1, folder=folder,
            optimizer_settings=OptimizerSettings(), progress=heard, ranks=ranks,
        )  # fmt: skip
    losses = [*heard.found, *(point["train"] for point in result.curve), result.validation_loss, *result.mse]
    return {"updates": heard.updates, "losses": losses, "weights": [weights_hash(result.encoder)]}


def running_statistics(world: World, ranks: Ranks, folder: Path) -> Found:
    encoder = replace(preset("tiny").encoder, norm="running")
    try:
        train_encoder(
            ModelConfig(encoder=encoder), world.encoder_data, EncoderTraining(batch=32), optimizer="adam_mini", seed=1,
            folder=folder, optimizer_settings=OptimizerSettings(), ranks=ranks,
        )  # fmt: skip
    except ConfigError as error:
        return {"message": str(error)}
    raise AssertionError("running statistics were accepted")


def agreement(ranks: Ranks) -> Found:
    """Return what every rank hears where only the last one fails."""

    def opened() -> int:
        if ranks.rank == ranks.world - 1:
            raise ConfigError("nothing to open")
        return 3

    assert ranks.agreed(lambda: ranks.rank) == ranks.rank
    try:
        ranks.agreed(opened)
    except HalfstepError as error:
        return {"message": str(error)}
    raise AssertionError("nobody heard of it")


def whole_study(world: World, ranks: Ranks, folder: Path, stop: int = 0) -> Found:
    settings = StudySettings(updates=14, batch=32, eval_every=5, target="td")
    heard = Losses(stop)
    result = study(
        preset("tiny"), world.study_data, settings, optimizer="adam_mini", optimizer_settings=OptimizerSettings(),
        seed=1, folder=folder, progress=heard, ranks=ranks,
    )  # fmt: skip
    losses = [*heard.found, *(point["log_growth"] for point in result.validation)]
    return {"updates": heard.updates, "losses": losses, "weights": [weights_hash(result.actor)]}


def stopped(call: Callable[..., Found], *args: Any) -> Found:
    """Return nothing, and leave a training stopped at its eleventh update; every update is kept."""
    checkpoint.CHECKPOINT_SECONDS = 0.0
    try:
        call(*args, stop=11)
    except KeyboardInterrupt:
        return {}
    raise AssertionError("nothing stopped")


def left_alone(ranks: Ranks) -> Found:
    """Return what the first rank says when the last one is gone."""
    if ranks.rank == ranks.world - 1:
        dist.destroy_process_group()
        sys.exit(0)
    try:
        for _ in range(1000):
            ranks.add_up([torch.ones(3)])
    except RankLostError as error:
        return {"message": str(error)}
    raise AssertionError("nobody was missed")


def work(world: World, ranks: Ranks, case: str, folder: Path) -> Found:
    kind, _, rest = case.partition("-")
    here = folder / (case if ranks.is_first else "nobody")  # only the first rank may write
    kept = folder / ("kept" if ranks.is_first else "nobody")
    if kind in STUDIES:
        return studied(world, ranks, kind, DTYPES[rest])
    if kind in ENCODERS:
        return encoded(world, ranks, kind, DTYPES[rest], here)
    streams = (world, ranks, "streams", torch.float64, kept / "streams")
    cases: dict[str, Callable[[], Found]] = {
        "stopped-study": lambda: stopped(whole_study, world, ranks, kept / "study"),
        "continued-study": lambda: whole_study(world, ranks, kept / "study"),
        "stopped-streams": lambda: stopped(encoded, *streams),
        "continued-streams": lambda: encoded(*streams),
        "running-statistics": lambda: running_statistics(world, ranks, here),
        "agreement": lambda: agreement(ranks),
        "left-alone": lambda: left_alone(ranks),
    }
    return cases[case]()


def main(rank: int, size: int, store: Path, folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    ranks = ALONE
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous-{size}", rank=rank, world_size=size,
            timeout=timedelta(seconds=240),
        )  # fmt: skip
        ranks = Ranks.of(dist.group.WORLD)
    world = make_world(store)
    found: dict[str, Found] = {}
    for case in cases:
        found[case] = work(world, ranks, case, folder)
        (folder / f"{size}-{rank}.json").write_text(json.dumps(found))
    if size > 1 and "left-alone" not in cases:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
