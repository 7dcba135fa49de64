"""AdamMini where AdamW stood: half the optimizer state, the same loop. Run: python examples/train_with_half_the_state.py."""

import torch
from torch import nn

from halfstep import AdamMini

STEPS = 300


def train(name: str) -> tuple[float, int]:
    """Return the last loss and the bytes of optimizer state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 1))
    x = torch.randn(512, 16)
    y = (x[:, :4].prod(dim=1, keepdim=True)).tanh()
    if name == "AdamW":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    else:
        optimizer = AdamMini.for_model(model, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        batch = torch.arange(step * 64, step * 64 + 64) % len(x)
        loss = (model(x[batch]) - y[batch]).square().mean()
        loss.backward()
        if isinstance(optimizer, AdamMini):
            optimizer.clip_grad_norm_(1.0)  # folded into the step: gradients are read twice and not written
        else:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    state = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if torch.is_tensor(value)
    )
    return (model(x) - y).square().mean().item(), state


for optimizer_name in ("AdamW", "AdamMini"):
    final_loss, state_bytes = train(optimizer_name)
    print(f"{optimizer_name:<9} loss {final_loss:.4f}   state {state_bytes:>9,} bytes")
