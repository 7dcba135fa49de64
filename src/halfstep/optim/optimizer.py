"""`AdamMini`: used as ``torch.optim.AdamW``, with half its state."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Self, overload

import torch
from torch import Tensor, nn
from torch._C._autograd import _profiler_enabled
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.distribution import (
    ShardedPlan,
    are_nonfinite,
    assign,
    local_part,
    plan_for,
    refuse_flat,
    zeros_by_row,
)
from halfstep.optim.launcher import Entry, refuse_sparse
from halfstep.optim.loading import arranged
from halfstep.optim.partition import (
    NormRule,
    Partition,
    Rule,
    ValueRule,
    decay_groups,
    partition_model,
    spec_for_shape,
)
from halfstep.optim.plan import Plan

_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamMini(Optimizer):
    """Adam-mini with decoupled weight decay: one second moment per block instead of one per element.

    With one element per block the rule is exactly that of ``torch.optim.AdamW``, whose defaults it shares.

    Args:
        params: tensors, (name, tensor) pairs, or group dictionaries, as for every torch optimizer.
        lr: learning rate, a number or a one-element tensor, at least 0.
        betas: decay of the first and the second moment, each in [0, 1).
        eps: added to the bias-corrected root of the second moment, at least 0.
        weight_decay: decoupled decay, at least 0.
        partition: of the model whose parameters these are; without one, matrices are cut by row and vectors by
            element.
        maximize: move along the gradient instead of against it.
        capturable: keep step counts and all arithmetic on the parameters' device, for CUDA graphs.
        fused: True insists on compiled kernels (CPU, numba), False on plain torch, None takes the faster that is there.

    Raises:
        ValueError: a value out of range, a partition of another model, or a complex parameter.
        RuntimeError: ``fused=True`` where no kernel can step a parameter; a sparse gradient.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = AdamMini.for_model(model, lr=1e-2)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state_bytes()  # (8 + 2) + (2 + 2) numbers of 4 bytes, and two step counts
        64
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler leaves unscaling and skipping to `step`

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        partition: Partition | None = None,
        maximize: bool = False,
        capturable: bool = False,
        fused: bool | None = None,
    ) -> None:
        self._partition = partition
        self._specs: list[list[BlockSpec]] = []
        self._plan: Plan | ShardedPlan | None = None
        self._clip_factor: float | Tensor = 1.0
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "fused": fused,
        }  # fmt: skip
        _check(defaults)
        super().__init__(params, defaults)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rules: Iterable[Rule] = (),
        value: ValueRule = "row",
        norm: NormRule = "tensor",
        maximize: bool = False,
        capturable: bool = False,
        fused: bool | None = None,
    ) -> Self:
        """Return an optimizer for a whole model: its partition, and decay for matrices but not for norms and biases.

        Args:
            model: its parameters that require gradients are trained.
            rules, value, norm: see `halfstep.optim.partition.partition_model`.
            lr, betas, eps, weight_decay, maximize, capturable, fused: as for the class.
        """
        partition = partition_model(model, rules=tuple(rules), value=value, norm=norm)
        return cls(
            decay_groups(model, weight_decay), lr, betas, eps, weight_decay,
            partition=partition, maximize=maximize, capturable=capturable, fused=fused,
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters' blocks are decided here, once."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            for name, param in zip(_names(group), group["params"], strict=True):
                _refuse_complex(name, param)
            specs = [
                spec_for_shape(param) if self._partition is None else self._partition.spec_of(param)
                for param in group["params"]
            ]
            for name, param, spec in zip(_names(group), group["params"], specs, strict=True):
                refuse_flat(name, param, spec)
        except ValueError:
            self.param_groups.pop()
            raise
        self._specs.append(specs)
        self._plan = None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; a parameter without one is left as it is.

        Args:
            closure: re-evaluates the model and returns the loss.
        """
        if torch.compiler.is_compiling():
            outside: float | None = _step_outside_the_graph(self, closure)
            return outside
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or _profiler_enabled()
        ):
            watched: float | None = _step_with_hooks(self, closure)
            return watched
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap every call, watched or not: a tenth of a small step

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale, self._clip_factor = self._clip_factor, 1.0
        found_inf = getattr(self, "found_inf", None)  # set by GradScaler
        if found_inf is not None and float(found_inf) != 0:
            return loss
        grad_scale = getattr(self, "grad_scale", None)
        if grad_scale is not None:
            scale = scale / float(grad_scale)
        self._current_plan().step(scale)
        return loss

    def clip_grad_norm_(self, max_norm: float, *, error_if_nonfinite: bool = False) -> Tensor:
        """Return the global norm of all gradients, and make the next `step` scale them to at most ``max_norm``.

        The factor min(1, max_norm / (norm + 1e-6)) is that of ``torch.nn.utils.clip_grad_norm_``, but the gradients are
        not written: the step applies the factor while it reads them. `zero_grad` forgets it.

        Raises:
            RuntimeError: the norm is not finite and ``error_if_nonfinite`` is set.
            ValueError: ``max_norm`` is negative.
        """
        if not max_norm >= 0:
            raise ValueError(f"max_norm: {max_norm}, must be 0 or more.")
        total = self._current_plan().square_sum()
        if isinstance(total, Tensor) and total.device.type != "cpu":  # keep it there: no wait for the device
            norm = total.sqrt().float()
            self._clip_factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        else:
            root = math.sqrt(total)
            factor = max_norm / (root + 1e-6)
            self._clip_factor = 1.0 if factor > 1.0 else factor  # NaN stays
            norm = torch.scalar_tensor(root, dtype=torch.float32)
        if error_if_nonfinite and not bool(norm.isfinite()):
            self._clip_factor = 1.0
            raise RuntimeError(
                f"the norm of the gradients is {norm.item()}; found_nonfinite() names the parameters: "
                f"{', '.join(self.found_nonfinite())}."
            )
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, and the factor that `clip_grad_norm_` found for them."""
        self._clip_factor = 1.0
        super().zero_grad(set_to_none)

    def state_bytes(self) -> int:
        """Return the bytes of optimizer state that this process holds: distinct storages, step counts left out."""
        tensors = [
            local_part(state[key]) for state in self.state.values() for key in _MOMENTS if key in state
        ]
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()
        }
        return sum(storages.values())

    def found_nonfinite(self) -> list[str]:
        """Return the names (or positions) of parameters that hold NaN or infinity in weight or gradient.

        Of DTensors on any rank: all ranks must call this.
        """
        named = [
            pair for group in self.param_groups for pair in zip(_names(group), group["params"], strict=True)
        ]
        bad = are_nonfinite([param for _, param in named])
        return [name for (name, _), is_bad in zip(named, bad, strict=True) if is_bad]

    @property
    def partition(self) -> Partition | None:
        """The partition this optimizer was made with."""
        return self._partition

    @property
    def block_specs(self) -> list[list[BlockSpec]]:
        """The blocks of every parameter, in the order of `param_groups`."""
        return self._specs

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of AdamMini, of ``torch.optim.Adam``/``AdamW``, or of the published adam-mini package.

        Second moments of single elements, or of other blocks, are averaged over each block. Moments keep float32 whatever
        the parameters are. Parameters are matched by name where both sides have names, else by order; hyper-parameters
        are taken where both sides group the same parameters together, else they stay as they are.

        Raises:
            ValueError: the state of other parameters; the message names the parameter and both shapes.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = before(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        saved, groups = arranged(state_dict, self.param_groups, self._specs)
        for group in groups:
            _check(group)
        params = [(param, group) for group in groups for param in group["params"]]
        specs = [spec for row in self._specs for spec in row]
        states: defaultdict[Tensor, Any] = defaultdict(dict)
        for position, entry in saved.items():
            param, group = params[position]
            states[param] = _fresh_state(param, specs[position], on_device=group["capturable"])
            for key, tensor in states[param].items():
                assign(tensor, entry[key])
        self.__setstate__({"state": states, "param_groups": groups})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"_specs": self._specs, "_partition": self._partition}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan, self._clip_factor = None, 1.0
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("capturable", False)
            group.setdefault("fused", None)

    def _current_plan(self) -> Plan | ShardedPlan:
        """Return the plan, made anew if anything it rests on has changed."""
        if self._plan is None or not self._plan.is_current(self.state):
            self._plan = self._make_plan()
        return self._plan

    @torch.no_grad()
    def _make_plan(self) -> Plan | ShardedPlan:
        entries: list[Entry] = []
        waiting: list[Tensor] = []
        for group, specs in zip(self.param_groups, self._specs, strict=True):
            for name, param, spec in zip(_names(group), group["params"], specs, strict=True):
                if not self.state.get(param):
                    refuse_flat(name, param, spec)
                    if param.grad is None:
                        waiting.append(param)
                        continue
                    refuse_sparse(name, param.grad)
                    self.state[param] = _fresh_state(param, spec, on_device=group["capturable"])
                entries.append(Entry(name, param, spec, group, self.state[param]))
        return plan_for(entries, waiting, self.state)


