"""Scenarios of torch's own optimizer tests, re-created: what AdamW does in them, AdamMini does.

Vectors have one element per block, where both rules are the same, so most scenarios run one script on both optimizers.
docs/optimizer-compatibility.md lists the scenarios; the last test compares that list with what stands here.
"""

import copy
import io
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, lr_scheduler

from halfstep.optim import AdamMini, partition_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "optimizer-compatibility.md"
SHAPES: tuple[tuple[int, ...], ...] = ((7,), (), (64,))


def vectors(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(params: list[nn.Parameter], seed: int, size: float = 1.0) -> None:
    """Replace the gradients by new tensors."""
    generator = torch.Generator().manual_seed(100 + seed)
    for param in params:
        param.grad = size * torch.randn(param.shape, generator=generator, dtype=param.dtype)


def clip(optimizer: Any, max_norm: float, **options: Any) -> Tensor:
    """Clip as the optimizer's users do: with our method, or with torch's function."""
    if isinstance(optimizer, AdamMini):
        return optimizer.clip_grad_norm_(max_norm, **options)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return nn.utils.clip_grad_norm_(params, max_norm, **options)


Script = Callable[[list[nn.Parameter], Any], Any]


def same_as_adamw(script: Script, tolerance: float = 1e-6, **options: Any) -> None:
    """Run a script with either optimizer; weights, first moments, step counts and what it returns must agree."""
    for fused in (None, False):
        ours, theirs = vectors(), vectors()
        one, other = AdamMini(ours, fused=fused, **options), AdamW(theirs, **options)
        torch.testing.assert_close(
            script(ours, one), script(theirs, other), rtol=tolerance, atol=tolerance, equal_nan=True
        )
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, equal_nan=True)
            mine, its = one.state.get(p, {}), other.state.get(q, {})
            if mine and not its:  # clipping makes the state, and a gradient was dropped before the step
                assert not any(tensor.any() for tensor in mine.values())
                continue
            assert set(mine) == set(its)
            for key in mine:
                torch.testing.assert_close(
                    mine[key], its[key], rtol=tolerance, atol=tolerance, equal_nan=True
                )


def same_fused_and_plain(
    make: Callable[[], list[Any]], script: Callable[[list[Any], AdamMini], None], **options: Any
) -> None:
    """Run a script with compiled kernels and with plain torch; the weights must agree."""
    finished = []
    for fused in (None, False):
        params = make()
        script(params, AdamMini(params, fused=fused, **options))
        finished.append(params)
    for p, q in zip(*finished, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 1)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-1, step_size_up=3),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o),
}


def test_every_scheduler_class() -> None:
    assert set(SCHEDULES) == set(lr_scheduler.__all__) - {"LRScheduler"}
    for name, make in SCHEDULES.items():

        def script(params: list[nn.Parameter], optimizer: Any, name: str = name, make: Any = make) -> Any:
            schedule, seen = make(optimizer), []
            for k in range(8):
                give_gradients(params, k)
                optimizer.step()
                schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
                group = optimizer.param_groups[0]
                seen.append((float(group["lr"]), *group["betas"]))
            assert len({row[0] for row in seen}) > 1, name
            if name in ("OneCycleLR", "CyclicLR"):
                assert len({row[1] for row in seen}) > 1, name
            return torch.tensor(seen)

        same_as_adamw(script, lr=1e-2)


def test_a_scheduler_continues_after_a_restart() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> None:
        schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
        for k in range(6):
            give_gradients(params, k)
            optimizer.step()
            schedule.step()
            if k == 2:
                saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
                schedule = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=9)
                optimizer.load_state_dict(saved[0])
                schedule.load_state_dict(saved[1])

    same_as_adamw(script)


