"""The accounts as gymnasium environments: one, and many in lockstep. Importing this module registers them.

    gymnasium.make("halfstep/Trading-v0", table=table, rules=rules)
    gymnasium.make_vec("halfstep/Trading-v0", num_envs=64, table=table, rules=rules)

Account k of `TradingVectorEnv` equals a `TradingEnv` with ``seed_id=k`` and the same seed, bit for bit. Bars are
given by index, so that a policy on a device gathers windows from one tensor of features.
"""

from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from halfstep.broker import _layout as c
from halfstep.broker._observe import BOUND, VECTOR_SIZE
from halfstep.broker.engine import Engine, StepResult
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rewards import weighted_reward
from halfstep.broker.rules import AccountRules
from halfstep.broker.state import ACTION_SIZE, AccountState, Counts, Money, begin_episodes, reset_accounts
from halfstep.broker.table import MarketTable
from halfstep.errors import ActionError, ConfigError, CoverageError
from halfstep.market.features import Features

ENV_ID = "halfstep/Trading-v0"
WINDOW = 120  # bars of features in an observation
WORD = 2**32

Start = Literal["random"] | int
OnBadAction = Literal["raise", "hold"]
Mask = npt.NDArray[np.bool_]
Observation = dict[str, Any]
Info = dict[str, Any]


