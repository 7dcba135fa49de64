"""The order in which an encoder sees its training windows; it depends on (seed, epoch) only.

An encoder of windows sees each once per epoch, shuffled. A recurrent one sees streams: the span is cut into equal
consecutive parts, an update takes the next block of bars of every stream, and the state goes on without its gradient.
Each epoch moves the borders of blocks at random. The bars before a stream warm its state up, without a loss.
Where several processes train, they share out the windows of a batch, or the streams.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from halfstep.experience.seeds import generator
from halfstep.nn.encoder import Encoder, EncoderOutput, WindowEncoder
from halfstep.nn.tpm_stateful import TpmState, TpmStateful
from halfstep.training.ranks import ALONE, Ranks, Share
from halfstep.training.settings import EncoderTraining
from halfstep.training.windows import WindowTable, flat_output


class Forecast(NamedTuple):
    """What an encoder says of this rank's windows of a batch.

    Attributes:
        output: for these windows.
        y: the bars behind them.
        share: what they are of the batch of all ranks.
        samples: windows of that batch.
    """

    output: EncoderOutput
    y: Float[Tensor, "batch horizon feature"]
    share: Share
    samples: int


class WindowBatches:
    """Each window once per epoch, shuffled."""

    def __init__(
        self,
        encoder: WindowEncoder,
        table: WindowTable,
        origins: Tensor,
        settings: EncoderTraining,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.carried: list[Tensor] = []
        self._encoder, self._table, self._origins, self._ranks = encoder, table, origins, ranks
        self._size, self._seed = settings.batch, seed
        self._epoch = -1
        self._parts: tuple[Tensor, ...] = ()

    def count(self, epoch: int) -> int:  # noqa: ARG002  # all epochs are alike
        """Return the updates of an epoch."""
        return -(-len(self._origins) // self._size)

    def forecast(self, epoch: int, number: int) -> Forecast:
        """Return the forecasts of an epoch's batch."""
        if epoch != self._epoch:
            order = generator(self._seed, "encoder order", epoch).permutation(len(self._origins))
            self._epoch, self._parts = epoch, self._origins[torch.from_numpy(order)].split(self._size)
        part = self._parts[number]
        share = self._ranks.share(len(part))
        x, static, y = self._table.at(part[share.rows])
        return Forecast(self._encoder(x, static), y, share, len(part))


class StreamBatches:
    """Blocks of consecutive bars from several streams; up to ``streams`` - 1 of the newest bars are left over."""

    def __init__(
        self,
        encoder: TpmStateful,
        table: WindowTable,
        origins: Tensor,
        settings: EncoderTraining,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.carried: list[Tensor] = []
        self._encoder, self._table, self._seed, self._block = encoder, table, seed, settings.block_bars
        self._streams = min(settings.streams, len(origins))
        self._share = ranks.share(self._streams)
        self._length = len(origins) // self._streams
        starts = origins[: self._length * self._streams : self._length]
        self._starts = starts[self._share.rows]

    def count(self, epoch: int) -> int:
        """Return the updates of an epoch."""
        return -(-(self._length + self._shift(epoch)) // self._block)

    def forecast(self, epoch: int, number: int) -> Forecast:
        """Return the forecasts of an epoch's block."""
        if number == 0:
            self._carry(self._warm_up())
        begin = max(0, number * self._block - self._shift(epoch))
        end = min(self._length, (number + 1) * self._block - self._shift(epoch))
        x, static, y = self._table.at(self._starts[:, None] + torch.arange(begin, end))
        before = TpmState(*(part[self._share.rows] for part in self.carried))
        output, state = self._encoder(x, before, static)
        self._carry(state.detach())
        samples = self._streams * (end - begin)
        return Forecast(flat_output(output), y.flatten(0, 1), self._share, samples)

    def _carry(self, state: TpmState) -> None:
        """Keep the state of all streams, so that any number of processes can go on from it."""
        self.carried = [self._share.gathered(part, self._streams) for part in state]

    def _shift(self, epoch: int) -> int:
        """Return by how many bars the borders of blocks lie earlier in this epoch."""
        return int(generator(self._seed, "encoder shift", epoch).integers(0, min(self._block, self._length)))

    @torch.no_grad()
    def _warm_up(self) -> TpmState:
        bars = torch.arange(-self._encoder.burn_in, 0)
        x, static, _ = self._table.at(self._starts[:, None] + bars)
        if len(bars) == 0:
            return self._encoder.first_state(x)
        state: TpmState = self._encoder(x, None, static)[1]
        return state


Batches = WindowBatches | StreamBatches
"""Batches of an epoch by number, in order. ``carried``, of all ranks, goes from one to the next; a checkpoint keeps it."""


def make_batches(
    encoder: Encoder,
    table: WindowTable,
    origins: Tensor,
    settings: EncoderTraining,
    seed: int,
    ranks: Ranks = ALONE,
) -> Batches:
    """Return the batches of an encoder over consecutive origins, of which each rank gets its share."""
    if isinstance(encoder, TpmStateful):
        return StreamBatches(encoder, table, origins, settings, seed, ranks)
    if isinstance(encoder, WindowEncoder):
        return WindowBatches(encoder, table, origins, settings, seed, ranks)
    raise TypeError(f"encoder: {type(encoder).__name__}, must be TpmStateful or a WindowEncoder.")
