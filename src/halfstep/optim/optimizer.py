"""`AdamMini`: used as ``torch.optim.AdamW``, with half its state."""

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, overload

import torch
from torch import Tensor, nn
from torch._C._autograd import _profiler_enabled
from torch.nn.parameter import is_lazy
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
from halfstep.optim.watch import Contents, has_numba

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class _Clip:
    """A factor that the next step owes to gradients.

    Attributes:
        factor: on them.
        grads: in the order of the groups, as they were when the factor was found.
        versions: of these tensors; torch counts changes in place.
    """

    factor: float | Tensor
    grads: list[Tensor | None]
    versions: list[int]


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
        ValueError: a value out of range, a partition of another model, a complex parameter, or one without a shape.
        RuntimeError: ``fused=True`` where no kernel can step a parameter; a sparse gradient.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = AdamMini.for_model(model, lr=1e-2)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state_bytes()  # (8 + 2) + (2 + 2) numbers of 4 bytes; step counts are left out
        56
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
        self._specs: dict[Tensor, BlockSpec] = {}
        self._plan: Plan | ShardedPlan | None = None
        self._planned: tuple[Any, Any] = (None, None)
        self._contents: Contents | None = None
        self._clip: _Clip | None = None
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
            specs = {
                param: self._decide(name, param)
                for name, param in zip(_names(group), group["params"], strict=True)
            }
        except ValueError:
            self.param_groups.pop()
            raise
        self._specs |= specs
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
            given = () if closure is None else (closure,)
            watched: float | None = _step_with_hooks(self, *given)
            return watched
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap every call, watched or not: a tenth of a small step

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._take_clip()
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
        not written: the step applies the factor while it reads them. It belongs to these gradients: `zero_grad` forgets
        it, gradients that are replaced before the step are not scaled, and a second call finds the norm that the first
        one left.

        Raises:
            RuntimeError: the norm is not finite and ``error_if_nonfinite`` is set; or, here and in `step`, a gradient was
                changed in place after an earlier call.
            ValueError: ``max_norm`` is negative.
        """
        if not max_norm >= 0:
            raise ValueError(f"max_norm: {max_norm}, must be 0 or more.")
        owed = self._take_clip()
        total = self._current_plan().square_sum()
        factor: float | Tensor
        if isinstance(total, Tensor) and total.device.type != "cpu":  # keep it there: no wait for the device
            norm = total.sqrt().float() * owed
            factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        else:
            root = math.sqrt(total) * float(owed)
            factor = max_norm / (root + 1e-6)
            factor = 1.0 if factor > 1.0 else factor  # NaN stays
            norm = torch.scalar_tensor(root, dtype=torch.float32)
        if error_if_nonfinite and not bool(norm.isfinite()):
            self._owe(owed)
            raise RuntimeError(
                f"the norm of the gradients is {norm.item()}; found_nonfinite() names the parameters: "
                f"{', '.join(self.found_nonfinite())}."
            )
        self._owe(owed * factor)
        return norm

    def _owe(self, factor: float | Tensor) -> None:
        """Remember a factor for the gradients that are there now."""
        if isinstance(factor, Tensor) or factor != 1.0:
            grads = self._gradients()
            self._clip = _Clip(factor, grads, _versions(grads))

    def _take_clip(self) -> float | Tensor:
        """Return the factor that is owed to the gradients that are there now, and forget it."""
        clip, self._clip = self._clip, None
        if clip is None:
            return 1.0
        grads = self._gradients()
        if len(grads) != len(clip.grads):
            raise RuntimeError(
                "clip_grad_norm_: parameters came or went after it. Clip last, right before step."
            )
        kept = list(map(operator.is_, grads, clip.grads))
        if all(kept) and _versions(grads) == clip.versions:
            return clip.factor
        both = list(zip(grads, kept, strict=True))
        for (name, _), (grad, same), version in zip(self._named(), both, clip.versions, strict=True):
            if grad is not None and same and grad._version != version:
                raise RuntimeError(
                    f"{name}: its gradient was changed in place after clip_grad_norm_, whose factor step applies. "
                    "Clip last, right before step; to give the gradients up, call the optimizer's zero_grad."
                )
        if all(same for grad, same in both if grad is not None):
            return clip.factor
        with torch.no_grad():
            for grad, same in both:  # those that stayed are clipped, and the new ones are not
                if grad is not None and same:
                    grad.mul_(clip.factor)
        return 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, and the factor that `clip_grad_norm_` found for them."""
        self._clip = None
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
        named = self._named()
        bad = are_nonfinite([param for _, param in named])
        return [name for (name, _), is_bad in zip(named, bad, strict=True) if is_bad]

    @property
    def partition(self) -> Partition | None:
        """The partition this optimizer was made with."""
        return self._partition

    @property
    def block_specs(self) -> list[list[BlockSpec]]:
        """The blocks of every parameter, in the order of `param_groups`."""
        return [[self._specs[param] for param in group["params"]] for group in self.param_groups]

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
        saved, groups = arranged(state_dict, self.param_groups, self.block_specs)
        for group in groups:
            _check(group)
        params = [(param, group) for group in groups for param in group["params"]]
        states: defaultdict[Tensor, Any] = defaultdict(dict)
        for position, entry in saved.items():
            param, group = params[position]
            states[param] = _fresh_state(param, self._specs[param], on_device=group["capturable"])
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
        self._plan, self._clip, self._contents = None, None, None
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("capturable", False)
            group.setdefault("fused", None)

    def _current_plan(self) -> Plan | ShardedPlan:
        """Return the plan, made anew if anything it rests on has changed."""
        if self._plan is None or not self._is_planned() or not self._plan.is_current():
            self._plan = self._make_plan()
        return self._plan

    def _is_planned(self) -> bool:
        """Return whether groups, their parameters and the states are those that the plan was made for."""
        groups, states = self._planned
        return (
            groups is self.param_groups
            and states is self.state
            and self._contents is not None
            and self._contents.are_same()
        )

    @torch.no_grad()
    def _make_plan(self) -> Plan | ShardedPlan:
        entries: list[Entry] = []
        waiting: list[Tensor] = []
        self._specs = {
            param: self._specs.get(param) or self._decide(name, param) for name, param in self._named()
        }
        for group in self.param_groups:
            for name, param in zip(_names(group), group["params"], strict=True):
                spec = self._specs[param]
                if not self.state.get(param):
                    refuse_flat(name, param, spec)
                    if param.grad is None:
                        waiting.append(param)
                        continue
                    refuse_sparse(name, param.grad)
                    self.state[param] = _fresh_state(param, spec, on_device=group["capturable"])
                entries.append(Entry(name, param, spec, group, self.state[param]))
        self._planned = self.param_groups, self.state
        self._contents = Contents(
            [(state, list(state)) for state in self.state.values()]
            + [(group, ("params", "fused", "capturable")) for group in self.param_groups],
            [self.param_groups, *(group["params"] for group in self.param_groups)],
            self.state,
            compiled=any(group["fused"] is not False for group in self.param_groups) and has_numba(),
        )
        return plan_for(entries, waiting)

    def _decide(self, name: str, param: Tensor) -> BlockSpec:
        """Return the blocks of a parameter, or refuse it."""
        _refuse(name, param)
        spec = spec_for_shape(param) if self._partition is None else self._partition.spec_of(param)
        refuse_flat(name, param, spec)
        return spec

    def _gradients(self) -> list[Tensor | None]:
        return [param.grad for group in self.param_groups for param in group["params"]]

    def _named(self) -> list[tuple[str, Tensor]]:
        """Return all parameters with their names, or with their positions in their group."""
        return [
            pair for group in self.param_groups for pair in zip(_names(group), group["params"], strict=True)
        ]


_step_with_hooks: Any = Optimizer.profile_hook_step(AdamMini._step)
_step_outside_the_graph: Any = torch._disable_dynamo(AdamMini.step)  # type: ignore[attr-defined]  # compiled kernels


def _names(group: dict[str, Any]) -> list[str]:
    """Return the names of a group's parameters, or their positions."""
    names: list[str] = group.get("param_names", [f"parameter {k}" for k in range(len(group["params"]))])
    return names


def _versions(grads: Iterable[Tensor | None]) -> list[int]:
    """Return how often each gradient was changed in place."""
    return [0 if grad is None else grad._version for grad in grads]


def _fresh_state(param: Tensor, spec: BlockSpec, *, on_device: bool) -> dict[str, Tensor]:
    wide = torch.promote_types(param.dtype, torch.float32)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=param.device if on_device else "cpu"),
        "exp_avg": torch.zeros_like(param, dtype=wide, memory_format=torch.preserve_format),
        "exp_avg_sq": zeros_by_row(param, spec, wide),
    }


def _refuse(name: str, param: Tensor) -> None:
    """Refuse parameters of a kind that has no blocks."""
    if is_lazy(param):
        raise ValueError(f"{name}: has no shape yet. Run the model once on an example before this.")
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
