"""AdamMini under FSDP2 on two processes: the same weights as one process. Run: python examples/sharded.py."""

import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard

from halfstep import AdamMini

WORLD = 2


def small_model() -> nn.Sequential:
    """Return a model that every process makes alike."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))


def trained(model: nn.Sequential) -> nn.Sequential:
    """Return the model after ten steps; shard first, then make the optimizer."""
    optimizer = AdamMini.for_model(model, lr=1e-2)
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(10):
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()
    return model


def work(rank: int, meeting: str) -> None:
    """Train on one of the processes and compare with a model that is not sharded."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    model = small_model()
    fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (WORLD,)))
    sharded = [p.detach().full_tensor() for p in trained(model).parameters()]
    alone = [p.detach() for p in trained(small_model()).parameters()]
    error = max(float((p - q).abs().max()) for p, q in zip(sharded, alone, strict=True))
    if rank == 0:
        print(f"largest difference between {WORLD} processes and one: {error:.1e}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(f"{folder}/meeting",), nprocs=WORLD)
