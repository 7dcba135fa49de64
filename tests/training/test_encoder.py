"""Training of the encoder: targets, statistics of the training span, naive forecasts, resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from halfstep.nn.build import build_encoder
from halfstep.nn.normalise import InstanceStats
from halfstep.nn.presets import preset
from halfstep.progress import SILENT
from halfstep.training import checkpoint
from halfstep.training.encoder import (
    EncoderResult,
    evaluate,
    naive_errors,
    train_encoder,
)
from halfstep.training.settings import EncoderTraining, OptimizerSettings
from halfstep.training.windows import WindowTable, standardised_target, window_origins, windows_at

from .conftest import TEST, TRAIN, World

SETTINGS = EncoderTraining(epochs=2, batch=32)


def train(world: World, folder: Path, **changes: object) -> EncoderResult:
    arguments = {
        "optimizer": "adam_mini", "optimizer_settings": OptimizerSettings(), "seed": 1, "folder": folder,
    } | changes  # fmt: skip
    data = arguments.pop("data", world.encoder_data)
    settings = arguments.pop("settings", SETTINGS)
    return train_encoder(preset("tiny"), data, settings, **arguments)  # type: ignore[arg-type]


def test_windows_end_at_their_origin_and_targets_begin_behind_it() -> None:
    values = torch.arange(300.0)[:, None].repeat(1, 2)
    x, y = windows_at(values, torch.tensor([150, 160]), 120, 24)
    assert x[0, :, 0].tolist() == list(range(31, 151))
    assert y[1, :, 0].tolist() == list(range(161, 185))


def test_origins_keep_the_purge_and_the_settled_rows(world: World) -> None:
    encoder = build_encoder(preset("tiny"), feature_names=world.encoder_data.names, seed=0)
    origins = window_origins(TRAIN, encoder, settled=500)
    assert origins[0] == TRAIN[0]
    assert origins[-1] == TRAIN[1] - 25  # the last target bar is the span's last
    assert window_origins((0, 900), encoder, settled=500)[0] == 500 + 119


@pytest.mark.pitfall("M12")
def test_each_feature_weighs_the_same(world: World) -> None:
    encoder = build_encoder(preset("tiny"), feature_names=world.encoder_data.names, seed=0)
    deviation = torch.ones(1, 1, 9)
    deviation[..., 0], deviation[..., 1] = 10.0, 1e-4
    stats = InstanceStats(torch.zeros(1, 1, 9), deviation)
    error = torch.zeros(1, 24, 9)
    error[..., 0], error[..., 1] = 10.0, 1e-4
    target = standardised_target(encoder, error, stats)
    torch.testing.assert_close(target[..., :2], torch.ones(1, 24, 2))
    assert standardised_target(encoder, 1e9 * error, stats).max() == 10.0  # clipped


@pytest.mark.pitfall("T3")
def test_statistics_come_from_the_training_span(world: World, tmp_path: Path) -> None:
    changed = world.encoder_data.values.clone()
    changed[TEST[0] :] *= 1e6
    plain = train(world, tmp_path / "a")
    other = train(world, tmp_path / "b", data=replace(world.encoder_data, values=changed))
    assert torch.equal(plain.encoder.norm.reference_std, other.encoder.norm.reference_std)
    rows = world.encoder_data.values[TRAIN[0] : TRAIN[1]].double()
    torch.testing.assert_close(plain.encoder.norm.reference_mean, rows.mean(0).float())
    torch.testing.assert_close(plain.encoder.norm.reference_std, rows.std(0, correction=0).float())


@pytest.mark.pitfall("R12")
def test_selection_never_reads_the_test_span(world: World, tmp_path: Path) -> None:
    blind = world.encoder_data.values.clone()
    blind[TEST[0] :] = float("nan")
    plain = train(world, tmp_path / "a")
    other = train(world, tmp_path / "b", data=replace(world.encoder_data, values=blind))
    assert plain.curve == other.curve
    assert (tmp_path / "a" / "models" / "encoder.safetensors").read_bytes() == (
        tmp_path / "b" / "models" / "encoder.safetensors"
    ).read_bytes()


def test_naive_forecasts_by_hand(world: World) -> None:
    encoder = train(world, Path(world.study_data.store.folder).parent / "naive").encoder
    data = replace(world.encoder_data, values=torch.arange(1100.0)[:, None].repeat(1, 9), settled=0)
    errors = naive_errors(encoder, WindowTable(encoder, data, 325), (300, 325))  # one origin: a straight line
    deviation = torch.arange(120.0).std(correction=0)
    ahead = torch.arange(1.0, 25.0)
    expected = [
        (ahead / deviation).square().mean(),  # last value
        ((ahead + 59.5) / deviation).square().mean(),  # window mean
        (torch.full((24,), 24.0) / deviation).square().mean(),  # the same hour yesterday
    ]
    torch.testing.assert_close(errors[:, 0], torch.stack(expected), rtol=1e-4, atol=0)


def test_result_describes_the_kept_weights(world: World, folder: Path) -> None:
    result = train(world, folder, settings=EncoderTraining(epochs=4, batch=32))
    losses = [point["validation"] for point in result.curve]
    assert result.validation_loss == min(losses)
    data = world.encoder_data
    table = WindowTable(result.encoder, data, data.validation[1])
    loss, mse = evaluate(result.encoder.train(), table, data.validation, 0.7)
    assert loss == pytest.approx(result.validation_loss)
    assert mse.tolist() == pytest.approx(result.mse)
    by_hand = [1 - m / n for m, n in zip(result.mse, result.naive_mse, strict=True)]
    assert result.skill == pytest.approx(by_hand, abs=1e-6)  # float32


def test_training_stops_when_validation_no_longer_improves(world: World, folder: Path) -> None:
    result = train(
        world, folder, settings=EncoderTraining(epochs=60, patience=2, batch=32),
        optimizer_settings=OptimizerSettings(lr=0.02),
    )  # fmt: skip
    losses = [point["validation"] for point in result.curve]
    assert len(losses) < 60
    assert len(losses) - 1 - losses.index(min(losses)) == 2


def test_interrupted_training_resumes_to_the_same_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(world, tmp_path / "a")
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)  # keep every update

    class Interrupting:
        """Stops the training after some batches, as a kill would."""

        def __init__(self, batches: int) -> None:
            self.left = batches

        def start(self, name: str, total: int, unit: str) -> None:
            pass

        def advance(self, done: int, **_: float) -> None:
            self.left -= done == SETTINGS.batch
            if self.left < 0:
                raise KeyboardInterrupt

        def finish(self) -> None:
            pass

    for batches in (3, 5, 2):
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path / "b", progress=Interrupting(batches))
    resumed = train(world, tmp_path / "b", progress=SILENT)
    assert resumed.curve == unbroken.curve
    assert resumed.updates == unbroken.updates
    for name in ("models/encoder.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_too_short_a_validation_span_is_named(world: World, folder: Path) -> None:
    with pytest.raises(ValueError, match="must hold more than 24 bars"):
        train(world, folder, data=replace(world.encoder_data, validation=(900, 920)))
