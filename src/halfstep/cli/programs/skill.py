"""How well an encoder forecasts the test bars, beside naive forecasts."""

from typing import Any

import numpy as np
import torch

from halfstep.backtest import content
from halfstep.backtest.comparison import ForecastErrors
from halfstep.backtest.figures import Table, table
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import encoder_data
from halfstep.nn.encoder import Encoder
from halfstep.training.encoder import naive_guesses
from halfstep.training.windows import WindowTable, forecasts, standardised_target, window_origins

KNOWN_BARS = 120
WINDOWS = 3


def forecast_errors(encoder: Encoder, market: Market) -> ForecastErrors | None:
    """Return the errors of every forecast whose bars lie inside the test span; None where none does."""
    data = encoder_data(market)
    origins = window_origins(market.spans.test, encoder, data.settled)
    if len(origins) == 0:
        return None
    windows = WindowTable(encoder, data, market.spans.test[1])
    parts: dict[str, list[Any]] = {
        name: [] for name in ("model", "last_value", "window_mean", "same_hour", "truth", "forecast")
    }
    with torch.inference_mode():
        for x, y, output in forecasts(encoder, windows, origins):
            target = standardised_target(encoder, y, output.stats)
            parts["model"].append((output.latent - target).square())
            for name, guess in zip(("last_value", "window_mean", "same_hour"), naive_guesses(x, output.stats, y.shape[1]), strict=True):  # fmt: skip
                guessed = encoder.norm.standardise(guess, output.stats)[..., encoder.columns]
                parts[name].append((guessed - target).square())
            parts["truth"].append(target.sum(dim=1))
            parts["forecast"].append(output.latent.sum(dim=1))
    arrays = {name: torch.cat(found).double().numpy() for name, found in parts.items()}
    names = np.array(data.names)[np.arange(len(data.names))[encoder.columns]]
    return ForecastErrors(features=tuple(names.tolist()), **arrays)


def forecast_windows(encoder: Encoder, market: Market) -> Table:
    """Return three forecasts, at the beginning, in the middle and at the end of the test span, in the feature's units."""
    data = encoder_data(market)
    origins = window_origins(market.spans.test, encoder, data.settled)
    windows = WindowTable(encoder, data, market.spans.test[1])
    chosen = sorted({int(origins[k]) for k in np.linspace(0, len(origins) - 1, WINDOWS).astype(int)})
    names = [data.names[k] for k in np.arange(len(data.names))[encoder.columns]]
    records = []
    with torch.inference_mode():
        for window, origin in enumerate(chosen, 1):
            [(x, y, output)] = forecasts(encoder, windows, torch.tensor([origin]))
            guess = encoder.to_units(output)[0].numpy()
            known, truth = x[0, -KNOWN_BARS:, encoder.columns].numpy(), y[0][:, encoder.columns].numpy()
            for k, name in enumerate(names):
                base = {"window": window, "time": int(market.bars.server_time[origin]), "feature": name}
                records += [
                    base
                    | {
                        "step": step - len(known) + 1,
                        "known": float(known[step, k]),
                        "truth": None,
                        "forecast": None,
                    }
                    for step in range(len(known))
                ]
                records += [
                    base
                    | {
                        "step": h + 1,
                        "known": None,
                        "truth": float(truth[h, k]),
                        "forecast": float(guess[h, k]),
                    }
                    for h in range(len(truth))
                ]
    return table(content.FORECAST_WINDOWS, records)