_step_with_hooks: Any = Optimizer.profile_hook_step(AdamMini._step)
_step_outside_the_graph: Any = torch._disable_dynamo(AdamMini.step)  # type: ignore[attr-defined]  # compiled kernels


def _names(group: dict[str, Any]) -> list[str]:
    """Return the names of a group's parameters, or their positions."""
    names: list[str] = group.get("param_names", [f"parameter {k}" for k in range(len(group["params"]))])
    return names


def _fresh_state(param: Tensor, spec: BlockSpec, *, on_device: bool) -> dict[str, Tensor]:
    wide = torch.promote_types(param.dtype, torch.float32)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=param.device if on_device else "cpu"),
        "exp_avg": torch.zeros_like(param, dtype=wide, memory_format=torch.preserve_format),
        "exp_avg_sq": zeros_by_row(param, spec, wide),
    }


def _refuse_complex(name: str, param: Tensor) -> None:
    if param.is_complex():
        raise ValueError(f"{name}: a complex parameter. Optimize torch.view_as_real({name}) instead.")


def _check(values: dict[str, Any]) -> None:
    """Refuse hyper-parameters out of range, each with its name and value."""
    for name in ("lr", "eps", "weight_decay"):
        value = values[name]
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{name}: a tensor of shape {tuple(value.shape)}, must have one element.")
        value = float(value)
        if not value >= 0:
            raise ValueError(f"{name}: {value}, must be 0 or more.")
    for name, beta in zip(("beta1", "beta2"), values["betas"], strict=True):
        if isinstance(beta, Tensor):
            raise ValueError(f"{name}: a tensor, must be a number. Give float({name}).")  # noqa: TRY004  # as torch
        if not 0 <= beta < 1:
            raise ValueError(f"{name}: {beta}, must lie in [0, 1).")
