"""What is installed here, what works, and the line that repairs what does not."""

import importlib.util
import os
import shutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from halfstep.cli.run_folder import versions
from halfstep.errors import HalfstepError
from halfstep.market.features import FEATURE_SETS
from halfstep.market.read import default_bars
from halfstep.nn.build import build_encoder
from halfstep.nn.presets import preset
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.watch import has_numba

OPTIONAL = {
    "triton": "GPU kernels (comes with torch's CUDA builds)",
    "onnx": "export to MetaTrader: pip install 'halfstep[export]'",
    "optuna": "search: pip install 'halfstep[tune]'",
    "tensorboard": "curves in TensorBoard: pip install 'halfstep[tensorboard]'",
}


def examine(screen: Console) -> int:
    """Print the findings; returns 1 if something needed does not work."""
    table = Table("what", "found", "means")

    def add(name: str, found: str, means: str = "", *, style: str = "") -> None:
        table.add_row(name, Text(found, style=style), Text(means))  # as it stands: [export] is no markup

    for name, text in versions().items():
        add(name, text)
    add(
        "threads",
        f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "torch's own; a training process takes --run.threads",
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    add("GPU", gpu, "everything runs on the CPU")
    add("optimizer kernels", *_kernels())
    add(
        "free disk",
        f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
        "a quick run takes about 0.1 GiB",
    )
    for name, purpose in OPTIONAL.items():
        found = "installed" if importlib.util.find_spec(name) else "absent"
        add(name, found, purpose)
    failures = 0
    for name, check in (("default bars", _bars), ("a training step", _step)):
        try:
            add(name, check())
        except (HalfstepError, RuntimeError, ValueError, OSError) as error:
            failures += 1
            add(name, "FAILS", str(error), style="bold")
    screen.print(table)
    return 1 if failures else 0


def _kernels() -> tuple[str, str]:
    """Return which kernels of AdamMini there are, and when each is taken."""
    if has_numba():
        return (
            "cpu, reference",
            "compiled for the CPU, once per machine and version; plain torch on other devices",
        )
    return "reference", "plain torch; the compiled ones need: pip install numba"


def _bars() -> str:
    return f"{len(default_bars()):,} bars"


def _step() -> str:
    """Train the default encoder for one step on noise, and check that every parameter moved."""
    encoder = build_encoder(preset("default"), feature_names=FEATURE_SETS["robust9"].names, seed=0)
    optimizer = AdamMini.for_model(encoder, lr=1e-3)
    before = [param.detach().clone() for param in encoder.parameters()]
    noise = torch.randn(4, encoder.config.bars, 9, generator=torch.Generator().manual_seed(0))
    encoder(noise).latent.square().mean().backward()
    optimizer.step()
    still = sum(bool(torch.equal(a, b)) for a, b in zip(before, encoder.parameters(), strict=True))
    if still:
        raise RuntimeError(
            f"{still} of {len(before)} parameters did not move. Reinstall with scripts/install."
        )
    return f"all {len(before)} parameters moved"
