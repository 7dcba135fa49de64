"""torch's own database of optimizer inputs and errors, driven against AdamMini, and scenarios of torch's optimizer tests.

Every check is a function registered with `check`; docs/optimizer-compatibility.md lists them with their result, and the
last test compares that list with what ran here.
"""

import copy
import io
import itertools
import pickle
import re
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from halfstep.optim import AdamMini, Rule, partition_model

database = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="torch's test database needs the package expecttest"
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "optimizer-compatibility.md"
INFO = database.OptimizerInfo(
    AdamMini,
    optim_inputs_func=database.optim_inputs_func_adamw,
    optim_error_inputs_func=database.optim_error_inputs_func_adamw,
    supported_impls=("fused",),
    has_capturable_arg=True,
)
NOT_OURS = {"amsgrad", "foreach"}  # options of AdamW that AdamMini does not have
INPUTS = [
    case for case in INFO.optim_inputs_func(device="cuda") if not (NOT_OURS & set(case.kwargs))
    and not any(isinstance(beta, Tensor) for beta in case.kwargs.get("betas", ()))
] + [
    database.OptimizerInput(None, {"capturable": True}, "capturable"),
    database.OptimizerInput(None, {"lr": torch.tensor(1e-3)}, "Tensor lr"),
    database.OptimizerInput(None, {"lr": torch.tensor(1e-3), "capturable": True}, "Tensor lr with capturable"),
    database.OptimizerInput(None, {"betas": (0.5, 0.9), "eps": 1e-5}, "betas and eps"),
]  # fmt: skip

