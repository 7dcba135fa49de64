"""Time of an optimizer step on the default networks: alone, interleaved A B A B, median of many rounds."""

import statistics
import time

import torch

from halfstep.cli.programs.models import model_config
from halfstep.config.tables import Config
from halfstep.nn.build import build_actor, build_critic, build_encoder
from halfstep.training.optimizers import make_optimizer


def step_times(config: Config, feature_names: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    """Return median and quartiles of the milliseconds of a step over encoder, actor and critic together, by optimizer."""
    sizes = model_config(config)
    candidates = {}
    for name in config.compare.optimizers:
        model = torch.nn.ModuleList(
            [
                build_encoder(sizes, feature_names=feature_names, seed=0),
                build_actor(sizes, seed=0),
                build_critic(sizes, seed=0),
            ]
        )
        generator = torch.Generator().manual_seed(0)
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=generator)
        candidates[name] = make_optimizer(name, model, config.optim)
    rounds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(config.compare.timing_rounds + 3):
        for name, optimizer in candidates.items():
            began = time.perf_counter()
            optimizer.step()
            if round_number >= 3:  # the first rounds allocate
                rounds[name].append(1000 * (time.perf_counter() - began))
    return {name: _middle_and_quartiles(times) for name, times in rounds.items()}


def _middle_and_quartiles(times: list[float]) -> tuple[float, float, float]:
    if len(times) < 2:
        return times[0], times[0], times[0]
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, low, high
