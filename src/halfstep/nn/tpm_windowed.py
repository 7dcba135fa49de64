"""The default encoder: dual attention over one window (temporal and price-movement features, TPM).

With D features, C channels, F filters, T' = floor(T / pool) steps and H hidden units, on the normalised window x:

    m   = x + Cscm(x)                                        along features, one weight set for all bars
    r   = relu(SeriesConv(D, F, window 3, step 1)(m))        along time, 2 zeros on the old side
    s   = Dense(D F -> C)(max of r over groups of pool bars)             (T', C); T mod pool oldest bars are dropped
    h_t, c_t = LSTM(C alpha_t * s_t)     alpha_t = softmax over channels of v tanh(W [h; c] + U s_{., k})
    z   = sum_t beta_t h_t               beta = softmax over steps of v' tanh(W' [d; c'] + U' h_t);  d_0, c'_0 = h_T', c_T'
    y   = Dense([z; segments] -> H);     d, c' = LSTM'(y)                j = 1 ... decoder_steps
    forecast = head(d)

The factor C keeps uniform attention neutral. U s is computed once per window, U' h once per sequence.
"""

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.config import TpmWindowedConfig
from halfstep.nn.convolution import SeriesConv
from halfstep.nn.cscm import Cscm
from halfstep.nn.decoder import Decoder
from halfstep.nn.dense import Dense
from halfstep.nn.encoder import WindowEncoder
from halfstep.nn.head import ForecastHead
from halfstep.nn.lstm import LstmCell
from halfstep.nn.segments import WindowSegments

SHORT_WINDOW = 3


class AdditiveAttention(nn.Module):
    """Weights softmax_k of v tanh(W q + U key_k) (Bahdanau et al. 2015).

    Args:
        query, key: numbers of a query and of a key.
        size: numbers inside the tanh.
    """

    def __init__(self, query: int, key: int, size: int) -> None:
        super().__init__()
        self.w = Dense(query, size)
        self.u = Dense(key, size, bias=False)
        self.v = Dense(size, 1, bias=False)

    def forward(
        self, query: Float[Tensor, "batch query"], prepared: Float[Tensor, "batch key_count size"]
    ) -> Float[Tensor, "batch key_count"]:
        """Return the weights; ``prepared`` is ``u(keys)``, which does not depend on the query."""
        weights: Tensor = self.v(torch.tanh(self.w(query)[:, None] + prepared)).squeeze(-1).softmax(-1)
        return weights


class ShortFeatures(nn.Module):
    """Filters of three bars over each feature, the strongest answer of each group of bars, mixed into channels."""

    def __init__(self, config: TpmWindowedConfig) -> None:
        super().__init__()
        self.pool = config.pool
        self.conv = SeriesConv(config.features, config.filters, SHORT_WINDOW, step=1)
        self.mix = Dense(config.features * config.filters, config.channels)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch step channel"]:
        """Return the channels of each group of bars, oldest first."""
        padded = F.pad(x.transpose(1, 2), (SHORT_WINDOW - 1, 0))
        r = self.conv(padded)[:, :, x.shape[1] % self.pool :]
        series = r.transpose(2, 3).flatten(1, 2)  # (batch, feature filter, time)
        # the maximum first: relu leaves it the maximum, and has fewer numbers to go through
        strongest = F.max_pool1d(series, self.pool).relu()
        channels: Tensor = self.mix(strongest.transpose(1, 2))
        return channels


class TpmWindowed(WindowEncoder):
    """Dual attention inside the window; a context is a pure function of the last T bars."""

    def __init__(self, config: TpmWindowedConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__(config, feature_names)
        hidden, steps = config.hidden, config.bars // config.pool
        self.decoder_steps = config.decoder_steps
        self.segments = WindowSegments(config, feature_names)
        self.cscm = Cscm(config.bars, config.features, shared=True)
        self.short = ShortFeatures(config)
        self.input_attention = AdditiveAttention(2 * hidden, steps, config.score)
        self.lstm = LstmCell(config.channels, hidden)
        self.temporal_attention = AdditiveAttention(2 * hidden, hidden, config.score)
        self.decoder = Decoder(hidden, self.segments.size)
        self.head = ForecastHead(hidden, config.horizon, config.features, config.head, config.skip_bars)

    def static(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch static"]:
        """Return the segments of windows."""
        segments: Tensor = self.segments(x)
        return segments

    def predict(
        self, x: Float[Tensor, "batch time feature"], static: Float[Tensor, "batch static"] | None
    ) -> Float[Tensor, "batch horizon feature"]:
        """Return the forecast of normalised windows."""
        assert static is not None  # `static` above never returns None
        s = self.short(x + self.cscm(x))
        states, h, c = self.encode_steps(s)
        prepared = self.temporal_attention.u(states)
        d = h
        for _ in range(self.decoder_steps):
            beta = self.temporal_attention(torch.cat([d, c.to(d.dtype)], dim=1), prepared)
            z = torch.bmm(beta.to(states.dtype)[:, None], states).squeeze(1)
            d, c = self.decoder(z, static, d, c)
        forecast: Tensor = self.head(d, x)
        return forecast

    def encode_steps(
        self, s: Float[Tensor, "batch step channel"]
    ) -> tuple[
        Float[Tensor, "batch step hidden"], Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]
    ]:
        """Return all h_t of the LSTM behind the input attention, and the last h and c."""
        prepared = self.input_attention.u(s.transpose(1, 2))
        h = s.new_zeros(len(s), self.lstm.hidden_size)
        c = h
        states = []
        for s_t in (s.shape[2] * s).unbind(1):
            alpha = self.input_attention(torch.cat([h, c.to(h.dtype)], dim=1), prepared)
            h, c = self.lstm(alpha.to(s_t.dtype) * s_t, h, c)
            states.append(h)
        return torch.stack(states, dim=1), h, c
