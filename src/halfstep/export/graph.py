"""Encoder and actor as one network from what a terminal knows to what it orders.

Everything between is inside: normalisation of the window, the account as twelve numbers, the harmonics of the clock,
netting, and the decoding of fractions into lots on the grid and points.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from halfstep.broker.rules import AccountRules
from halfstep.errors import ConfigError
from halfstep.market.instruments import Instrument
from halfstep.market.state import BOUND, DAY, MONTH, WEEK, YEAR
from halfstep.nn.encoder import Encoder, WindowEncoder
from halfstep.nn.normalise import RevIN
from halfstep.nn.policy import Actor
from halfstep.nn.tpm_stateful import TpmState, TpmStateful

ACCOUNT = ("balance", "equity", "buy_lots", "sell_lots", "buy_profit", "sell_profit", "discount")
ORDER = ("buy_lots", "buy_tp_points", "buy_sl_points", "sell_lots", "sell_tp_points", "sell_sl_points")
STATES = TpmState._fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How the actor's numbers become an order; the broker's own rules, see docs/broker.md.

    Attributes:
        floor: least balance and equity that divide, account currency.
        lot_step, lot_min, lot_cap: grid, least and most volume, lots.
        level_scale: points that a fraction of 1.0 means.
        per_10k: volumes are lots per 10,000 of equity.
    """

    floor: float
    lot_step: float
    lot_min: float
    lot_cap: float
    level_scale: float
    per_10k: bool = False

    @classmethod
    def of(cls, rules: AccountRules, instrument: Instrument) -> "Decoding":
        """Return the decoding that the broker of a test does."""
        return cls(
            floor=rules.floor, lot_step=instrument.lot_step, lot_min=instrument.lot_min,
            lot_cap=min(rules.lot_cap, instrument.lot_max), level_scale=float(instrument.level_scale_points),
            per_10k=rules.volume_unit == "lots_per_10k",
        )  # fmt: skip


class PolicyInputs(NamedTuple):
    """One decision's inputs, each with a batch of 1.

    Attributes:
        features: raw features of the last bars, oldest first, ``(1, bars, features)`` float32.
        account: at the close of the newest bar, `ACCOUNT`, money in account currency, ``(1, 7)`` float32.
        previous: balance and equity one bar before, ``(1, 2)`` float32.
        seconds: the server's clock at the open of the newest bar, seconds since 1970, ``(1,)`` int64.
    """

    features: Tensor
    account: Tensor
    previous: Tensor
    seconds: Tensor


