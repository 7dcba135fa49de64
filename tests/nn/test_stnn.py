"""The space-time network against its parts put together by hand."""

import pytest
import torch

from halfstep.nn.config import StackConfig, StnnConfig
from halfstep.nn.stnn import Stnn

from .cases import NAMES, STNN_STACK, noise, shaken


def test_forecast_is_encoder_decoder_and_cross_attention() -> None:
    stnn = shaken(Stnn(StnnConfig(stack=STNN_STACK), NAMES))
    x = noise(2, 120, 9, dtype=torch.float64)
    with torch.no_grad():
        normalised, _ = stnn.norm.normalise(x)
        tokens = stnn.stack(normalised)  # bars are tokens, features their width
        newest = normalised[:, -24:, :4]
        queries = stnn.stack_decoder(newest @ stnn.embed_decoder.weight.T + stnn.embed_decoder.bias)
        y = stnn.cross(queries, stnn.cross.prepare(tokens)) @ stnn.out.weight.T + stnn.out.bias
        y = y + torch.einsum("fht,btf->bhf", stnn.skip, normalised[..., :4])
        latent = (y - stnn.norm.shift[:4]) * (-stnn.norm.gain[:4]).exp()
        torch.testing.assert_close(stnn(x).latent, latent, rtol=1e-10, atol=1e-12)


def test_columns_and_width() -> None:
    wide = StackConfig(width=6, layers=1, heads=2, kv_heads=1, head_dim=3, order="feed_forward_first")
    stnn = Stnn(StnnConfig(stack=wide, columns=(5, 2), linear_skip=False), NAMES)
    assert stnn(noise(3, 120, 9)).latent.shape == (3, 24, 2)
    assert stnn.context(noise(3, 120, 9)).shape == (3, 2, 26)
    assert "skip" not in stnn.state_dict()
    every = Stnn(StnnConfig(stack=wide, columns=None), NAMES)
    assert every(noise(3, 120, 9)).latent.shape == (3, 24, 9)
    with pytest.raises(ValueError, match=r"columns: \(9,\), must lie between 0 and 8"):
        StnnConfig(columns=(9,))
    with pytest.raises(ValueError, match="horizon: 24, must be at most bars 12"):
        StnnConfig(bars=12)