def test_clipping_in_every_order() -> None:
    def once(params: list[nn.Parameter], optimizer: Any) -> Tensor:
        give_gradients(params, 1, 10.0)
        norm = clip(optimizer, 1.0)
        optimizer.step()
        return norm

    def not_needed(params: list[nn.Parameter], optimizer: Any) -> Tensor:
        give_gradients(params, 1, 1e-3)
        norm = clip(optimizer, 1.0)
        optimizer.step()
        return norm

    def twice(params: list[nn.Parameter], optimizer: Any) -> tuple[Tensor, Tensor]:
        give_gradients(params, 1, 10.0)
        norms = clip(optimizer, 1.0), clip(optimizer, 5.0)
        optimizer.step()
        return norms

    def tighter(params: list[nn.Parameter], optimizer: Any) -> tuple[Tensor, Tensor]:
        give_gradients(params, 1, 10.0)
        norms = clip(optimizer, 5.0), clip(optimizer, 1.0)
        optimizer.step()
        return norms

    def all_replaced(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1, 10.0)
        clip(optimizer, 1.0)
        give_gradients(params, 2, 3.0)
        optimizer.step()

    def one_replaced(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1, 10.0)
        clip(optimizer, 1.0)
        params[0].grad = torch.full((7,), 3.0)
        optimizer.step()

    def one_dropped(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1, 10.0)
        clip(optimizer, 1.0)
        params[0].grad = None
        optimizer.step()

    def given_up(params: list[nn.Parameter], optimizer: Any) -> None:
        for to_none in (True, False):
            give_gradients(params, 1, float("nan"))
            clip(optimizer, 1.0)
            optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()
        give_gradients(params, 2)
        optimizer.step()

    def given_up_by_the_model(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1, float("nan"))
        clip(optimizer, 1.0)
        for param in params:
            param.grad = None
        give_gradients(params, 2)
        optimizer.step()

    def not_finite(params: list[nn.Parameter], optimizer: Any) -> tuple[Tensor, Tensor]:
        norms = []
        for bad in (float("inf"), float("nan")):
            give_gradients(params, 1)
            params[0].grad[2] = bad  # type: ignore[index]
            norms.append(clip(optimizer, 1.0))
            optimizer.step()
        return norms[0], norms[1]

    def refused(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1)
        params[0].grad[2] = float("nan")  # type: ignore[index]
        with pytest.raises(RuntimeError, match="norm"):
            clip(optimizer, 1.0, error_if_nonfinite=True)
        optimizer.step()

    def only_once(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1, 10.0)
        clip(optimizer, 1.0)
        optimizer.step()
        give_gradients(params, 2, 10.0)
        optimizer.step()

    def in_a_closure(params: list[nn.Parameter], optimizer: Any) -> None:
        def closure() -> float:
            optimizer.zero_grad()
            give_gradients(params, 1, 10.0)
            clip(optimizer, 1.0)
            return 0.0

        for _ in range(2):
            optimizer.step(closure)

    for script in (
        once, not_needed, twice, tighter, all_replaced, one_replaced, one_dropped, given_up, given_up_by_the_model,
        not_finite, refused, only_once, in_a_closure,
    ):  # fmt: skip
        same_as_adamw(script)
        same_as_adamw(script, maximize=True)


