"""Compiles and exports networks in a process of its own, because the shape checks of the tests cannot be compiled.

Usage: python -m tests.nn.compiling BACKEND NAME ...     prints one JSON object: per network what was seen
"""

import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._pytree import tree_leaves

from halfstep.nn.build import build_actor, build_critic, build_encoder, build_value
from halfstep.nn.policy import Actor, Critic, ValueNet
from halfstep.nn.presets import PRESETS, preset

from .cases import KINDS, NAMES, encoder_of, noise

BATCHES = (2, 3, 5, 7)
Make = Callable[[int], tuple[Tensor, ...]]


class FromContext(nn.Module):
    """A policy network with its preparation of the context."""

    def __init__(self, network: Actor | Critic | ValueNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, context: Tensor, account: Tensor, *more: Tensor) -> object:
        prepared = self.network.prepare(context)
        if isinstance(self.network, Critic):
            return self.network(account, *more, prepared)
        return self.network(account, prepared, *more)


def networks(name: str) -> Iterator[tuple[str, nn.Module, Make]]:
    """Yield the networks of a preset, or one of the other encoders, each with its inputs by batch size."""
    if name in KINDS:
        yield name, encoder_of(name), lambda batch: (noise(batch, 120, 9),)
        return
    config = preset(name)
    width = config.encoder.context_width

    def windows(batch: int) -> tuple[Tensor, ...]:
        return (noise(batch, 3, 120, 9) if name == "reference" else noise(batch, 120, 9),)

    yield f"{name} encoder", build_encoder(config, feature_names=NAMES, seed=0), windows
    for key, network, actions in (
        ("actor", build_actor(config, seed=0), 1), ("critic", build_critic(config, seed=0), 1),
        ("value", build_value(config, seed=0), 0),
    ):  # fmt: skip
        yield (
            f"{name} {key}",
            FromContext(network),
            lambda b, n=actions: (noise(b, 9, width), noise(b, 4, 12), *(noise(b, 4, 6) for _ in range(n))),
        )


def far(a: object, b: object) -> float:
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def examine(network: nn.Module, inputs: Make, backend: str) -> dict[str, float]:
    """Return captured graphs and greatest differences of the compiled and of the exported program."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    compile_error = max(far(compiled(*inputs(b)), network(*inputs(b))) for b in BATCHES)
    one = inputs(1)
    program = torch.export.export(network, one)
    return {
        "graphs": counter.frame_count,
        "compiled": compile_error,
        "exported": far(program.module()(*one), network(*one)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    backend, *names = sys.argv[1:]
    assert all(name in (*PRESETS, *KINDS) for name in names)
    print(json.dumps({key: examine(net, make, backend) for n in names for key, net, make in networks(n)}))