def hash32(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return 32 mixed bits of each x < 2^32; equal to `halfstep.broker._kernel.hash32`."""
    word = np.uint64(WORD - 1)
    for _ in range(2):
        x = (((x >> np.uint64(16)) ^ x) * np.uint64(0x45D9F3B)) & word
    return (x >> np.uint64(16)) ^ x


class _Accounts:
    """What both environments share: accounts with ids, episodes drawn from a seed, observations.

    Arguments as `TradingEnv`; ``ids`` are the numbers that tell the accounts' draws apart.
    """

    def __init__(
        self,
        table: MarketTable,
        rules: AccountRules,
        ids: Counts,
        *,
        start: Start,
        length: int | None,
        windows: Features | None,
        on_bad_action: OnBadAction,
        reward_weights: tuple[float, float, float] | None,
    ) -> None:
        if on_bad_action not in ("raise", "hold"):
            raise ConfigError(f"on_bad_action: {on_bad_action!r}, must be raise or hold.")
        if windows is not None and len(windows.values) != len(table):
            raise ConfigError(
                f"windows: features of {len(windows.values)} bars, must be of the table's {len(table)}."
            )
        self.table, self.rules, self.n = table, rules, len(ids)
        self.length, self.windows = length, windows
        self.on_bad_action, self.weights = on_bad_action, reward_weights
        warm_up = 0 if windows is None else windows.first_valid + WINDOW - 1
        last = len(table) - 1 - (1 if length is None else length)
        self.least = warm_up if start == "random" else start
        self.choices = last - warm_up + 1 if start == "random" else 1
        if self.choices < 1 or not warm_up <= self.least <= last or (length is not None and length < 1):
            raise CoverageError(
                f"start {start!r}, length {length}: {len(table)} bars, of which {warm_up} are needed before the first",
                hint=f"Give a start from {warm_up} to {max(last, warm_up)}, a smaller length or more bars.",
            )
        self.engine = Engine(table, rules, self.n)
        self.state: AccountState = reset_accounts(table, rules, self.n, first=0, stop=len(table) - 1)
        self.seed: int | None = None
        self._ids = np.asarray(ids, np.uint64)
        self._actions = np.zeros((1, self.n, ACTION_SIZE))
        self._outputs = np.zeros((1, self.n, c.OUTPUTS))
        self._marks = np.zeros((1, self.n, 2), np.uint8)
        self._numbers = np.zeros((self.n, 8))
        self.vectors = np.zeros((self.n, VECTOR_SIZE), np.float32)

    def begin(self, mask: Mask, episode: Counts) -> None:
        """Begin an episode of each account of a mask; what its draws are is told by seed, id and episode number."""
        assert self.seed is not None
        seed = hash32(np.asarray(self.seed % WORD, np.uint64))
        mixed = hash32(hash32(seed ^ self._ids[mask]) ^ episode.astype(np.uint64))
        first = self.least + ((mixed * np.uint64(self.choices)) >> np.uint64(32)).astype(np.int64)
        stop = np.full(len(first), len(self.table) - 1) if self.length is None else first + self.length
        begin_episodes(
            self.state, mask, self.table, self.rules, first=first, stop=stop, seed=mixed, episode=episode
        )
        self._outputs[0, mask] = 0.0
        self._marks[0, mask] = (Outcome.HELD, 0)

    def move(self, actions: npt.NDArray[Any]) -> None:
        """Execute one action per account, ``(accounts, 6)``."""
        if actions.shape != (self.n, ACTION_SIZE):
            raise ActionError(f"action: shape {actions.shape}, must be {(self.n, ACTION_SIZE)}.")
        self._actions[0] = actions
        if self.on_bad_action == "raise" and not np.isfinite(self._actions).all():
            bad = ~np.isfinite(self._actions[0]).all(axis=1) & (self.state.status == c.RUNNING)
            if bad.any():
                account = int(np.flatnonzero(bad)[0])
                raise ActionError(
                    f"action of account {account}: {self._actions[0, account].tolist()}, must be finite. "
                    'Look for the NaN in the policy, or make the environment with on_bad_action="hold".'
                )
        self.engine.advance(self.state, self._actions, self._outputs, self._marks)

    def observe(self) -> None:
        """Write ``vectors`` from the state."""
        self.engine.observe(self.state, self._numbers, self.vectors)

    @property
    def result(self) -> StepResult:
        """What the newest step did."""
        return StepResult(self._outputs[0], self._marks[0], self._actions[0], self.state.status)

    @property
    def rewards(self) -> Money:
        """Rewards of the newest step, ``(accounts,)``."""
        if self.weights is None:
            return self._outputs[0, :, c.REWARD]
        before = self.state.floats[:, c.PREVIOUS_BALANCE]
        return weighted_reward(self.result.components, before, self.weights, self.rules.floor)

    def market(self, bars: Counts) -> npt.NDArray[np.float32]:
        """Return the windows of features that end at bars, ``(..., 120, 9)``."""
        assert self.windows is not None
        rows = np.asarray(bars)[..., None] + np.arange(1 - WINDOW, 1)
        return np.asarray(self.windows.values[rows], np.float32)

    def spaces(self) -> tuple[spaces.Dict, spaces.Space[npt.NDArray[np.float32]]]:
        """Return the spaces of one account's observation and action."""
        cap = self.rules.lot_cap
        seen: dict[str, spaces.Space[Any]] = {
            "bar": spaces.Discrete(len(self.table)),
            "account": spaces.Box(-BOUND, BOUND, (VECTOR_SIZE,), np.float32),
        }
        if self.windows is not None:
            shape = (WINDOW, self.windows.values.shape[1])
            seen["market"] = spaces.Box(-BOUND, BOUND, shape, np.float32)
        high = np.array([cap, 1, 1, cap, 1, 1], np.float32)
        action: Any = spaces.Box(np.zeros(ACTION_SIZE, np.float32), high, dtype=np.float32)
        return spaces.Dict(seen), action


class TradingEnv(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """One account on one market.

    Action: six numbers, buy lots, buy TP, buy SL, sell lots, sell TP, sell SL; executed at the next bar's open.
    Observation: ``bar``, the newest closed bar's index; ``account``, twelve numbers
    (`halfstep.market.state.account_vector`); with ``windows`` also ``market``, the last 120 rows of features.
    Reward: ln(equity / equity before). Info: balance, equity, equity_worst, margin_level (infinite when flat),
    outcome, flags, components.

    Args:
        table, rules: the market and the account.
        start: newest closed bar at the first decision; ``"random"`` draws it anew for every episode, uniformly over
            the bars that leave room for the warm-up of ``windows`` before and for ``length`` after.
        length: decisions of an episode, after which it is ``truncated``; None = to the last bar.
        windows: features of the table's bars to be served with the observation.
        seed_id: tells this environment's draws from those of others with the same seed.
        on_bad_action: what a NaN or infinity in an action does: ``"raise"`` an error, or ``"hold"`` the position.
        reward_weights: reward = sum of weights_j components_j / previous balance, instead of the log reward.

    Raises:
        ConfigError, CoverageError: arguments that contradict each other or the table.
        ActionError: an action of the wrong shape, or not finite.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  declared so by gymnasium

    def __init__(
        self,
        table: MarketTable,
        rules: AccountRules,
        *,
        start: Start = "random",
        length: int | None = None,
        windows: Features | None = None,
        seed_id: int = 0,
        on_bad_action: OnBadAction = "raise",
        reward_weights: tuple[float, float, float] | None = None,
    ) -> None:
        self._accounts = _Accounts(
            table, rules, np.array([seed_id]), start=start, length=length, windows=windows,
            on_bad_action=on_bad_action, reward_weights=reward_weights,
        )  # fmt: skip
        self.observation_space, self.action_space = self._accounts.spaces()
        self._everyone = np.ones(1, np.bool_)
        self._episode = -1

    @property
    def state(self) -> AccountState:
        """The account."""
        return self._accounts.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin the next episode; with a seed, the first of that seed."""
        super().reset(seed=seed, options=options)
        accounts = self._accounts
        if seed is not None or accounts.seed is None:
            accounts.seed = int(self.np_random.integers(WORD)) if seed is None else seed
            self._episode = -1
        self._episode += 1
        accounts.begin(self._everyone, np.array([self._episode]))
        return self._observation(), self._info()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, Info]:
        """Execute an action at the open of the next bar and return what is known at its close."""
        accounts = self._accounts
        accounts.move(np.asarray(action)[None])
        status = int(accounts.state.ints[0, c.STATUS])
        return (
            self._observation(),
            float(accounts.rewards[0]),
            status == c.TERMINATED,
            status == c.TRUNCATED,
            self._info(),
        )

    def _observation(self) -> Observation:
        accounts = self._accounts
        accounts.observe()
        bar = accounts.state.ints[0, c.BAR]
        seen: Observation = {"bar": bar, "account": accounts.vectors[0].copy()}
        if accounts.windows is not None:
            seen["market"] = accounts.market(bar)
        return seen

    def _info(self) -> Info:
        floats = self._accounts.state.floats
        balance, equity, worst, margin = floats[0, : c.MARGIN + 1].tolist()
        outcome, flags = self._accounts._marks[0, 0].tolist()
        return {
            "balance": balance,
            "equity": equity,
            "equity_worst": worst,
            "margin_level": equity / margin if margin > 0 else np.inf,
            "outcome": outcome,
            "flags": flags,
            "components": self._accounts._outputs[0, 0, c.COMPONENTS : c.COMPONENTS + 3].copy(),
        }


class TradingVectorEnv(VectorEnv[Observation, npt.NDArray[np.float32], npt.NDArray[Any]]):
    """Many accounts on one market, each at its own bar; one compiled call moves them all.

    Spaces, rewards and infos are those of `TradingEnv`, batched.

    Args:
        num_envs: number of accounts.
        table, rules, start, length, windows, on_bad_action, reward_weights: as `TradingEnv`.
        autoreset_mode: what becomes of an account that ended. ``NEXT_STEP``: the next step ignores its action, begins
            its next episode and returns reward 0. ``SAME_STEP``: the next episode begins at once, what was seen last
            is in ``final_obs`` and ``final_info``. ``DISABLED``: the caller resets it with
            ``reset(options={"reset_mask": mask})``.
        copy: return copies; False returns arrays that the next step overwrites.

    Raises:
        gymnasium.error.ResetNeeded: a step of an account that ended, where autoreset is disabled.
    """

    def __init__(
        self,
        num_envs: int,
        table: MarketTable,
        rules: AccountRules,
        *,
        start: Start = "random",
        length: int | None = None,
        windows: Features | None = None,
        on_bad_action: OnBadAction = "raise",
        reward_weights: tuple[float, float, float] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        self._accounts = _Accounts(
            table, rules, np.arange(num_envs), start=start, length=length, windows=windows,
            on_bad_action=on_bad_action, reward_weights=reward_weights,
        )  # fmt: skip
        self.num_envs, self.copy = num_envs, copy
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = self._accounts.spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.ones(num_envs, np.bool_)
        self._everyone.flags.writeable = False
        self._episode = np.full(num_envs, -1)

    @property
    def state(self) -> AccountState:
        """The accounts."""
        return self._accounts.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin the next episode of every account, or of those of ``options["reset_mask"]``.

        With a seed, the first episodes of that seed.
        """
        if seed is not None and not isinstance(seed, int | np.integer):
            raise ConfigError(
                f"seed: {seed!r}, must be one whole number; every account draws from it by its id."
            )
        super().reset(seed=seed, options=options)
        accounts = self._accounts
        if seed is not None or accounts.seed is None:
            accounts.seed = int(self.np_random.integers(WORD)) if seed is None else int(seed)
            self._episode[:] = -1
        mask = self._everyone
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ConfigError(
                    f"reset_mask: shape {mask.shape} of {mask.dtype}, must be ({self.num_envs},) of bool with at least one True."
                )
        self._begin(mask)
        accounts.observe()
        return self._observation(), self._info()

    def step(self, actions: npt.NDArray[np.float32]) -> tuple[Observation, Money, Mask, Mask, Info]:
        """Execute one action per account, ``(accounts, 6)``."""
        accounts, mode = self._accounts, self.autoreset_mode
        ended = accounts.state.status != c.RUNNING if mode != AutoresetMode.SAME_STEP else None
        if mode == AutoresetMode.DISABLED and ended is not None and ended.any():
            raise gymnasium.error.ResetNeeded(
                f"{int(ended.sum())} accounts ended (the first is {int(np.flatnonzero(ended)[0])}). "
                'Call reset(options={"reset_mask": mask}), or choose another autoreset_mode.'
            )
        accounts.move(np.asarray(actions))  # accounts that ended stay as they are, with reward 0
        rewards = accounts.rewards.copy()
        if mode == AutoresetMode.NEXT_STEP and ended is not None and ended.any():
            self._begin(ended)
        status = accounts.state.status
        terminated, truncated = status == c.TERMINATED, status == c.TRUNCATED
        accounts.observe()
        final: Info = {}
        if mode == AutoresetMode.SAME_STEP:
            over = terminated | truncated
            if over.any():
                final = self._final(over)
                self._begin(over)
                accounts.observe()
        return self._observation(), rewards, terminated, truncated, self._info() | final

    def _begin(self, mask: Mask) -> None:
        self._episode[mask] += 1
        self._accounts.begin(mask, self._episode[mask])

    def _observation(self) -> Observation:
        accounts = self._accounts
        bar, account = accounts.state.bar, accounts.vectors
        seen: Observation = {
            "bar": bar.copy() if self.copy else bar,
            "account": account.copy() if self.copy else account,
        }
        if accounts.windows is not None:
            seen["market"] = accounts.market(bar)
        return seen

    def _info(self, mask: Mask | None = None) -> Info:
        """Return arrays by name, each with its mask of accounts under ``_name``, as gymnasium's vector infos."""
        state, result = self._accounts.state, self._accounts.result
        values: dict[str, npt.NDArray[Any]] = {
            "balance": state.balance,
            "equity": state.equity,
            "equity_worst": state.equity_worst,
            "margin_level": state.margin_level,
            "outcome": result.outcome,
            "flags": result.flags,
            "components": result.components,
        }
        info: Info = {}
        for name, value in values.items():
            info[name] = value.copy() if self.copy or mask is not None else value
            info[f"_{name}"] = self._everyone if mask is None else mask
        return info

    def _final(self, over: Mask) -> Info:
        """Return what accounts saw last, before their next episode begins."""
        last = self._observation()
        observations = np.full(self.num_envs, None, dtype=object)
        for k in np.flatnonzero(over).tolist():
            observations[k] = {name: np.copy(value[k]) for name, value in last.items()}
        return {
            "final_obs": observations,
            "_final_obs": over,
            "final_info": self._info(over),
            "_final_info": over,
        }


if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point=f"{__name__}:TradingEnv",
        vector_entry_point=f"{__name__}:TradingVectorEnv",
    )