def test_gradients_changed_in_place_after_clipping_are_refused() -> None:
    """The factor can no longer be told apart from what was added, so a wrong number is not made."""
    params = vectors()
    optimizer = AdamMini(params)
    give_gradients(params, 1, 10.0)
    optimizer.clip_grad_norm_(1.0)
    params[1].grad += 1
    before = [param.detach().clone() for param in params]
    with pytest.raises(RuntimeError, match=r"parameter 1: its gradient was changed in place.*zero_grad"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    optimizer.clip_grad_norm_(1.0)
    optimizer.step()


def test_grad_scaler_with_and_without_unscaling() -> None:
    def trained(kind: Any, *, unscale: bool, clipped: bool) -> list[nn.Parameter]:
        params = vectors()
        optimizer = kind(params, lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        for k in range(6):
            optimizer.zero_grad()
            loss = sum(((p - k) ** 2).sum() for p in params)
            scaler.scale(loss).backward()
            if k == 3:
                params[0].grad[1] = float("inf")  # type: ignore[index]
            if unscale:
                scaler.unscale_(optimizer)
            if clipped:
                clip(optimizer, 1.0)
            scaler.step(optimizer)
            scaler.update()
        assert float(next(iter(optimizer.state.values()))["step"]) == 5
        assert not hasattr(optimizer, "grad_scale")
        return params

    for unscale, clipped in ((False, False), (True, False), (True, True)):
        pair = [trained(kind, unscale=unscale, clipped=clipped) for kind in (AdamMini, AdamW)]
        for p, q in zip(*pair, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_a_big_batch() -> None:
    finished = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        optimizer = AdamMini.for_model(model, lr=1e-2)
        for k in range(3):
            batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
            optimizer.zero_grad()
            for part in batch.chunk(parts):
                (model(part).square().mean() / parts).backward()
            optimizer.step()
        finished.append(list(model.parameters()))
    for p, q in zip(*finished, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


def test_load_hooks_see_and_change_the_state() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> Any:
        give_gradients(params, 1)
        optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        for entry in saved["state"].values():
            entry["old_name"] = entry.pop("exp_avg")

        def renamed(_: Any, found: dict[str, Any]) -> dict[str, Any]:
            found = copy.deepcopy(found)
            for entry in found["state"].values():
                entry["exp_avg"] = entry.pop("old_name") * 2
            return found

        def halved(own: Any) -> None:
            for entry in own.state.values():
                entry["exp_avg_sq"] = entry["exp_avg_sq"] / 2

        handles = [
            optimizer.register_load_state_dict_pre_hook(renamed),
            optimizer.register_load_state_dict_post_hook(halved),
        ]
        optimizer.load_state_dict(saved)
        for handle in handles:
            handle.remove()
        give_gradients(params, 2)
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        return torch.stack([optimizer.state[p]["exp_avg"].sum() for p in params])

    same_as_adamw(script)


def test_group_keys_that_are_more_or_fewer() -> None:
    params = vectors()
    optimizer = AdamMini(params, lr=0.02)
    give_gradients(params, 1)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["note"] = "kept"
    for key in ("maximize", "capturable", "fused"):  # as an older release would have written it
        del saved["param_groups"][0][key]
    twins = vectors()
    fresh = AdamMini(twins)
    fresh.load_state_dict(saved)
    assert fresh.param_groups[0]["note"] == "kept"
    assert fresh.param_groups[0]["lr"] == 0.02
    give_gradients(twins, 2)
    fresh.step()
    before = copy.deepcopy(fresh.state_dict())
    for wrong in (vectors()[:2], [*vectors(), nn.Parameter(torch.ones(3))]):
        with pytest.raises(ValueError, match="parameters"):
            fresh.load_state_dict(AdamMini(wrong).state_dict())
    after = fresh.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(
        torch.equal(entry[key], before["state"][k][key])
        for k, entry in after["state"].items()
        for key in entry
    )


def test_saving_twice_gives_the_same_bytes() -> None:
    written = []
    for _ in range(2):
        params = vectors()
        optimizer = AdamMini(params)
        give_gradients(params, 1)
        optimizer.step()
        stream = io.BytesIO()
        torch.save(optimizer.state_dict(), stream)
        written.append(stream.getvalue())
    assert written[0] == written[1]


def test_bfloat16_weights_load_moments_in_float32() -> None:
    params = vectors()
    optimizer = AdamMini(params)
    give_gradients(params, 1)
    optimizer.step()
    narrow = [nn.Parameter(p.detach().bfloat16()) for p in params]
    loaded = AdamMini(narrow)
    loaded.load_state_dict(optimizer.state_dict())
    for p, q in zip(params, narrow, strict=True):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert loaded.state[q][key].dtype == torch.float32
            assert torch.equal(loaded.state[q][key], optimizer.state[p][key])


def test_groups_and_parameters_replaced_by_hand() -> None:
    def new_group(params: list[nn.Parameter], optimizer: Any) -> None:
        optimizer.param_groups[0] = dict(optimizer.param_groups[0])
        optimizer.param_groups[0]["lr"] = 0.5

    def new_list(params: list[nn.Parameter], optimizer: Any) -> None:
        optimizer.param_groups[0]["params"] = params[::-1]

    def new_parameter(params: list[nn.Parameter], optimizer: Any) -> None:
        params[0] = nn.Parameter(torch.ones(5))
        optimizer.param_groups[0]["params"][0] = params[0]

    def fewer(params: list[nn.Parameter], optimizer: Any) -> None:
        del optimizer.param_groups[0]["params"][1]

    def all_new(params: list[nn.Parameter], optimizer: Any) -> None:
        optimizer.param_groups.clear()
        optimizer.state.clear()
        optimizer.add_param_group({"params": params[:1], "lr": 0.1})
        optimizer.add_param_group({"params": params[1:], "weight_decay": 0.5})

    for change in (new_group, new_list, new_parameter, fewer, all_new):

        def script(params: list[nn.Parameter], optimizer: Any, change: Any = change) -> None:
            for k in range(4):
                if k == 2:
                    change(params, optimizer)
                give_gradients(params, k)
                optimizer.step()

        same_as_adamw(script)


def test_switching_fused_takes_effect() -> None:
    params = [nn.Parameter(torch.ones(8, 4)[:, :2])]  # gaps in memory: no kernel
    optimizer = AdamMini(params)
    params[0].grad = torch.ones(8, 2)
    optimizer.step()
    optimizer.param_groups[0]["fused"] = True
    with pytest.raises(RuntimeError, match="fused=True, but no compiled kernel"):
        optimizer.step()
    optimizer.param_groups[0]["fused"] = False
    optimizer.step()


def test_a_refused_group_leaves_the_optimizer_as_it_was() -> None:
    params = vectors()
    optimizer = AdamMini(params)
    for wrong in (
        {"params": [nn.Parameter(torch.zeros(2))], "lr": -1.0},
        {"params": [nn.Parameter(torch.zeros(2, dtype=torch.complex64))]},
    ):
        with pytest.raises(ValueError, match=r"lr|complex"):
            optimizer.add_param_group(wrong)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3]
    give_gradients(params, 1)
    optimizer.step()


def test_a_group_is_added_to_a_copy() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = AdamMini(model[0].named_parameters(), partition=partition_model(model))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    other, twin = copy.deepcopy((model, optimizer))
    for m, o in ((model, optimizer), (other, twin)):
        o.add_param_group({"params": list(m[1].named_parameters())})
        o.zero_grad()
        m(torch.ones(1, 3)).square().sum().backward()
        o.step()
    assert len(twin.state) == 4
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    unnamed = {"params": [nn.Parameter(torch.zeros(2))]}
    with pytest.raises(ValueError, match="names"):
        optimizer.add_param_group(unnamed)


def test_memory_of_the_state_is_moved() -> None:
    """``share_memory_`` (weights of several processes) and ``.data = `` (moving a state between devices)."""

    def shared(tensor: Tensor) -> None:
        tensor.share_memory_()

    def assigned(tensor: Tensor) -> None:
        tensor.data = tensor.data.clone()

    for move in (shared, assigned):
        for key in ("exp_avg", "exp_avg_sq", "step"):

            def script(params: list[nn.Parameter], optimizer: Any, move: Any = move, key: str = key) -> None:
                for k in range(4):
                    if k == 2:
                        for param in params:
                            move(optimizer.state[param][key])
                    give_gradients(params, k)
                    optimizer.step()

            same_as_adamw(script)


def test_a_weight_is_moved() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> None:
        for k in range(4):
            if k == 2:
                for param in params:
                    param.data = param.data.clone()
                params[0].share_memory_()
            give_gradients(params, k)
            optimizer.step()

    same_as_adamw(script)


def test_step_hooks_change_the_arguments() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> Any:
        seen: list[int] = []

        def give_closure(own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert own is optimizer
            seen.append(len(args))
            return args, {"closure": lambda: give_gradients(params, 5) or 4.0}

        handle = optimizer.register_step_pre_hook(give_closure)
        result = optimizer.step()
        handle.remove()
        wrong = optimizer.register_step_pre_hook(lambda *_: 1)
        with pytest.raises(RuntimeError, match="tuple of"):
            optimizer.step()
        wrong.remove()
        return torch.tensor([result, *seen])

    same_as_adamw(script)


def test_a_tensor_lr_is_changed_in_place() -> None:
    for capturable in (False, True):
        finished = []
        for fused in (None, False):
            params, lr = vectors(), torch.tensor(0.1)
            optimizer = AdamMini(params, lr=lr, fused=fused, capturable=capturable, weight_decay=0.0)
            give_gradients(params, 1)
            optimizer.step()
            before = [p.detach().clone() for p in params]
            lr.fill_(0.0)
            optimizer.step()
            assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
            lr.fill_(0.2)
            optimizer.step()
            finished.append(params)
        for p, q in zip(*finished, strict=True):
            torch.testing.assert_close(p, q)


def test_frozen_and_thawed_parameters() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> None:
        for k in range(6):
            params[0].requires_grad_(k not in (0, 3))
            optimizer.zero_grad()
            sum(((p - k) ** 2).sum() for p in params).backward()  # type: ignore[union-attr]
            optimizer.step()

    same_as_adamw(script)


def test_no_gradient_at_all() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> Tensor:
        optimizer.step()
        assert not optimizer.state
        return clip(optimizer, 1.0)

    same_as_adamw(script)


def test_a_parameter_that_was_not_stepped_keeps_its_version() -> None:
    params = vectors()
    optimizer = AdamMini(params)
    give_gradients(params, 1)
    optimizer.step()
    version = params[0]._version
    params[0].grad = None
    optimizer.step()
    assert params[0]._version == version


def test_grad_modes() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> None:
        give_gradients(params, 1)
        with torch.no_grad():
            optimizer.step()
        with torch.enable_grad():
            optimizer.step()
        with torch.inference_mode():
            optimizer.step()
        assert all(p.requires_grad and p.is_leaf for p in params)

    same_as_adamw(script)


def test_shapes_layouts_and_dtypes_in_one_optimizer() -> None:
    def make() -> list[Any]:
        torch.manual_seed(0)
        conv = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
        return [
            nn.Parameter(conv), nn.Parameter(torch.randn(5, 8).t()), nn.Parameter(torch.randn(8, 6)[:, :4]),
            nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.randn(1, 1)),
            nn.Parameter(torch.randn(4, 4, dtype=torch.float64)), nn.Parameter(torch.randn(3, 2, 2, 2, 2)),
        ]  # fmt: skip

    def script(params: list[Any], optimizer: AdamMini) -> None:
        for k in range(4):
            give_gradients(params, k)
            if k == 1:
                params[0].grad = params[0].grad.contiguous()
                params[1].grad = torch.ones(5).expand(8, 5)
                params[5].grad = torch.ones(()).expand(1, 1)
            if k == 2:
                params[6].grad = params[6].grad.t().contiguous().t()
                params[7].grad = params[7].grad.transpose(0, 0)[...].flip(0)
            optimizer.step()

    for options in ({}, {"maximize": True}, {"capturable": True}, {"weight_decay": 0.0}):
        same_fused_and_plain(make, script, lr=1e-2, **options)


def test_gradients_of_half_precision() -> None:
    for dtype in (torch.bfloat16, torch.float16):

        def make(dtype: torch.dtype = dtype) -> list[Any]:
            torch.manual_seed(0)
            return [nn.Parameter(torch.randn(6, 5, dtype=dtype)), nn.Parameter(torch.randn(6))]

        finished = []
        for fused in (None, False):
            params = make()
            optimizer = AdamMini(params, fused=fused, lr=1e-2)
            for k in range(4):
                give_gradients(params, k)
                optimizer.step()
            finished.append(params)
        ulp = torch.finfo(dtype).eps
        for p, q in zip(*finished, strict=True):
            torch.testing.assert_close(p, q, rtol=2 * ulp, atol=1e-6)


def test_a_valley_is_descended() -> None:
    """Rosenbrock's function from (-1.5, 1.5), with a closure, for every form of the step."""
    for options in ({}, {"fused": False}, {"capturable": True}, {"lr": torch.tensor(0.1)}):
        point = nn.Parameter(torch.tensor([-1.5, 1.5], dtype=torch.float64))
        optimizer = AdamMini([point], **({"lr": 0.1, "weight_decay": 0.0} | options))

        def closure(point: Tensor = point, optimizer: AdamMini = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2
            loss.backward()
            return loss.detach()

        first = float(closure())
        for _ in range(1000):
            optimizer.step(closure)
        assert float(closure()) < first / 1000


def test_zero_grad_of_the_model_or_the_optimizer() -> None:
    def script(params: list[nn.Parameter], optimizer: Any) -> None:
        for k, to_none in enumerate((True, False, True)):
            optimizer.zero_grad(set_to_none=to_none)
            assert all((p.grad is None) if to_none or k == 0 else not p.grad.any() for p in params)
            sum(((p - k) ** 2).sum() for p in params).backward()  # type: ignore[union-attr]
            optimizer.step()

    same_as_adamw(script)


def test_parameters_given_twice() -> None:
    param = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        AdamMini([{"params": [param]}, {"params": [param]}])
    with pytest.raises(ValueError, match="empty parameter list"):
        AdamMini([])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        AdamMini([param, param])
    assert any("duplicate parameters" in str(warning.message) for warning in said)


def test_the_page_lists_the_scenarios() -> None:
    here = {
        name.removeprefix("test_").replace("_", " ")
        for name in vars(sys.modules[__name__])
        if name.startswith("test_") and name != "test_the_page_lists_the_scenarios"
    }
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| scenario | result |") :].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\w+)", table, re.M)
    assert {name for name, _ in rows if name != "scenario"} == here
    assert {result for name, result in rows if name != "scenario"} == {"passes"}
