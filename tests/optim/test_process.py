"""AdamMini in the processes people use: forked workers, many threads, no numba, nothing printed, little memory."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from halfstep import AdamMini

STEPPED = """
import torch
from halfstep import AdamMini
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.Linear(200, 7))
optimizer = AdamMini.for_model(model, lr=1e-2)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.ones(2, 300)).square().sum().backward()
    optimizer.clip_grad_norm_(1.0)
    optimizer.step()
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        check=True,
    )


def stepped_model(steps: int = 3) -> nn.Module:
    """Return a model large enough for several threads, after some steps."""
    torch.manual_seed(0)
    model = nn.Linear(300, 200)
    optimizer = AdamMini.for_model(model, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 300)).square().sum().backward()
        optimizer.step()
    return model


@pytest.mark.pitfall("O21")
def test_import_and_step_are_silent() -> None:
    done = run(STEPPED, PYTHONWARNINGS="error")
    assert (done.stdout, done.stderr) == ("", "")


def test_plain_torch_runs_without_numba_and_says_so_once() -> None:
    hide = "import sys, warnings; sys.modules['numba'] = None\n"
    caught = "with warnings.catch_warnings(record=True) as seen:\n    warnings.simplefilter('always')\n"
    report = "print([str(w.message) for w in seen]); print(float(model[0].weight.double().sum()))\n"
    without = run(hide + caught + "".join(f"    {line}\n" for line in STEPPED.strip().splitlines()) + report)
    messages, total = without.stdout.strip().splitlines()
    assert messages.count("numba is absent") == 1
    assert "pip install numba" in messages
    expected = run(STEPPED + "print(float(model[0].weight.double().sum()))")
    assert float(total) == pytest.approx(float(expected.stdout), rel=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_steps_like_its_parent() -> None:
    """The parent's threads do not exist in a forked child; a parallel launch there would hang or abort."""
    expected = stepped_model().weight.detach().clone()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        torch.set_num_threads(1)  # torch's own threads are lost as well
        sender.send(stepped_model().weight.detach().numpy())

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # fork in a process with threads: what is tested here
        child = context.Process(target=work)
        child.start()
    assert receiver.poll(120), "the child hangs"
    result = torch.from_numpy(receiver.recv())
    child.join(60)
    assert child.exitcode == 0
    torch.testing.assert_close(result, expected)


def test_loader_workers_do_not_disturb_steps() -> None:
    data = torch.utils.data.TensorDataset(torch.ones(64, 300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2)
        torch.manual_seed(0)
        model = nn.Linear(300, 200)
        optimizer = AdamMini.for_model(model, lr=1e-2)
        for number, (batch,) in enumerate(loader):
            if number == 3:
                break
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, stepped_model().weight)


def test_two_threads_step_two_models_at_once() -> None:
    """Numba's simplest threading layer aborts the process on a second parallel region."""
    expected = stepped_model(40).weight
    results: list[torch.Tensor] = []

    def work(model: nn.Module) -> None:
        optimizer = AdamMini.for_model(model, lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            model(torch.ones(2, 300)).square().sum().backward()
            optimizer.step()
        results.append(model.weight)

    torch.manual_seed(0)
    first = nn.Linear(300, 200)
    second = nn.Linear(300, 200)
    second.load_state_dict(first.state_dict())
    threads = [threading.Thread(target=work, args=(model,)) for model in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 2
    for result in results:
        torch.testing.assert_close(result, expected)


@pytest.mark.pitfall("O22")
def test_step_allocates_nothing_large() -> None:
    """64 MiB of weights: after the first step, neither step nor clipping takes a mebibyte."""
    from torch.profiler import ProfilerActivity, profile

    layer = nn.Linear(4096, 4096, bias=False)
    optimizer = AdamMini.for_model(layer)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        optimizer.clip_grad_norm_(1.0)
        optimizer.step()
    assert sum(max(0, event.self_cpu_memory_usage) for event in seen.key_averages()) < 2**20
    code = """
import resource, torch
from halfstep import AdamMini
weight = torch.nn.Parameter(torch.zeros(4096, 4096))
optimizer = AdamMini([weight])
weight.grad = torch.ones_like(weight)
optimizer.step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    if sys.platform == "linux":
        assert int(run(code).stdout) < 1024  # kibibytes


@pytest.mark.pitfall("O23")
def test_state_bytes_count_allocations() -> None:
    model = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 33), nn.LayerNorm(33))
    optimizer = AdamMini.for_model(model)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    numbers = sum(p.numel() for p in model.parameters())
    second = 50 + 33 + 33 + 1 + 33  # tokens, units, bias by element, one gain, shift by element
    assert optimizer.state_bytes() == 4 * (numbers + second)
    optimizer.state[model[1].weight]["exp_avg_sq"] = torch.zeros(33, 16)[
        :, :1
    ]  # a full-size buffer behind a small view
    assert optimizer.state_bytes() == 4 * (numbers + second + 33 * 15)


@pytest.mark.pitfall("O23")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's resident sizes")
def test_peak_memory_falls_as_documented() -> None:
    """Resident size of a fresh process: weights and gradients 2 x 64 MiB, state 64 MiB where AdamW has 128."""
    code = """
import resource, sys, torch
import halfstep
model = torch.nn.Linear(4096, 4096, bias=False)
make = {"AdamMini": halfstep.AdamMini, "AdamW": lambda p: torch.optim.AdamW(p, fused=True)}[sys.argv[1]]
optimizer = make(model.parameters())
small = torch.nn.Linear(8, 8)
small.weight.grad, small.bias.grad = torch.ones(8, 8), torch.ones(8)
make(small.parameters()).step()  # what a first step loads is not the state's
model.weight.grad = torch.ones_like(model.weight)
pages = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = pages()
for _ in range(2):
    optimizer.step()
print((pages() - before) / 2**20)
"""
    grown = {
        name: float(
            subprocess.run(
                [sys.executable, "-c", code, name], capture_output=True, text=True, timeout=300, check=True
            ).stdout
        )
        for name in ("AdamMini", "AdamW")
    }
    assert grown["AdamW"] == pytest.approx(128, abs=12)
    assert grown["AdamMini"] == pytest.approx(64, abs=12)
