"""Changes made by hand are seen through torch's and Python's C interfaces, and without them; threads likewise."""

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from halfstep.optim import launcher, watch
from halfstep.optim import optimizer as optimizer_module
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.threads import python_threads


def model_and_optimizer(**options: Any) -> tuple[list[nn.Parameter], AdamMini]:
    """Return weights of three forms, and an optimizer that has stepped them twice."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape)) for shape in ((6, 6), (9,), ())]
    optimizer = AdamMini(params, lr=1e-2, **options)
    for _ in range(2):
        step(params, optimizer)
    return params, optimizer


def step(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    """Step with gradients that depend on the weights."""
    for param in params:
        param.grad = torch.empty_like(param).copy_(param.detach() * 2 + 1)
    optimizer.step()


def turned(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    params[0].data = params[0].data.t()  # the address and the number of elements stay


def shorter(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    params[1].data = params[1].data[:5]
    optimizer.state[params[1]] = {}
    optimizer._specs.pop(params[1])


def swapped(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    torch.utils.swap_tensors(
        params[0], nn.Parameter(torch.ones(6, 6))
    )  # another C++ tensor in the same object


def moved(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    for param in params:
        param.data = param.data.clone()


def moment_moved(key: str) -> Callable[[list[nn.Parameter], AdamMini], None]:
    def change(params: list[nn.Parameter], optimizer: AdamMini) -> None:
        moment = optimizer.state[params[0]][key]
        moment.data = moment.data * 2

    return change


def moment_replaced(key: str) -> Callable[[list[nn.Parameter], AdamMini], None]:
    def change(params: list[nn.Parameter], optimizer: AdamMini) -> None:
        optimizer.state[params[0]][key] = optimizer.state[params[0]][key] * 2

    return change


def state_replaced(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.state[params[1]] = {key: value * 2 for key, value in optimizer.state[params[1]].items()}


def all_states_replaced(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.state = type(optimizer.state)(dict, {p: dict(s) for p, s in optimizer.state.items()})
    optimizer.state[params[0]]["exp_avg"] = torch.zeros(6, 6)


def parameter_replaced(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    params[2] = nn.Parameter(torch.ones(()))
    optimizer.param_groups[0]["params"][2] = params[2]


def list_replaced(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.param_groups[0]["params"] = params[:2]


def group_replaced(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.5)


def tuple_given(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.param_groups[0]["params"] = tuple(params[:2])


def parameter_left(params: list[nn.Parameter], optimizer: AdamMini) -> None:
    optimizer.param_groups[0]["params"].pop()


CHANGES = {
    **{name: change for name, change in globals().items() if name in (
        "turned", "shorter", "swapped", "moved", "state_replaced", "all_states_replaced", "parameter_replaced",
        "list_replaced", "group_replaced", "tuple_given", "parameter_left",
    )},
    **{f"{key} moved": moment_moved(key) for key in ("exp_avg", "exp_avg_sq", "step")},
    **{f"{key} replaced": moment_replaced(key) for key in ("exp_avg", "exp_avg_sq", "step")},
}  # fmt: skip


def without_c_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> None:
        raise LookupError("an unknown torch")

    monkeypatch.setattr(launcher, "Watch", nothing)
    monkeypatch.setattr(optimizer_module, "has_numba", lambda: False)


@pytest.mark.parametrize("asks", ["C", "C, no versions", "Python"])
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_by_hand_is_followed(name: str, asks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What plain torch does, which looks at everything anew in every step, the compiled step does."""
    if asks == "Python":
        without_c_interfaces(monkeypatch)
    elif asks == "C, no versions":  # Python 3.14 and later
        monkeypatch.setattr(watch, "_version_offset", lambda: 0)
    finished = []
    for fused in (None, False):
        params, optimizer = model_and_optimizer(fused=fused)
        CHANGES[name](params, optimizer)
        for _ in range(2):
            step(params, optimizer)
        finished.append((params, [dict(optimizer.state[p]) for p in optimizer.param_groups[0]["params"]]))
    for ours, plain in zip(*finished, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("asks", ["C", "Python"])
def test_autograd_learns_what_was_changed(asks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that saved a weight before the step cannot be differentiated after it."""
    if asks == "Python":
        without_c_interfaces(monkeypatch)
    params, optimizer = model_and_optimizer()
    stale, fresh = (params[k].square().sum() for k in (0, 1))
    versions = [param._version for param in params]
    params[0].grad, params[1].grad, params[2].grad = torch.ones_like(params[0]), None, None
    optimizer.step()
    assert [param._version for param in params] == [versions[0] + 1, *versions[1:]]
    fresh.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def test_this_torch_can_be_watched() -> None:
    """So that the fast way is not lost unnoticed."""
    _, optimizer = model_and_optimizer()
    plan = optimizer._plan
    assert plan is not None
    assert all(found._watch is not None for found in plan.launchers)  # type: ignore[union-attr]
    assert plan is optimizer._current_plan()


def test_dictionaries_have_versions() -> None:
    """So that the fast way is not lost unnoticed."""
    assert (watch._version_offset() > 0) == (sys.version_info < (3, 14))


def test_a_dictionary_that_changes_back_is_looked_into_again() -> None:
    """Its version says only that something happened; what it holds decides."""
    params, optimizer = model_and_optimizer()
    plan, state = optimizer._plan, optimizer.state[params[0]]
    held = state.pop("step")
    state["step"] = held
    optimizer.param_groups[0]["lr"] = 0.5
    assert optimizer._current_plan() is plan
    state["step"] = held.clone()
    assert optimizer._current_plan() is not plan


def test_an_unknown_torch_is_asked_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    watch._torch_functions.cache_clear()
    monkeypatch.setattr(watch, "_KNOWN", ((1, 0), (2, 0)))
    try:
        params, optimizer = model_and_optimizer()
        assert all(found._watch is None for found in optimizer._plan.launchers)  # type: ignore[union-attr]
        expected, plain = model_and_optimizer(fused=False)
        for own, found in ((params, optimizer), (expected, plain)):
            own[1].grad = None
            found.step()
        torch.testing.assert_close(params, expected, rtol=2e-6, atol=2e-6)
    finally:
        watch._torch_functions.cache_clear()


@pytest.mark.parametrize("form", ["half", "smaller"])
def test_a_gradient_of_another_form_is_refused(form: str) -> None:
    params, optimizer = model_and_optimizer()
    grad = torch.ones(6, 6)
    params[0].grad = grad
    grad.data = grad.data.half() if form == "half" else grad.data[:3]
    before = params[0].detach().clone()
    with pytest.raises(RuntimeError, match="parameter 0: a gradient of shape"):
        optimizer.step()
    assert torch.equal(params[0], before)


def test_optimizers_are_collected() -> None:
    """A parameter may know its optimizer: nothing that Python cannot see keeps the two alive."""
    params, optimizer = model_and_optimizer()
    params[0].owner = optimizer  # type: ignore[attr-defined]
    gone = weakref.ref(optimizer), weakref.ref(params[0])
    del params, optimizer
    gc.collect()
    assert gone[0]() is None
    assert gone[1]() is None


def test_python_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in where torch is linked with no OpenMP library that can be called."""
    before = torch.get_num_threads()

    def stepped(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(300, 200)), nn.Parameter(torch.randn(2, 150_000))]
        optimizer = AdamMini(params)
        for _ in range(3):
            for param in params:
                param.grad = param.detach() * 2
            optimizer.clip_grad_norm_(1.0)
            optimizer.step()
        return [param.detach() for param in params]

    try:
        alone = stepped(1)
        monkeypatch.setattr(launcher, "parallel", python_threads)
        for threads in (2, 3):
            assert all(torch.equal(a, b) for a, b in zip(stepped(threads), alone, strict=True))
    finally:
        torch.set_num_threads(before)
