"""The networks of a folder: the table of contexts is a cache, and an encoder is carried on unchanged."""

from pathlib import Path

import pytest
import torch

from halfstep.cli.programs import models
from halfstep.cli.programs.market import Market, load_market
from halfstep.cli.programs.models import carry_encoder, contexts_of, model_config, model_file
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.config.tables import WINDOW_BARS
from halfstep.errors import MissingInputError
from halfstep.nn.build import build_encoder
from halfstep.nn.encoder import Encoder
from halfstep.nn.presets import PRESETS, preset

CONFIG = merged(smoke(), {"data": {"made_up": 2000}}, source="test")


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market(CONFIG)


def encoder_of(market: Market, seed: int) -> Encoder:
    encoder = build_encoder(model_config(CONFIG), feature_names=market.features.names, seed=seed)
    encoder.norm.reference_std.fill_(1.0)
    return encoder.eval()


def test_contexts_are_encoded_once(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, made, encode = encoder_of(market, 1), [0], models.encode_contexts

    def counted(*arguments: object, **options: object) -> object:
        made[0] += 1
        return encode(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "encode_contexts", counted)
    first, second = tmp_path / "first", tmp_path / "second"
    fresh = contexts_of(encoder, market, first)
    for folder, others in ((first, ()), (second, (first,)), (None, (first,))):
        found = contexts_of(encoder, market, folder, *others)
        assert torch.equal(found.rows, fresh.rows)
        assert found.rows.is_contiguous()
        # Sums over rows that lie elsewhere than torch puts them round otherwise: read from the mapped file, a
        # continued run once gave other trajectories in the last digit.
        assert found.rows.data_ptr() % 64 == fresh.rows.data_ptr() % 64 == 0
        assert (found.first, found.encoder_hash) == (fresh.first, fresh.encoder_hash)
    assert made == [1]
    assert not second.exists()  # what an earlier program has is not written again
    other = contexts_of(encoder_of(market, 2), market, first)
    assert made == [2]
    assert not torch.equal(other.rows, fresh.rows)
    path = model_file(first, "context")
    path.write_bytes(path.read_bytes()[:-8])
    assert torch.equal(contexts_of(encoder, market, first).rows, fresh.rows)
    assert made == [3]
    contexts_of(encoder, market, None)
    assert made == [4]


def test_contexts_of_other_bars_are_not_taken(market: Market, tmp_path: Path) -> None:
    longer = load_market(merged(CONFIG, {"data": {"made_up": 2001}}, source="test"))
    encoder = encoder_of(market, 1)
    before = contexts_of(encoder, market, tmp_path)
    after = contexts_of(encoder, longer, tmp_path)
    assert len(after.rows) == len(longer.bars) - longer.spans.train[0]
    assert len(before.rows) == len(market.bars) - market.spans.train[0]


def test_an_encoder_is_carried_on_unchanged(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no encoder in .*a: run halfstep study-encoder --out .*a$"):
        carry_encoder(tmp_path / "a", tmp_path / "b")
    source = model_file(tmp_path / "a", "encoder")
    source.parent.mkdir(parents=True)
    source.write_bytes(b"weights")
    carry_encoder(tmp_path / "a", tmp_path / "b")
    assert model_file(tmp_path / "b", "encoder").read_bytes() == b"weights"
    carry_encoder(tmp_path / "a", tmp_path / "a")
    assert source.read_bytes() == b"weights"


def test_settings_know_the_window_of_every_preset() -> None:
    assert {preset(name).encoder.bars for name in PRESETS} == {WINDOW_BARS}
    assert model_config(merged(smoke(), {"model": {"context_bars": 7}}, source="x")).encoder.context_bars == 7
