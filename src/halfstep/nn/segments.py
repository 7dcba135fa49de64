"""What the recurrent encoders see of a window's piecewise linear representation, as a flat vector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.config import TpmConfig
from halfstep.nn.plr import Plr

PATHS = (("gap", "body"), ("close_open",))
"""Features whose running sum is the price path, for the feature sets that are known."""
LEAST_DEVIATION = 1e-12


class WindowSegments(nn.Module):
    """Segments of the price path of a window, or of every feature by itself.

    The path is the running sum of its features. A series is centred and divided by its own deviation before it is
    cut, so the threshold is in deviations. Nothing is learnt, so training computes the segments once per bar.

    Args:
        config: sizes of the encoder.
        feature_names: names of the columns, which tell the price path.
    """

    def __init__(self, config: TpmConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__()
        self.plr = Plr(config.plr_threshold, config.plr_segments)
        self.path = _path_columns(config, feature_names) if config.plr_series == "path" else None
        self.size = 3 * config.plr_segments * (config.features if self.path is None else 1)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch static"]:
        """Return the segments of windows, series by series, oldest slot first."""
        wide = x.to(torch.float32 if x.device.type == "mps" else torch.float64)
        if self.path is None:
            series = wide.transpose(1, 2)
        else:
            series = wide[..., self.path].sum(2).cumsum(1).unsqueeze(1)
        centred = series - series.mean(2, keepdim=True)
        deviation = centred.square().mean(2, keepdim=True).sqrt()
        segments: Tensor = self.plr(centred / deviation.clamp_min(LEAST_DEVIATION))
        return segments.flatten(1).to(x.dtype)


def _path_columns(config: TpmConfig, names: tuple[str, ...]) -> list[int]:
    candidates = PATHS if config.path_features is None else (config.path_features,)
    for path in candidates:
        if path and set(path) <= set(names):
            return [names.index(name) for name in path]
    raise ValueError(
        f"path_features: {' or '.join('+'.join(path) for path in candidates)}, must be among the features "
        f"{', '.join(names)}. Set path_features, or plr_series='all'."
    )
