"""The cheap parallel encoder: causal attention over the bars of a window; the newest bar's token makes the forecast."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.attention import AttentionStack
from halfstep.nn.config import AttentionConfig
from halfstep.nn.dense import Dense
from halfstep.nn.encoder import WindowEncoder
from halfstep.nn.head import ForecastHead


class AttentionEncoder(WindowEncoder):
    """token = Dense(bar) + position;  forecast = head(newest token of AttentionStack(tokens))."""

    def __init__(self, config: AttentionConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__(config, feature_names)
        width = config.stack.width
        self.embed = Dense(config.features, width)
        self.position = nn.Parameter(torch.zeros(config.bars, width))
        self.stack = AttentionStack(config.stack)
        self.head = ForecastHead(width, config.horizon, config.features, config.head, config.skip_bars)

    def predict(
        self,
        x: Float[Tensor, "batch time feature"],
        static: Float[Tensor, "batch static"] | None,  # noqa: ARG002  # there is none
    ) -> Float[Tensor, "batch horizon feature"]:
        """Return the forecast of normalised windows."""
        forecast: Tensor = self.head(self.encode(x)[:, -1], x)
        return forecast

    def encode(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time width"]:
        """Return the token of each bar."""
        tokens: Tensor = self.stack(self.embed(x) + self.position)
        return tokens