Check = Callable[[dict[str, Any]], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Register a check; its sentence is its name."""
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def model_of(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Return a model with matrices, vectors, a gain, a scalar and a parameter that never gets a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.LayerNorm(40), nn.Tanh(), nn.Linear(40, 3)).to(dtype)
    model.register_parameter("scale", nn.Parameter(torch.ones((), dtype=dtype)))
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=dtype)))
    return model


def backward(model: nn.Module, seed: int) -> Tensor:
    """Put gradients of a small regression into the model, and return the loss."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    model.zero_grad()
    param = next(model.parameters())
    loss = (model(batch.to(param.dtype)) * model.scale - batch[:, :3].to(param.dtype)).square().mean()
    loss.backward()
    return loss.detach()


def train(model: nn.Module, optimizer: Any, steps: int, start: int = 0) -> list[float]:
    losses = []
    for number in range(start, start + steps):
        losses.append(float(backward(model, number)))
        optimizer.step()
    return losses


def adamw_blocks(model: nn.Module) -> dict[str, Any]:
    """Return the option under which AdamMini is AdamW: one element per block."""
    return {"partition": partition_model(model, rules=[Rule("*", "element")])}


def assert_equal_models(one: nn.Module, other: nn.Module, tolerance: float = 1e-12) -> None:
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            p, q, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


@check
def equals_AdamW_with_one_element_per_block(kwargs: dict[str, Any]) -> None:
    ours_model, theirs_model = model_of(), model_of()
    ours = AdamMini(ours_model.parameters(), **adamw_blocks(ours_model), **kwargs)
    plain = {key: value for key, value in kwargs.items() if key != "capturable"}
    if isinstance(plain.get("lr"), Tensor):
        plain["lr"] = float(plain["lr"])
    theirs = torch.optim.AdamW(theirs_model.parameters(), **plain)
    train(ours_model, ours, 20)
    train(theirs_model, theirs, 20)
    assert_equal_models(ours_model, theirs_model, 1e-7 if isinstance(kwargs.get("lr"), Tensor) else 1e-12)


@check
def compiled_and_plain_steps_are_equal(kwargs: dict[str, Any]) -> None:
    models = [model_of(), model_of()]
    for model, fused in zip(models, (None, False), strict=True):
        train(
            model, AdamMini(model.parameters(), partition=partition_model(model), fused=fused, **kwargs), 10
        )
    assert_equal_models(
        *models, 1e-7 if "capturable" in kwargs or isinstance(kwargs.get("lr"), Tensor) else 1e-12
    )


@check
def the_loss_moves_the_right_way(kwargs: dict[str, Any]) -> None:
    model = model_of(torch.float32)
    optimizer = AdamMini.for_model(model, lr=3e-3, maximize=kwargs.get("maximize", False))
    losses = train(model, optimizer, 40)
    change = sum(losses[-5:]) - sum(losses[:5])
    assert change > 0 if kwargs.get("maximize") else change < 0


@check
def state_dict_round_trip_continues_the_same(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)
    train(model, optimizer, 3)
    other = copy.deepcopy(model)
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    fresh = AdamMini(other.parameters(), **(kwargs | {"weight_decay": 0.77}))
    fresh.load_state_dict(torch.load(stream, weights_only=True))
    assert fresh.param_groups[0]["weight_decay"] == optimizer.param_groups[0]["weight_decay"]
    train(model, optimizer, 3, start=3)
    train(other, fresh, 3, start=3)
    assert_equal_models(model, other, 0.0)
    keys = [list(entry) for entry in optimizer.state_dict()["state"].values()]
    assert keys == [["step", "exp_avg", "exp_avg_sq"]] * len(keys)


@check
def deepcopy_and_pickle_continue_the_same(kwargs: dict[str, Any]) -> None:
    for duplicate in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        model = model_of()
        optimizer = AdamMini(model.parameters(), partition=partition_model(model), **kwargs)
        train(model, optimizer, 3)
        other, twin = duplicate((model, optimizer))
        train(model, optimizer, 3, start=3)
        train(other, twin, 3, start=3)
        assert_equal_models(model, other, 0.0)
        assert twin.state_bytes() == optimizer.state_bytes()


@check
def hooks_run_around_the_step(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)
    seen: list[str] = []
    first = optimizer.register_step_pre_hook(lambda o, a, k: seen.append("pre"))
    second = optimizer.register_step_post_hook(lambda o, a, k: seen.append("post"))
    everywhere = [
        register_optimizer_step_pre_hook(lambda o, a, k: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda o, a, k: seen.append("global post")),
    ]
    try:
        train(model, optimizer, 1)
    finally:
        for handle in (first, second, *everywhere):
            handle.remove()
    train(model, optimizer, 1)
    assert seen == ["global pre", "pre", "post", "global post"]
    twin = model_of()
    train(twin, AdamMini(twin.parameters(), **kwargs), 2, start=0)
    watched = model_of()
    by_hand = AdamMini(watched.parameters(), **kwargs)
    train(watched, by_hand, 1)
    train(watched, by_hand, 1, start=1)
    assert_equal_models(watched, twin, 0.0)


@check
def a_parameter_without_a_gradient_stays_as_it_is(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)
    train(model, optimizer, 3)
    assert torch.equal(model.unused, torch.ones(3, dtype=torch.float64))
    assert model.unused not in optimizer.state
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    backward(model, 3)
    optimizer.step()
    assert torch.equal(model[0].weight, before)
    assert optimizer.state[model[0].weight]["step"] == 3
    assert optimizer.state[model[0].bias]["step"] == 4


@check
def closures_give_their_loss(kwargs: dict[str, Any]) -> None:
    model, twin = model_of(), model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        return backward(model, 0)

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert float(loss) == pytest.approx(float(backward(twin, 0)))
    twin_optimizer = AdamMini(twin.parameters(), **kwargs)
    twin_optimizer.step()
    assert_equal_models(model, twin, 0.0)


@check
def param_groups_have_their_own_values(kwargs: dict[str, Any]) -> None:
    model, one, two = model_of(), model_of(), model_of()
    optimizer = AdamMini([{"params": model[0].parameters(), "lr": 0.05}], **kwargs)
    optimizer.add_param_group({"params": list(model[3].parameters()), "weight_decay": 0.3})
    for number in range(3):
        backward(model, number)
        for twin in (one, two):
            backward(twin, number)
        optimizer.step()
        if number == 0:
            first = AdamMini(one[0].parameters(), **(kwargs | {"lr": 0.05}))
            second = AdamMini(two[3].parameters(), **(kwargs | {"weight_decay": 0.3}))
        for twin, own in ((one, first), (two, second)):
            for p, q in zip(twin.parameters(), model.parameters(), strict=True):
                p.grad = None if q.grad is None else q.grad.clone()
            own.step()
    torch.testing.assert_close(model[0].weight, one[0].weight)
    torch.testing.assert_close(model[3].weight, two[3].weight)


@check
def named_parameters_keep_their_names(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.named_parameters(), **kwargs)
    names = [name for name, _ in model.named_parameters()]
    assert optimizer.param_groups[0]["param_names"] == names
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == names


@check
def state_changed_by_hand_is_used(kwargs: dict[str, Any]) -> None:
    """Replaced moments, cleared and new states, swapped weights: what the user wrote is what the next step reads."""

    def replaced(model: nn.Module, optimizer: Any) -> None:
        state = optimizer.state[model[0].weight]
        state["exp_avg"] = torch.zeros_like(state["exp_avg"])
        state["step"] = torch.ones_like(state["step"])

    def in_place(model: nn.Module, optimizer: Any) -> None:
        optimizer.state[model[0].weight]["exp_avg"].zero_()
        optimizer.state[model[0].weight]["step"].fill_(1)

    def cleared(model: nn.Module, optimizer: Any) -> None:
        optimizer.state.clear()

    def new(model: nn.Module, optimizer: Any) -> None:
        optimizer.state = defaultdict(dict)

    def swapped(model: nn.Module, optimizer: Any) -> None:
        model[0].weight.data = model[0].weight.data.clone()

    def nothing(model: nn.Module, optimizer: Any) -> None:
        pass

    results = []
    for change, same in ((replaced, in_place), (cleared, new), (swapped, nothing)):
        for act in (change, same):
            model = model_of()
            optimizer = AdamMini(model.parameters(), **kwargs)
            train(model, optimizer, 2)
            act(model, optimizer)
            train(model, optimizer, 2, start=2)
            results.append(model)
        assert_equal_models(results[-2], results[-1], 0.0)
    for one, other in itertools.combinations(results[::2], 2):
        assert not torch.equal(one[0].weight, other[0].weight)


@check
def a_graph_from_before_the_step_cannot_be_used(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)
    loss = (model(torch.ones(2, 5, dtype=torch.float64)) * model.scale).square().sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@check
def averages_of_weights_follow(kwargs: dict[str, Any]) -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters(), **kwargs)
    mean, moving = AveragedModel(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    seen = []
    for number in range(3):
        train(model, optimizer, 1, start=number)
        mean.update_parameters(model)
        moving.update_parameters(model)
        seen.append(model[0].weight.detach().clone())
    torch.testing.assert_close(mean.module[0].weight, (seen[0] + seen[1] + seen[2]) / 3)
    torch.testing.assert_close(moving.module[0].weight, 0.9 * (0.9 * seen[0] + 0.1 * seen[1]) + 0.1 * seen[2])


@check
def both_ways_of_zero_grad_train_the_same(kwargs: dict[str, Any]) -> None:
    models = [model_of(), model_of()]
    for model, to_none in zip(models, (True, False), strict=True):
        optimizer = AdamMini(model.parameters(), **kwargs)
        for number in range(3):
            optimizer.zero_grad(set_to_none=to_none)
            generator = torch.Generator().manual_seed(number)
            batch = torch.randn(4, 5, generator=generator, dtype=torch.float64)
            (model(batch) * model.scale).square().sum().backward()
            optimizer.step()
    assert_equal_models(*models, 0.0)


@check
def gradients_of_other_layouts_are_read_right(kwargs: dict[str, Any]) -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    results = []
    for layout in (lambda g: g, lambda g: g.t().contiguous().t(), lambda g: torch.cat([g, g], 1)[:, :5]):
        param = nn.Parameter(weight.clone())
        optimizer = AdamMini([param], **kwargs)
        for _ in range(2):
            param.grad = layout(grad)
            optimizer.step()
        results.append(param)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.pitfall("O19")
@pytest.mark.parametrize("case", INPUTS, ids=lambda case: case.desc.replace(" ", "-"))
def test_torch_inputs(case: Any) -> None:
    for function in CHECKS.values():
        function(copy.deepcopy(case.kwargs))


@pytest.mark.pitfall("O20")
def test_torch_error_inputs() -> None:
    """Torch's wrong inputs raise here, too, with the same type of error; those about AdamW's own options cannot apply."""
    ran, left_out = 0, []
    for error in INFO.optim_error_inputs_func("cpu", torch.float32):
        case = error.optimizer_error_input
        if NOT_OURS & set(case.kwargs):
            left_out.append(case.desc)
            continue
        params = [nn.Parameter(torch.randn(1, 1))] if case.params is None else case.params
        if error.error_type is UserWarning:
            with pytest.warns(UserWarning, match=error.error_regex):
                AdamMini(params, **case.kwargs)
        else:
            with pytest.raises(error.error_type):
                AdamMini(params, **case.kwargs)
        ran += 1
    assert ran >= 9
    assert all("foreach" in desc or "foreach" in repr(desc) for desc in left_out), left_out


def test_the_page_lists_what_ran() -> None:
    rows = re.findall(r"^\| ([^|]+) \| passes", PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(row.strip() for row in rows if row.strip() in CHECKS) == sorted(CHECKS)


@pytest.mark.filterwarnings("ignore")
def test_the_profiler_sees_the_step() -> None:
    model = model_of()
    optimizer = AdamMini(model.parameters())
    train(model, optimizer, 1)
    backward(model, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        optimizer.step()
    assert "Optimizer.step#AdamMini.step" in {event.key for event in seen.key_averages()}


@pytest.mark.compiled
@pytest.mark.pitfall("O24")
def test_no_recompilation_when_lr_changes() -> None:
    import torch._dynamo as dynamo

    dynamo.reset()
    model, twin = nn.Linear(5, 40), nn.Linear(5, 40)
    twin.load_state_dict(model.state_dict())
    optimizer, plain = AdamMini.for_model(model), AdamMini.for_model(twin)
    compiled = torch.compile(backend="eager")

    @compiled
    def step(batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    counts = []
    for number in range(6):
        for own in (optimizer, plain):
            for group in own.param_groups:
                group["lr"] = 1e-3 * (number + 1)
        batch = torch.full((4, 5), 1.0 + number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step(batch)
        counts.append(dynamo.utils.counters["stats"]["unique_graphs"])
        plain.zero_grad()
        twin(batch).square().mean().backward()
        plain.step()
    assert counts[-1] == counts[1]  # at most one more compilation after the first call
    torch.testing.assert_close(model.weight, twin.weight)
