"""AdamMini over several processes equals AdamMini in one; the checks themselves stand in `sharded.py`."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import partition_model

SHARDED = Path(__file__).with_name("sharded.py")
ON_TWO = [
    "cut_blocks_on_two", "collectives", "flat_parameters", "offloaded", "manners", "state_shapes", "save_on_two",
    "resume_from_one",
]  # fmt: skip
ON_FOUR = ["cut_blocks_on_four", "models_on_four", "resume_on_three", "resume_on_four"]
Outcomes = dict[str, list[str]]


def run_checks(ranks: int, folder: Path, checks: list[str]) -> Outcomes:
    """Run checks in one process per rank; return what went wrong in each, by check."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SHARDED), str(rank), str(ranks), str(folder), *checks],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=540)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found: Outcomes = {check: [] for check in checks}
    for rank, output in enumerate(outputs):
        path = folder / f"outcomes-{ranks}-{rank}.json"
        outcomes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for check in checks:
            error = outcomes.get(check, f"did not run\n{output[-3000:]}")
            found[check] += [f"rank {rank}: {error}"] if error else []
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two ranks leave a checkpoint for other numbers of ranks."""
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def on_two(folder: Path) -> Outcomes:
    return run_checks(2, folder, ON_TWO)


@pytest.fixture(scope="module")
def on_four(folder: Path, on_two: Outcomes) -> Outcomes:
    return run_checks(4, folder, ON_FOUR)


def passed(outcomes: Outcomes, *checks: str) -> None:
    for check in checks:
        assert not outcomes[check], "\n".join(outcomes[check])


@pytest.mark.pitfall("O13")
def test_visible_gpus_are_never_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> torch.Tensor:
        layer = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
        optimizer = AdamMini.for_model(layer, lr=0.1)
        layer.weight.grad = torch.tensor([[1.0, 0, -1], [2, 3, -5]])
        optimizer.clip_grad_norm_(1.0)
        optimizer.step()
        return layer.weight.detach()

    alone = stepped()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert not torch.distributed.is_initialized()
    assert torch.equal(stepped(), alone)
    assert not torch.equal(alone, torch.tensor([[1.0, 2, 3], [4, 5, 6]]))


@pytest.mark.pitfall("O14")
def test_number_of_collectives(on_two: Outcomes) -> None:
    passed(on_two, "collectives")


@pytest.mark.pitfall("O15")
def test_flat_parameters_never_share_one_scalar(on_two: Outcomes) -> None:
    passed(on_two, "flat_parameters")
    layer = nn.Linear(3, 2, bias=False)
    partition = partition_model(layer)
    layer.weight.data = layer.weight.data.flatten()
    with pytest.raises(ValueError, match=r"shape \(6,\), but its blocks were decided for shape \(2, 3\)"):
        AdamMini(layer.parameters(), partition=partition)
    flat = nn.Parameter(torch.zeros(6))  # all weights in one buffer, as ZeRO keeps them
    optimizer = AdamMini([flat])
    flat.grad = torch.arange(6.0)
    optimizer.step()
    assert optimizer.state[flat]["exp_avg_sq"].shape == (6,)
    torch.testing.assert_close(optimizer.state[flat]["exp_avg_sq"], 1e-3 * flat.grad.square())


@pytest.mark.pitfall("O16")
def test_sharded_equals_one_process(on_two: Outcomes, on_four: Outcomes) -> None:
    passed(on_two, "cut_blocks_on_two")
    passed(on_four, "cut_blocks_on_four", "models_on_four")


def test_manners_hold_over_processes(on_two: Outcomes) -> None:
    passed(on_two, "manners")


@pytest.mark.pitfall("O17")
def test_offloaded_parameters_step(on_two: Outcomes) -> None:
    passed(on_two, "offloaded")


@pytest.mark.pitfall("O17")
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_offloaded_parameters_step_beside_a_gpu(tmp_path: Path) -> None:
    passed(run_checks(1, tmp_path, ["offloaded_beside_gpu"]), "offloaded_beside_gpu")


@pytest.mark.pitfall("O18")
def test_state_shapes(on_two: Outcomes) -> None:
    passed(on_two, "state_shapes")


@pytest.mark.pitfall("O18")
def test_checkpoint_reshards(folder: Path, on_two: Outcomes, on_four: Outcomes) -> None:
    passed(on_two, "save_on_two", "resume_from_one")
    passed(on_four, "resume_on_three", "resume_on_four")
    resume_on_one: Callable[[Path], None] = checks_module().resume_on_one
    resume_on_one(folder)


def checks_module() -> object:
    spec = importlib.util.spec_from_file_location("sharded_checks", SHARDED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAIN = """
import sys, torch
from halfstep.optim import AdamMini, partition_model
assert "torch.distributed.tensor" not in sys.modules  # until torch itself imports it, where it is there
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
for fused in (None, False):
    optimizer = AdamMini(model.parameters(), partition=partition_model(model), fused=fused)
    for _ in range(2):
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.clip_grad_norm_(1.0)
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert optimizer.found_nonfinite() == []
    assert optimizer.state_bytes() == 4 * (12 + 4 + 4 + 4 + 4 + 4 + 1 + 4)
"""
WITHOUT = """
import sys, torch
class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith(("torch.distributed.", "torch._C._distributed")):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse)
for name in [n for n in sys.modules if n.startswith("torch.distributed.")]:
    del sys.modules[name]
for name in ("all_reduce", "is_initialized", "get_rank", "get_world_size"):
    delattr(torch.distributed, name)
torch.distributed.is_available = lambda: False
"""


@pytest.mark.pitfall("O21")
@pytest.mark.parametrize("before", [WITHOUT, ""])
def test_import_without_distributed(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + TRAIN],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
