"""Space-time network: attention over the bars of a window, and a decoder that reads them (STNN).

    encoder:  AttentionStack(feed-forward first, causal) on the normalised window, tokens = bars
    decoder:  Dense(newest ``horizon`` bars of the forecast columns) -> the same kind of stack
              -> CrossAttentionStack over the encoder's tokens -> Dense to the columns

A bar sees itself and older ones. Encoder and decoder are trained jointly. The original paper's attention without a
softmax is left out.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.attention import AttentionStack, CrossAttentionStack
from halfstep.nn.config import StnnConfig
from halfstep.nn.dense import Dense
from halfstep.nn.encoder import WindowEncoder
from halfstep.nn.head import linear_skip
from halfstep.nn.normalise import ALL


class Stnn(WindowEncoder):
    """Attention encoder and attention decoder; forecasts some of the features."""

    def __init__(self, config: StnnConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__(config, feature_names, ALL if config.columns is None else list(config.columns))
        self.horizon = config.horizon
        outputs = config.features if config.columns is None else len(config.columns)
        width = config.stack.width
        self.embed = None if width == config.features else Dense(config.features, width)
        self.stack = AttentionStack(config.stack)
        self.embed_decoder = Dense(outputs, width)
        self.stack_decoder = AttentionStack(config.stack)
        self.cross = CrossAttentionStack(replace(config.stack, mask="none", context_width=width))
        self.out = Dense(width, outputs)
        self.skip = None
        if config.linear_skip:
            self.skip = nn.Parameter(torch.zeros(outputs, config.horizon, config.bars))

    def predict(
        self,
        x: Float[Tensor, "batch time feature"],
        static: Float[Tensor, "batch static"] | None,  # noqa: ARG002  # there is none
    ) -> Float[Tensor, "batch horizon column"]:
        """Return the forecast of normalised windows."""
        tokens = self.encode(x)
        own = x[..., self.columns]
        queries = self.stack_decoder(self.embed_decoder(own[:, -self.horizon :]))
        y: Tensor = self.out(self.cross(queries, self.cross.prepare(tokens)))
        return y if self.skip is None else y + linear_skip(self.skip, own)

    def encode(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time width"]:
        """Return the encoder's token of each bar."""
        tokens: Tensor = self.stack(x if self.embed is None else self.embed(x))
        return tokens
