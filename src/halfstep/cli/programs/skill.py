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


def forecast_windows(encoder: Encoder, market: Market, errors: ForecastErrors) -> Table:
    """Return three forecasts of the feature with the greatest skill, in its units: first, middle and last of the span."""
    data = encoder_data(market)
    origins = window_origins(market.spans.test, encoder, data.settled)
    windows = WindowTable(encoder, data, market.spans.test[1])
    chosen = sorted({int(origins[k]) for k in np.linspace(0, len(origins) - 1, WINDOWS).astype(int)})
    naive = np.min([squared.mean(axis=(0, 1)) for squared in errors.naive.values()], axis=0)
    name = errors.features[int(np.argmin(errors.model.mean(axis=(0, 1)) / np.maximum(naive, 1e-12)))]
    column, place = data.names.index(name), errors.features.index(name)
    records: list[dict[str, Any]] = []
    with torch.inference_mode():
        for window, origin in enumerate(chosen, 1):
            [(x, y, output)] = forecasts(encoder, windows, torch.tensor([origin]))
            guess = encoder.to_units(output)[0, :, place].tolist()
            known, truth = x[0, -KNOWN_BARS:, column].tolist(), y[0, :, column].tolist()
            base = {"window": window, "time": int(market.bars.server_time[origin]), "feature": name}
            records += [
                base | {"step": step - len(known) + 1, "known": value, "truth": None, "forecast": None}
                for step, value in enumerate(known)
            ]
            records += [
                base | {"step": h, "known": None, "truth": real, "forecast": value}
                for h, (real, value) in enumerate(zip(truth, guess, strict=True), 1)
            ]
    return table(content.FORECAST_WINDOWS, records)
