"""The order of training windows, the state of streams, and one context per bar whoever asks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from halfstep.errors import CoverageError
from halfstep.nn.build import build_encoder
from halfstep.nn.config import (
    AttentionConfig,
    EncoderConfig,
    ModelConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
)
from halfstep.nn.presets import preset
from halfstep.training import checkpoint
from halfstep.training.batches import StreamBatches, WindowBatches, make_batches
from halfstep.training.encoder import train_encoder
from halfstep.training.policy import encode_contexts
from halfstep.training.settings import EncoderTraining, OptimizerSettings
from halfstep.training.windows import WindowTable, forecasts, window_origins

from .conftest import TRAIN, VALIDATION, World

STATEFUL = TpmStatefulConfig(hidden=6, plr_segments=4, burn_in=10)
SMALL = StackConfig(width=9, layers=1, heads=2, kv_heads=1, head_dim=4, mask="causal")
KINDS: dict[str, EncoderConfig] = {
    "tpm_windowed": preset("tiny").encoder,
    "tpm_stateful": STATEFUL,
    "stnn": StnnConfig(stack=replace(SMALL, order="feed_forward_first")),
    "attention": AttentionConfig(stack=SMALL),
}
SETTINGS = EncoderTraining(epochs=2, batch=32, streams=4, block_bars=20)


def batches_of(
    world: World, config: EncoderConfig
) -> tuple[WindowBatches | StreamBatches, Tensor, WindowTable]:
    data = world.encoder_data
    encoder = build_encoder(ModelConfig(encoder=config), feature_names=data.names, seed=0)
    table = WindowTable(encoder, data, data.validation[1])
    origins = window_origins(TRAIN, encoder, data.settled)
    return make_batches(encoder, table, origins, SETTINGS, seed=3), origins, table


def seen(batches: WindowBatches | StreamBatches, table: WindowTable, epoch: int) -> list[int]:
    """Return the origins of an epoch's batches, found by the bar behind each window."""
    first = {tuple(row.tolist()): bar for bar, row in enumerate(table.data.values)}
    found = []
    for number in range(batches.count(epoch)):
        y = batches.forecast(epoch, number).y
        found += [first[tuple(row.tolist())] - 1 for row in y[:, 0]]
    return found


def test_windows_come_once_per_epoch_in_another_order(world: World) -> None:
    batches, origins, table = batches_of(world, KINDS["tpm_windowed"])
    orders = [seen(batches, table, epoch) for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == origins.tolist()


def test_streams_pass_over_their_bars_in_order(world: World) -> None:
    batches, origins, table = batches_of(world, STATEFUL)
    order = seen(batches, table, 0)
    assert sorted(order) == origins[: len(order)].tolist()
    assert len(origins) - len(order) < 4  # fewer than one bar per stream is left over
    streams = [[bar for bar in order if k * len(order) <= 4 * (bar - int(origins[0])) < (k + 1) * len(order)] for k in range(4)]  # fmt: skip
    assert all(stream == sorted(stream) for stream in streams)
    assert seen(batches, table, 0) == order
    assert batches.count(0) in (4, 5)  # 61 bars in blocks of 20, moved


@pytest.mark.pitfall("N7")
def test_the_state_goes_on_and_its_gradient_does_not(world: World) -> None:
    batches, _, _ = batches_of(world, STATEFUL)
    batches.forecast(0, 0)
    before = [part.clone() for part in batches.carried]
    assert not any(part.requires_grad for part in batches.carried)
    output = batches.forecast(0, 1).output
    assert output.latent.requires_grad
    assert not any(torch.equal(a, b) for a, b in zip(before, batches.carried, strict=True))
    batches.carried = [torch.zeros_like(part) for part in before]
    other = batches.forecast(0, 1).output
    assert not torch.equal(other.latent, output.latent)  # the block before has an influence


def test_streams_are_warmed_up_by_the_bars_before_them(world: World) -> None:
    batches, origins, table = batches_of(world, STATEFUL)
    batches.forecast(0, 0)  # number 0 warms up, then passes the first block
    x, static, _ = table.at(origins[0] + torch.arange(-10, 0))
    with torch.no_grad():
        _, state = batches._encoder(x[None], None, None if static is None else static[None])
    for mine, theirs in zip(batches._warm_up(), state, strict=True):
        torch.testing.assert_close(mine[:1], theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("M13")
def test_training_research_and_test_see_the_same_context(world: World, kind: str) -> None:
    data = world.encoder_data
    encoder = build_encoder(ModelConfig(encoder=KINDS[kind]), feature_names=data.names, seed=0).eval()
    encoder.norm.reference_std.fill_(1.0)
    origins = window_origins(VALIDATION, encoder, data.settled)
    judged = [encoder.to_context(output) for _, _, output in forecasts(encoder, WindowTable(encoder, data, VALIDATION[1]), origins)]  # fmt: skip
    contexts = encode_contexts(encoder, data.values, TRAIN[0], settled=data.settled)
    torch.testing.assert_close(torch.cat(judged), contexts.at(origins.numpy()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_resumes_to_the_same_bytes(
    world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        """Stops after some batches, as a kill would."""

        def __init__(self, batches: int) -> None:
            self.left = batches

        def start(self, name: str, total: int, unit: str) -> None:
            pass

        def advance(self, done: int, **figures: float) -> None:  # noqa: ARG002
            self.left -= bool(figures)  # the first call counts what an earlier run did
            if self.left < 0:
                raise KeyboardInterrupt

        def finish(self) -> None:
            pass

    def train(folder: str, batches: int = 10**6) -> dict[str, float]:
        result = train_encoder(
            ModelConfig(encoder=KINDS[kind]), world.encoder_data, SETTINGS, optimizer="adam_mini", seed=1,
            optimizer_settings=OptimizerSettings(), folder=tmp_path / folder, progress=Interrupting(batches),
        )  # fmt: skip
        assert len(result.mse) == (4 if kind == "stnn" else 9)
        return {"loss": result.validation_loss, "updates": result.updates}

    unbroken = train("a")
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)  # keep every update
    for batches in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            train("b", batches)
    assert train("b") == unbroken
    name = "models/encoder.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_too_few_bars_before_the_span_are_named(world: World, tmp_path: Path) -> None:
    config = ModelConfig(encoder=replace(STATEFUL, burn_in=400))
    with pytest.raises(CoverageError, match=r"630 bars before the training span, .* needs 1019\. Begin"):
        train_encoder(
            config, world.encoder_data, SETTINGS, optimizer="adamw", optimizer_settings=OptimizerSettings(),
            seed=1, folder=tmp_path,
        )  # fmt: skip