class TerminalPolicy(nn.Module):
    """The graph that is exported.

    Inputs are those of `PolicyInputs`; a recurrent encoder has its state as four more, ``(1, hidden)``, all zero after
    a reset. Outputs: ``order`` as `ORDER` ``(1, 6)``; ``action``, netted lots and fractions, ``(1, 6)``;
    ``forecast`` in the units of the features ``(1, horizon, column)``; and the state after the bar, if there is one.

    Raises:
        ConfigError: the encoder has no statistics of its training span, or running statistics.
    """

    def __init__(self, encoder: Encoder, actor: Actor, decoding: Decoding) -> None:
        super().__init__()
        if not isinstance(encoder.norm, RevIN):
            raise ConfigError(
                f"norm: {encoder.config.norm!r} cannot be exported, must be 'revin': train an encoder with it."
            )
        if not bool((encoder.norm.reference_std > 0).all()):
            raise ConfigError("encoder: no statistics of a training span. Export a trained one.")
        self.encoder, self.actor, self.decoding = encoder.eval(), actor.eval(), decoding

    @property
    def state_size(self) -> int:
        """Units of each state of a recurrent encoder, 0 for an encoder of windows."""
        return self.encoder.lstm.hidden_size if isinstance(self.encoder, TpmStateful) else 0

    def forward(
        self,
        features: Float[Tensor, "batch bar feature"],
        account: Float[Tensor, "batch 7"],
        previous: Float[Tensor, "batch 2"],
        seconds: Int[Tensor, " batch"],
        *state: Float[Tensor, "batch hidden"],
    ) -> tuple[Tensor, ...]:
        """Return order, action, forecast and the state after the bar."""
        after: tuple[Tensor, ...] = ()
        if isinstance(self.encoder, WindowEncoder):
            output = self.encoder(features)
        else:
            steps, after = self.encoder(features[:, None], TpmState(*state))
            output = type(steps)(steps.latent[:, 0], type(steps.stats)(*(part[:, 0] for part in steps.stats)))
        prepared = self.actor.prepare(self.encoder.to_context(output, features))
        action = self.actor(self._vector(account, previous, seconds)[:, None], prepared).action[:, 0]
        return (self._order(action, account[:, 1]), action, self.encoder.to_units(output), *after)

    def _vector(
        self,
        account: Float[Tensor, "batch 7"],
        previous: Float[Tensor, "batch 2"],
        seconds: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch 12"]:
        """Return `halfstep.market.state.account_vector`."""
        least = previous.clamp_min(self.decoding.floor)
        balance, equity = least[:, :1], least[:, 1:]
        parts = [
            (account[:, :1] - balance) / balance,
            account[:, 1:2] / balance,
            (account[:, 1:2] - equity) / equity,
            account[:, 2:4],
            account[:, 4:7] / balance,
            *(wave(angle(seconds, period)) for wave, period in _HARMONICS),
        ]
        return torch.cat(parts, dim=1).clamp(-BOUND, BOUND)

    def _order(
        self, action: Float[Tensor, "batch 6"], equity: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch 6"]:
        rules = self.decoding
        volume = action[:, 0::3] * (equity[:, None] / 10_000 if rules.per_10k else 1.0)
        steps = (volume / rules.lot_step + 0.5).floor()
        least, most = round(rules.lot_min / rules.lot_step), int(rules.lot_cap / rules.lot_step + 1e-6)
        steps = torch.where(volume / rules.lot_step < least, torch.zeros_like(steps), steps).clamp_max(most)
        levels = (action * rules.level_scale + 0.5).floor()
        lots = steps * rules.lot_step
        return torch.cat([lots[:, :1], levels[:, 1:3], lots[:, 1:], levels[:, 4:]], dim=1)


def angle(seconds: Int[Tensor, " batch"], period: int) -> Float[Tensor, "batch 1"]:
    """Return 2 pi seconds / period as one column, reduced in whole numbers first."""
    return ((seconds % period).double() * (2 * np.pi / period)).float()[:, None]


_HARMONICS = ((torch.sin, YEAR), (torch.cos, MONTH), (torch.sin, WEEK), (torch.sin, DAY))


def random_inputs(policy: TerminalPolicy, random: np.random.Generator) -> tuple[Tensor, ...]:
    """Return one decision's inputs as a trained policy may see them: features of the training span's level and size."""
    config, norm = policy.encoder.config, policy.encoder.norm
    window = random.standard_normal((1, config.bars, config.features))
    features = norm.reference_mean.double().numpy() + norm.reference_std.double().numpy() * window
    balance = float(np.exp(random.uniform(np.log(500), np.log(50_000))))
    held = random.integers(0, 3)  # nothing, bought, sold
    lots, gain = random.uniform(0.01, policy.decoding.lot_cap), balance * random.normal(0, 0.01)
    account = np.zeros(len(ACCOUNT))
    account[:2] = balance, balance + (gain if held else 0)
    if held:
        account[1 + held], account[3 + held] = lots, gain
        account[6] = gain * random.uniform(0, 1)
    previous = [balance * random.uniform(0.99, 1.01), balance * random.uniform(0.99, 1.01)]
    inputs = PolicyInputs(
        _tensor(features), _tensor(account[None]), _tensor(np.array([previous])),
        torch.tensor([int(random.integers(1_000_000_000, 2_000_000_000))]),
    )  # fmt: skip
    states = [
        _tensor(random.uniform(-0.9, 0.9, (1, policy.state_size)))
        for _ in range(len(STATES) if policy.state_size else 0)
    ]
    return (*inputs, *states)


def _tensor(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
