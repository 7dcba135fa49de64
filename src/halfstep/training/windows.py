"""Windows of bars and the bars behind them: what an encoder is trained and judged on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from halfstep.market.splits import training_origins
from halfstep.nn.encoder import Encoder, EncoderOutput
from halfstep.nn.normalise import InstanceStats
from halfstep.nn.tpm_stateful import TpmState, TpmStateful

TARGET_BOUND = 10.0  # deviations
CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class EncoderData:
    """Features of all bars, and the spans.

    Attributes:
        values: ``(bar, feature)`` float32.
        names: feature names.
        train, validation: half-open pairs of bar indices.
        settled: first row that may be used.
        data_hash: of the bars.
    """

    values: Tensor
    names: tuple[str, ...]
    train: tuple[int, int]
    validation: tuple[int, int]
    settled: int
    data_hash: str


class WindowTable:
    """Windows by the bar they end at, with what the encoder reads of them besides, computed once per bar.

    Args:
        encoder: tells the length of a window and of a target.
        data: the bars.
        stop: no window ends at this bar or a later one.
    """

    def __init__(self, encoder: Encoder, data: EncoderData, stop: int) -> None:
        self.data, self.bars, self.horizon = data, encoder.config.bars, encoder.config.horizon
        self.begin = data.settled + self.bars - 1
        rows = data.values[data.settled : max(stop, self.begin)].unfold(0, self.bars, 1).transpose(1, 2)
        parts = [encoder.static(part) for part in rows.split(CHUNK)]
        self._static = None if parts[0] is None else torch.cat([part for part in parts if part is not None])

    def at(
        self, origins: Int[Tensor, "*batch"]
    ) -> tuple[
        Float[Tensor, "*batch time feature"],
        Float[Tensor, "*batch static"] | None,
        Float[Tensor, "*batch horizon feature"],
    ]:
        """Return windows that end at origins, their static features, and the bars behind them."""
        x, y = windows_at(self.data.values, origins, self.bars, self.horizon)
        return x, None if self._static is None else self._static[origins - self.begin], y


def windows_at(
    values: Float[Tensor, "bar feature"], origins: Int[Tensor, "*batch"], before: int, after: int
) -> tuple[Float[Tensor, "*batch time feature"], Float[Tensor, "*batch horizon feature"]]:
    """Return the ``before`` bars that end at each origin, oldest first, and the ``after`` bars behind it."""
    rows = values[origins[..., None] + torch.arange(1 - before, after + 1)]
    return rows[..., :before, :], rows[..., before:, :]


def window_origins(span: tuple[int, int], encoder: Encoder, settled: int) -> Int[Tensor, " origin"]:
    """Return the origins of a span that have a context and whose target ends inside the span."""
    origins = training_origins(span, encoder.config.horizon)
    start, stop = max(origins.start, settled + encoder.first_row), max(origins.stop, 0)
    return torch.arange(min(start, stop), stop)


def standardised_target(
    encoder: Encoder, y: Float[Tensor, "*batch horizon feature"], stats: InstanceStats
) -> Float[Tensor, "*batch horizon column"]:
    """Return the future of the forecast features in units of the input window's deviation, clipped."""
    target = encoder.norm.standardise(y, stats)[..., encoder.columns]
    return target.clamp(-TARGET_BOUND, TARGET_BOUND)


@torch.no_grad()
def forecasts(
    encoder: Encoder, table: WindowTable, origins: Int[Tensor, " origin"]
) -> Iterator[
    tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch horizon feature"], EncoderOutput]
]:
    """Yield windows, the bars behind them and their forecasts, for consecutive origins in order.

    A recurrent encoder passes over all bars from the first whole window on, as `Encoder.encode_table` does.
    """
    state: TpmState | None = None
    first = table.begin if isinstance(encoder, TpmStateful) else int(origins[0])
    for part in torch.arange(first, int(origins[-1]) + 1).split(CHUNK):
        x, static, y = table.at(part)
        if isinstance(encoder, TpmStateful):
            output, state = encoder(x[None], state, None if static is None else static[None])
            output = flat_output(output)
        else:
            output = encoder(x, static)
        skipped = max(0, int(origins[0]) - int(part[0]))
        if skipped < len(part):
            stats = InstanceStats(*(each[skipped:] for each in output.stats))
            yield x[skipped:], y[skipped:], EncoderOutput(output.latent[skipped:], stats)


def flat_output(output: EncoderOutput) -> EncoderOutput:
    """Return the forecasts of streams of bars as one batch."""
    return EncoderOutput(output.latent.flatten(0, 1), InstanceStats(*(x.flatten(0, 1) for x in output.stats)))
