"""What makes the passes of a group differ: their noise, or the script that some follow instead of the policy.

    e_t = rho e_{t-1} + sqrt(1 - rho^2) xi_t,   noise = factor e_t

rho is drawn per pass from a list, the factor log-uniform in [0.5, 1.5], xi is standard normal, and e_0 too, so the
noise is stationary. Every number of a pass comes from a stream of its own, named by (seed, round, pass).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from halfstep.experience.policy import ACTION_SIZE, SCRIPTS, scripted_actions
from halfstep.experience.seeds import generator
from halfstep.experience.settings import ResearchSettings

FACTORS = (0.5, 1.5)


class Explorers:
    """The exploration of a group of passes.

    Args:
        settings: shares and correlations.
        seed, round_number, passes: name the streams.
        steps: decisions of a pass.
        lot_cap, lot_min: bounds of scripted volumes, lots.

    Attributes:
        scripts: of each pass, its script or an empty string.
        is_scripted: passes that follow a script, ``(pass,)``.
        seeds: of the random slippage of each pass, ``(pass,)``.
    """

    def __init__(
        self,
        settings: ResearchSettings,
        *,
        seed: int,
        round_number: int,
        passes: Sequence[int],
        steps: int,
        lot_cap: float,
        lot_min: float,
    ) -> None:
        n = len(passes)
        self._streams = [generator(seed, "pass", round_number, number) for number in passes]
        self.is_scripted = np.zeros(n, np.bool_)
        self.seeds = np.array([int(stream.integers(2**32)) for stream in self._streams], np.int64)
        self._rho, self._factor = np.empty((n, 1)), np.empty((n, 1))
        self._last = np.empty((n, ACTION_SIZE))
        self.scripts: list[str] = []
        scripted = []
        for k, stream in enumerate(self._streams):
            self.is_scripted[k] = stream.random() < settings.scripted_share
            if self.is_scripted[k]:
                self.scripts.append(SCRIPTS[int(stream.integers(len(SCRIPTS)))])
                scripted.append(scripted_actions(self.scripts[k], steps, lot_cap, lot_min, stream))
                continue
            self.scripts.append("")
            self._rho[k] = settings.rho[int(stream.integers(len(settings.rho)))]
            self._factor[k] = np.exp(stream.uniform(*np.log(FACTORS)))
            self._last[k] = stream.standard_normal(ACTION_SIZE)
        self._scripted = np.stack(scripted, axis=1) if scripted else np.empty((steps, 0, ACTION_SIZE))

    def noise(self, bars: int) -> Float32[np.ndarray, "{bars} pass 6"]:
        """Return the noise of the next bars; 0 for scripted passes."""
        fresh = np.zeros((bars, len(self._streams), ACTION_SIZE))
        free = np.flatnonzero(~self.is_scripted)
        for k in free:
            fresh[:, k] = self._streams[k].standard_normal((bars, ACTION_SIZE))
        fresh[:, free] *= np.sqrt(1 - self._rho[free] ** 2)
        noise = np.zeros(fresh.shape, np.float32)
        last, rho, factor = self._last[free], self._rho[free], self._factor[free]
        for bar in range(bars):
            last = rho * last + fresh[bar, free]
            noise[bar, free] = factor * last
        self._last[free] = last
        return noise

    def script(self, step: int) -> Float64[np.ndarray, "scripted 6"]:
        """Return the actions of the scripted passes at a step."""
        scripted: npt.NDArray[np.float64] = self._scripted[step]
        return scripted
