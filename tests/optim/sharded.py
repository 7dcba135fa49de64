"""Checks that need several processes; `test_distribution` starts one process per rank: RANK RANKS FOLDER CHECK..."""

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Rule, head, partition_model

R, S0, S1 = Replicate(), Shard(0), Shard(1)


class Net(nn.Module):
    """Heads of 4 rows, three of them, so that 2 ranks cut one; rows; elements; whole tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 12)
        self.attention = nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.out = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.out(self.norm(x))  # type: ignore[no-any-return]


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def make_optimizer(model: nn.Module, **options: Any) -> AdamMini:
    return AdamMini(
        model.named_parameters(), lr=1e-2, weight_decay=0.1, partition=partition_model(model), **options
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, *, clip: bool = False) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 5, (4, 6), generator=generator)
        optimizer.zero_grad()
        model(tokens).square().mean().backward()
        if clip:
            assert isinstance(optimizer, AdamMini)
            optimizer.clip_grad_norm_(0.05)
        optimizer.step()


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assert_same(ours: nn.Module, oracle: nn.Module) -> None:
    for (name, p), q in zip(ours.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(
            full(p.detach()), q.detach(), rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def place(value: Tensor, mesh: Any, placements: Sequence[Placement]) -> DTensor:
    """Distribute a tensor that every rank has."""
    if not isinstance(placements[0], _StridedShard):
        return distribute_tensor(value, mesh, placements)
    dp, tp = mesh.get_coordinate()  # tensor parallelism splits first, then FSDP: the order of fully_shard
    local = chunk_of(chunk_of(value, 2, tp), 2, dp)
    return DTensor.from_local(local, mesh, placements, shape=value.shape, stride=value.stride())


def chunk_of(value: Tensor, number: int, index: int) -> Tensor:
    chunks = value.chunk(number)
    return chunks[index] if index < len(chunks) else value[:0]


Case = tuple[str, tuple[int, ...], Any, Sequence[Placement]]


def compare_layouts(mesh: Any, cases: Sequence[Case], *, collectives: int, **options: Any) -> None:
    """Step parameters of given blocks and placements, and the same parameters whole; five steps, then compare."""
    sharded, whole = nn.Module(), nn.Module()
    generator = torch.Generator().manual_seed(1)
    for name, shape, _, placements in cases:
        dtype = torch.float64 if name.startswith("double") else torch.float32
        value = torch.randn(shape, generator=generator, dtype=dtype)
        sharded.register_parameter(name, nn.Parameter(place(value, mesh, placements)))
        whole.register_parameter(name, nn.Parameter(value.clone()))
    rules = [Rule(name, head(n) if isinstance(n, int) else n) for name, _, n, _ in cases]
    optimizers = [
        AdamMini(
            m.named_parameters(),
            lr=1e-2,
            weight_decay=0.1,
            partition=partition_model(m, rules=rules),
            **options,
        )
        for m in (sharded, whole)
    ]
    for step in range(5):
        scales = [10.0, 0.01, 1.0, 3.0, 0.3][step]
        for p, q in zip(sharded.parameters(), whole.parameters(), strict=True):
            # rows and columns of very different size, so that a wrong block shows
            ramp = torch.logspace(-1, 1, q.numel(), dtype=q.dtype).view(q.shape)
            q.grad = torch.randn(q.shape, generator=generator, dtype=q.dtype) * ramp * scales
            p.grad = place(q.grad, mesh, p.placements)
        if step % 2:
            for p in (*sharded.parameters(), *whole.parameters()):
                if p.shape[0] == 3:
                    p.grad = None  # a step that not every parameter makes
        norms = [o.clip_grad_norm_(1.0 if step != 3 else 1e6) for o in optimizers]
        torch.testing.assert_close(*norms, rtol=1e-6, atol=0)
        with CommDebugMode() as counted:
            optimizers[0].step()
        assert counted.get_total_counts() <= collectives, counted.get_comm_counts()
        optimizers[1].step()
    assert_same(sharded, whole)
    for p, q in zip(sharded.parameters(), whole.parameters(), strict=True):
        ours, theirs = optimizers[0].state[p], optimizers[1].state[q]
        assert ours["exp_avg"].placements == p.placements
        for key in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(full(ours[key]), theirs[key], rtol=1e-5, atol=1e-9)
    held = sum(
        s[k].to_local().nbytes for s in optimizers[0].state.values() for k in ("exp_avg", "exp_avg_sq")
    )
    assert optimizers[0].state_bytes() == held


def cut_blocks_on_two(folder: Path) -> None:
    mesh = init_device_mesh("cpu", (2,))
    cases: list[Case] = [
        ("three_heads", (12, 5), 4, [S0]), ("three_rows", (3, 7), "row", [S0]), ("columns", (7, 5), "row", [S1]),
        ("heads_by_columns", (6, 3), 3, [S1]), ("whole", (5, 3), "tensor", [S0]), ("gain", (5,), "tensor", [S0]),
        ("bias", (5,), "element", [S0]), ("one", (1,), "element", [S0]), ("copy", (4, 3), 2, [R]),
        ("kernel", (5, 3, 2), "row", [Shard(2)]), ("double_heads", (6, 4), 2, [S0]),
    ]  # fmt: skip
    for options in ({}, {"fused": False}, {"maximize": True, "capturable": True}):
        compare_layouts(mesh, cases, collectives=1, **options)
    compare_layouts(
        mesh, [c for c in cases if c[0] in ("three_rows", "bias", "copy")], collectives=0, fused=True
    )
    with pytest.raises(RuntimeError, match="three_heads: fused=True, but edges of its shards"):
        compare_layouts(mesh, cases, collectives=1, fused=True)


def cut_blocks_on_four(folder: Path) -> None:
    line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    compare_layouts(line, [
        ("six_heads", (12, 5), 2, [S0]), ("three_rows", (3, 7), "row", [S0]), ("bias", (3,), "element", [S0]),
        ("gain", (2,), "tensor", [S0]), ("narrow", (5, 2), "row", [S1]), ("head_over_all", (10, 3), 10, [S0]),
        ("heads_and_empty", (9, 2), 3, [S0]),
    ], collectives=1)  # fmt: skip
    hybrid: list[Case] = [
        ("heads", (12, 5), 4, [R, S0]), ("rows", (3, 5), "row", [R, S0]), ("gain", (5,), "tensor", [R, S0]),
    ]  # fmt: skip
    compare_layouts(square, hybrid, collectives=1)
    strided = _StridedShard(0, split_factor=2)
    both: list[Case] = [
        ("row_parallel", (6, 5), "row", [S0, S1]), ("row_parallel_heads", (9, 5), 3, [S0, S1]),
        ("two_cuts", (15, 2), 5, [S0, S0]), ("fsdp_after_tp", (15, 2), 5, [strided, S0]), ("rows", (7, 3), "row", [strided, S0]),
        ("columns", (5, 7), "row", [S1, S1]), ("other_order", (9, 4), 3, [S1, S0]), ("dp", (9, 2), 3, [S0, R]),
        ("tp", (9, 2), 3, [R, S0]), ("none", (9, 2), 3, [R, R]), ("whole", (3, 3), "tensor", [strided, S0]),
    ]  # fmt: skip
    compare_layouts(square, both, collectives=2)
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduced:
        compare_layouts(
            square, both[:1], collectives=1
        )  # rows are whole along dp: only tp sums, and only its rows
    sizes = {call.args[0].numel() for call in reduced.call_args_list if call.args[0].dtype == torch.float32}
    assert sizes == {3}, sizes


def models_on_four(folder: Path) -> None:
    """Real training under FSDP2, HSDP, and FSDP2 on top of tensor parallelism."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    oracle = make_net()
    train(oracle, make_optimizer(oracle), range(5), clip=True)
    line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for mesh in (line, square):
        model = make_net()
        fully_shard(model.attention, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = make_optimizer(model)
        train(model, optimizer, range(5), clip=True)
        assert_same(model, oracle)

    def two_layers() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5))

    rules = [Rule("0.weight", head(2)), Rule("2.weight", head(5))]
    finished = []
    for parallel in (False, True):
        model = two_layers()
        if parallel:
            parallelize_module(model, square["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
            fully_shard(model, mesh=square["dp"])
        optimizer = AdamMini(model.parameters(), lr=1e-2, partition=partition_model(model, rules=rules))
        for step in range(5):
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        finished.append(model)
    assert_same(finished[1], finished[0])


def collectives(folder: Path) -> None:
    def counts(model: nn.Module, optimizer: AdamMini) -> list[int]:
        found = []
        for step in range(3):
            train_input = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(train_input).square().mean().backward()
            with CommDebugMode() as counted:
                optimizer.step()
            found.append(counted.get_total_counts())
        return found

    replicated = nn.parallel.DistributedDataParallel(make_net())
    assert counts(replicated, make_optimizer(replicated)) == [0, 0, 0]
    sharded = make_net()
    fully_shard(sharded)
    optimizer = make_optimizer(sharded)
    assert counts(sharded, optimizer) == [1, 1, 1]  # a head of 36 rows lies on both ranks
    with CommDebugMode() as counted:
        optimizer.clip_grad_norm_(1.0)
    assert counted.get_total_counts() == 1
    whole_rows = make_net()
    fully_shard(whole_rows)
    by_row = AdamMini(
        whole_rows.parameters(), partition=partition_model(whole_rows, rules=[Rule("norm*", "element"), Rule("*", "row")])
    )  # fmt: skip
    assert counts(whole_rows, by_row) == [0, 0, 0]
    assert_same(replicated, make_trained(3))
    assert_same(sharded, make_trained(3))


def make_trained(steps: int) -> nn.Module:
    model = make_net()
    train(model, make_optimizer(model), range(steps))
    return model


def flat_parameters(folder: Path) -> None:
    for keep_shapes in (True, False):
        before = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
        partition = partition_model(before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FullyShardedDataParallel(
                before, use_orig_params=keep_shapes, device_id=torch.device("cpu")
            )
        attempts: list[Callable[[], AdamMini]] = [
            lambda m=model: AdamMini(m.parameters()),
            lambda m=model: AdamMini.for_model(m),
            lambda m=model: AdamMini(m.parameters(), partition=partition_model(m)),
        ]
        if keep_shapes:  # the parameters of before, which have lost their shapes
            attempts.append(lambda m=model, p=partition: AdamMini(m.parameters(), partition=p))
        for attempt in attempts:
            with pytest.raises(ValueError, match=r"a flat parameter .*fully_shard \(FSDP2\) instead"):
                attempt()


def offloaded(folder: Path) -> None:
    """Weights and gradients that FSDP2 keeps on the CPU, beside a parameter of no shards."""
    finished = []
    for sharded in (False, True):
        model, extra = make_net(), nn.Parameter(torch.arange(6.0).view(2, 3))
        if sharded:
            fully_shard(model, offload_policy=CPUOffloadPolicy(pin_memory=False))
        optimizer = make_optimizer(model)
        optimizer._partition = None  # extra is none of the model's
        optimizer.add_param_group({"params": [("extra", extra)], "lr": 0.1})
        for step in range(5):
            extra.grad = torch.full((2, 3), step - 1.5)
            tokens = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(step))
            model(tokens).square().mean().backward()
            optimizer.clip_grad_norm_(1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.register_parameter("extra", extra)
        finished.append(model)
    assert_same(finished[1], finished[0])


def offloaded_beside_gpu(folder: Path) -> None:
    """Weights on the CPU and a parameter on the GPU in one optimizer; one factor clips both."""
    finished = []
    for sharded in (False, True):
        model = make_net()
        extra = nn.Parameter(torch.arange(6.0, device="cuda" if sharded else "cpu").view(2, 3))
        if sharded:
            fully_shard(model, mesh=init_device_mesh("cuda", (1,)), offload_policy=CPUOffloadPolicy())
        optimizer = AdamMini([*model.parameters(), extra], lr=1e-2)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for p in (*model.parameters(), extra):
                grad = torch.randn(p.shape, generator=generator)
                if isinstance(p, DTensor):
                    p.grad = DTensor.from_local(grad, p.device_mesh, p.placements)
                else:
                    p.grad = grad.to(p.device)
            optimizer.clip_grad_norm_(1.0)
            optimizer.step()
        finished.append([full(p.detach()).cpu() for p in (*model.parameters(), extra)])
    for p, q in zip(*finished, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def manners(folder: Path) -> None:
    """Copies, overflow on one rank only, names of bad parameters, states of AdamW."""
    model = make_net()
    fully_shard(model)
    optimizer = make_optimizer(model)
    train(model, optimizer, range(2))
    before = [full(p.detach()).clone() for p in model.parameters()]

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    tokens = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(2))
    optimizer.zero_grad()
    scaler.scale(model(tokens).square().mean()).backward()
    if dist.get_rank() == 0:  # only one rank sees it
        weight: Any = model.attention.in_proj_weight
        weight.grad.to_local()[0, 0] = float("inf")
    assert optimizer.found_nonfinite() == ["attention.in_proj_weight"], optimizer.found_nonfinite()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(full(p.detach()), q) for p, q in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 4.0
    optimizer.zero_grad()
    scaler.scale(model(tokens).square().mean()).backward()
    scaler.step(optimizer)
    assert_same(model, make_trained(3))

    mesh = init_device_mesh("cpu", (2,))  # gradients placed otherwise than their parameters
    grad = torch.tensor([[1.0, -2, 3], [4, 5, 6]])
    expected = 1.0 - 1e-3 * grad / torch.tensor([[(14 / 3) ** 0.5], [(77 / 3) ** 0.5]])
    for placement in (R, S0, S1):
        param = nn.Parameter(distribute_tensor(torch.ones(2, 3), mesh, [placement]))
        param.grad = DTensor.from_local(grad * (0.25 + 0.5 * dist.get_rank()), mesh, [Partial()])
        AdamMini([param], weight_decay=0.0).step()
        torch.testing.assert_close(full(param.detach()), expected, rtol=1e-6, atol=0)

    adamw_model, oracle = make_net(), make_net()
    fully_shard(adamw_model)
    states = []
    for m in (adamw_model, oracle):
        adamw = torch.optim.AdamW(m.parameters(), lr=1e-2)
        train(m, adamw, range(2))
        ours = make_optimizer(m)
        ours.load_state_dict(adamw.state_dict())
        train(m, ours, range(2, 5))
        states.append(ours.state[m.attention.in_proj_weight])
    assert_same(adamw_model, oracle)
    assert states[0]["exp_avg_sq"].shape == (36, 1)


def parts_of(model: nn.Module, optimizer: AdamMini) -> dict[str, Any]:
    return {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def load(folder: Path, model: nn.Module, optimizer: AdamMini, group: Any = None) -> None:
    state = parts_of(model, optimizer)
    dcp.load(
        state, checkpoint_id=folder / "checkpoint", process_group=group, no_dist=not dist.is_initialized()
    )
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def state_shapes(folder: Path) -> None:
    model = make_net()
    fully_shard(model)
    optimizer = make_optimizer(model)
    train(model, optimizer, range(1))
    partition = partition_model(model)
    for name, p in model.named_parameters():
        state = optimizer.state[p]
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert state["exp_avg"].shape == p.shape
        assert state["exp_avg"].to_local().shape == p.to_local().shape
        assert state["exp_avg_sq"].shape == partition.specs[name].state_shape
        assert state["step"].shape == ()
    state = optimizer.state[model.attention.in_proj_weight]
    assert {key: tuple(state[key].to_local().shape) for key in ("exp_avg", "exp_avg_sq")} == {
        "exp_avg": (18, 12), "exp_avg_sq": (18, 1)
    }  # fmt: skip
    gain = optimizer.state[model.norm.weight]["exp_avg_sq"]  # one number, on both ranks
    assert (gain.shape, gain.to_local().shape) == ((1,), (1,))


def save_on_two(folder: Path) -> None:
    """Leave a checkpoint after 3 of 6 steps; going on from it on as many ranks changes no bit."""
    model = make_net()
    fully_shard(model)
    optimizer = make_optimizer(model)
    train(model, optimizer, range(3))
    dcp.save(parts_of(model, optimizer), checkpoint_id=folder / "checkpoint")
    options = StateDictOptions(full_state_dict=True)
    whole = get_optimizer_state_dict(model, optimizer, options=options)

    twins = []
    for _ in range(2):
        twin = make_net()
        fully_shard(twin)
        twins.append((twin, make_optimizer(twin)))
    load(folder, *twins[0])
    set_model_state_dict(twins[1][0], get_model_state_dict(model))
    set_optimizer_state_dict(*twins[1], whole, options=options)
    train(model, optimizer, range(3, 6))
    for twin, its_optimizer in twins:
        train(twin, its_optimizer, range(3, 6))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(full(p.detach()), full(q.detach()))
    assert_same(model, make_trained(6))


def resume_on_three(folder: Path) -> None:
    resume_on(3, folder)


def resume_on_four(folder: Path) -> None:
    resume_on(4, folder)


def resume_on(ranks: int, folder: Path) -> None:
    """Go on from the checkpoint of two ranks: heads are cut elsewhere."""
    mesh = DeviceMesh("cpu", list(range(ranks)))
    if dist.get_rank() < ranks:
        model = make_net()
        fully_shard(model, mesh=mesh)
        optimizer = make_optimizer(model)
        load(folder, model, optimizer, mesh.get_group())
        train(model, optimizer, range(3, 6))
        assert_same(model, make_trained(6))


def resume_from_one(folder: Path) -> None:
    """Go on from the checkpoint of one process."""
    if dist.get_rank() == 0:
        model = make_net()
        optimizer = make_optimizer(model)
        train(model, optimizer, range(3))
        dcp.save(parts_of(model, optimizer), checkpoint_id=folder / "of_one" / "checkpoint", no_dist=True)
    dist.barrier()
    model = make_net()
    fully_shard(model)
    optimizer = make_optimizer(model)
    load(folder / "of_one", model, optimizer)
    train(model, optimizer, range(3, 6))
    assert_same(model, make_trained(6))


def resume_on_one(folder: Path) -> None:
    """Without shards and without processes."""
    model = make_net()
    optimizer = make_optimizer(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        load(folder, model, optimizer)
    train(model, optimizer, range(3, 6))
    assert_same(model, make_trained(6))


def main(rank: int, ranks: int, folder: Path, checks: Sequence[str]) -> None:
    """Run checks one after the other up to the first that fails, and write down what came of each."""
    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    rendezvous = f"file://{folder}/rendezvous-{ranks}"
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, init_method=rendezvous, rank=rank, world_size=ranks, timeout=timedelta(seconds=240)
    )
    outcomes: dict[str, str] = {}
    for check in checks:
        start = time.perf_counter()
        try:
            globals()[check](folder)
        except BaseException:
            outcomes[check] = traceback.format_exc()
            break
        else:
            outcomes[check] = ""
            print(check, round(time.perf_counter() - start, 1), "s")
        finally:
            (folder / f"outcomes-{ranks}-{rank}.json").write_text(json.dumps(outcomes), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
