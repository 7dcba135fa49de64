"""A trained actor as the policy that research and test understand."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from halfstep.nn.attention import Folded
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor

PATHS = 64  # a vector width of any processor divides it


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """The context of every bar from ``first`` on, each encoded once.

    Attributes:
        first: bar of row 0.
        rows: ``(bar, token, width)`` float32.
        encoder_hash: of the encoder's weights.
    """

    first: int
    rows: Float[Tensor, "bar token width"]
    encoder_hash: str

    def at(self, bars: np.ndarray[Any, np.dtype[np.int64]]) -> Float[Tensor, "batch token width"]:
        """Return the contexts of bars."""
        return self.rows[torch.from_numpy(bars - self.first)]


def encode_contexts(
    encoder: Encoder, values: Float[Tensor, "bar feature"], first: int, *, settled: int
) -> Contexts:
    """Encode every bar from ``first`` to the end, each once.

    Args:
        settled: first row that may be used; a recurrent encoder begins there.
    """
    encoder.eval()
    rows = encoder.encode_table(values[settled:], first - settled, len(values) - settled)
    return Contexts(first=first, rows=rows, encoder_hash=weights_hash(encoder))


def weights_hash(module: torch.nn.Module) -> str:
    """Return a SHA-256 of a module's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


class NeuralPolicy:
    """An actor over a table of contexts; sampling happens only where noise is given.

    The action of a path does not depend on the paths beside it: with noise, paths are padded to a multiple of 64,
    because vectors and what is left over at their end are computed with other roundings.
    """

    def __init__(self, actor: Actor, contexts: Contexts) -> None:
        self._actor, self._contexts = actor, contexts
        self.hash = weights_hash(actor)

    @torch.inference_mode()
    def prepare(self, first: int, last: int) -> Folded:
        """Return the actor folded with the contexts of bars ``first`` to ``last - 1``."""
        begin = first - self._contexts.first
        return self._actor.fold(self._contexts.rows[begin : begin + last - first])

    @torch.inference_mode()
    def act(
        self,
        account: Float32[np.ndarray, "path 12"],
        prepared: Any,
        row: int,
        noise: Float32[np.ndarray, "path 6"] | None,
    ) -> Float64[np.ndarray, "path 6"]:
        """Return netted actions; all paths share the bar's context."""
        n = len(account)
        drawn = None
        if noise is not None:
            rest = -n % PATHS
            account, noise = (
                (np.pad(a, ((0, rest), (0, 0))) for a in (account, noise)) if rest else (account, noise)
            )
            drawn = torch.from_numpy(noise)
        action = self._actor.act_folded(torch.from_numpy(account), prepared, row, drawn)
        return np.asarray(action[:n].double().numpy(), np.float64)
