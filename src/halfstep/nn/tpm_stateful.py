"""The series' encoder: one recurrent step per bar on the whole window, its state carried from bar to bar.

With T bars, D features, the normalised window x ``(T, D)`` and the state (h, c, h', c'):

    f = Cscm(x)                                              own weights per bar position; T D numbers
    w = softmax over bars, per feature, of tanh(W [f; h; c] + b);      h, c = LSTM(f * w)
    q = softmax over units of tanh(W_a [h; h'; c'] + b_a);             y = W_y [q * h; segments] + b_y
    h', c' = LSTM'(y);   forecast = head(h')

What does not depend on the state (Cscm, the columns of W for f, the columns of W_y for the segments) is computed for
all bars at once. Reset rule: one pass per table of bars from its first whole window; the first ``burn_in`` bars after
a reset are neither trained on nor traded.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor

from halfstep.nn.config import TpmStatefulConfig
from halfstep.nn.cscm import Cscm
from halfstep.nn.decoder import Decoder
from halfstep.nn.dense import Dense
from halfstep.nn.encoder import Encoder, EncoderOutput
from halfstep.nn.head import ForecastHead
from halfstep.nn.lstm import LstmCell
from halfstep.nn.segments import WindowSegments


class TpmState(NamedTuple):
    """State after a bar: hidden and cell state of the first cell, then of the decoder's, each ``(batch, hidden)``."""

    h: Tensor
    c: Tensor
    d: Tensor
    e: Tensor

    def detach(self) -> "TpmState":
        """Return the same numbers; no gradient passes."""
        return TpmState(*(part.detach() for part in self))


class TpmStateful(Encoder):
    """One step per bar; a context depends on every bar since the reset."""

    def __init__(self, config: TpmStatefulConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__(config, feature_names)
        hidden, flat = config.hidden, config.bars * config.features
        self.burn_in = config.burn_in
        self.segments = WindowSegments(config, feature_names)
        self.cscm = Cscm(config.bars, config.features)
        self.input_attention = Dense(flat + 2 * hidden, flat)
        self.lstm = LstmCell(flat, hidden)
        self.temporal_attention = Dense(3 * hidden, hidden, "tanh")
        self.decoder = Decoder(hidden, self.segments.size)
        self.head = ForecastHead(hidden, config.horizon, config.features, config.head, config.skip_bars)

    @property
    def first_row(self) -> int:
        """First row of a table behind the first whole window and the burn-in."""
        return self.config.bars - 1 + self.burn_in

    def first_state(self, x: Float[Tensor, "batch bar time feature"]) -> TpmState:
        """Return the state after a reset."""
        zeros = x.new_zeros(len(x), self.lstm.hidden_size)
        return TpmState(zeros, zeros, zeros, zeros)

    def static(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch static"]:
        """Return the segments of windows."""
        segments: Tensor = self.segments(x)
        return segments

    def forward(
        self,
        x: Float[Tensor, "batch bar time feature"],
        state: TpmState | None = None,
        static: Float[Tensor, "batch bar static"] | None = None,
    ) -> tuple[EncoderOutput, TpmState]:
        """Return the forecasts of consecutive bars' windows, and the state after the last bar.

        Args:
            x: the window that ends at each bar.
            state: before the first bar; None: after a reset.
            static: of the windows, if it was computed before.
        """
        state = self.first_state(x) if state is None else state
        if static is None:
            static = self.static(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        normalised, stats = self.norm.normalise(x)
        f = self.cscm(normalised.flatten(0, 1)).unflatten(0, x.shape[:2])
        # columns of the two dense layers whose inputs are known for all bars
        flat, hidden = f.flatten(2), self.lstm.hidden_size
        scores_of_f = F.linear(
            flat, self.input_attention.weight[:, : flat.shape[2]], self.input_attention.bias
        )
        score_columns = self.input_attention.weight[:, flat.shape[2] :]
        y_of_segments = F.linear(
            static.to(flat.dtype), self.decoder.join.weight[:, hidden:], self.decoder.join.bias
        )
        y_columns = self.decoder.join.weight[:, :hidden]
        h, c, d, e = state
        outputs = []
        for f_t, known_scores, known_y in zip(
            f.unbind(1), scores_of_f.unbind(1), y_of_segments.unbind(1), strict=True
        ):
            scores = known_scores + F.linear(torch.cat([h, c.to(h.dtype)], dim=1), score_columns)
            w = torch.tanh(scores).view_as(f_t).softmax(1)
            h, c = self.lstm((f_t * w.to(f_t.dtype)).flatten(1), h, c)
            q = self.temporal_attention(torch.cat([h, d, e.to(h.dtype)], dim=1)).softmax(1)
            y = known_y + F.linear(q.to(h.dtype) * h, y_columns)
            d, e = self.decoder.lstm(y, d, e)
            outputs.append(d)
        forecast = self.head(torch.stack(outputs, dim=1), normalised)
        return EncoderOutput(self.norm.undo_affine(forecast), stats), TpmState(h, c, d, e)

    @torch.no_grad()
    def encode_table(
        self, features: Float[Tensor, "bar feature"], first: int, last: int, chunk: int = 512
    ) -> Float[Tensor, "row token width"]:
        """Return the context of bars ``first`` to ``last - 1``, by one pass from the table's first whole window."""
        self.windows(features, first, last)  # refuses what has no context
        begin = self.config.bars - 1
        passing = (
            features[: max(last, begin + 1)].unfold(0, self.config.bars, 1).transpose(1, 2)[: last - begin]
        )
        state: TpmState | None = None
        rows = []
        for number, part in enumerate(passing.split(chunk)):
            output, state = self(part[None], state)
            skipped = max(0, first - begin - number * chunk)
            rows.append(self.to_context(output, part[None])[0, skipped:])
        return torch.cat(rows)
