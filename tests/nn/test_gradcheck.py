"""Gradients of every public layer, block and loss against central differences, in float64.

The list is collected from the package: something new without a case here fails. Gradients say that backward belongs to
forward; that forward is the right formula is shown elsewhere.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import halfstep.nn
from halfstep.nn.attention import AttentionStack, CrossAttentionStack
from halfstep.nn.attention_encoder import AttentionEncoder
from halfstep.nn.config import (
    AttentionConfig,
    CriticConfig,
    PolicyConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)
from halfstep.nn.convolution import SeriesConv
from halfstep.nn.cscm import Cscm
from halfstep.nn.decoder import Decoder
from halfstep.nn.dense import Dense
from halfstep.nn.gaussian import GaussianHead, GaussianOutput, kl_to_standard_normal, net_sides
from halfstep.nn.head import ForecastHead, linear_skip
from halfstep.nn.loss import fredf_loss
from halfstep.nn.lstm import LstmCell, lstm_step
from halfstep.nn.normalise import InstanceStats, RevIN, RunningNorm
from halfstep.nn.plr import Plr, fit_segments
from halfstep.nn.policy import Actor, Critic, CriticEnsemble, ValueNet
from halfstep.nn.stnn import Stnn
from halfstep.nn.tpm_stateful import TpmState, TpmStateful
from halfstep.nn.tpm_windowed import AdditiveAttention, ShortFeatures, TpmWindowed
from halfstep.nn.turning_points import turning_points_by_scan

from .cases import noise, shaken

F64 = torch.float64
NAMES = ("gap", "body", "rsi", "cci", "atr")
Case = tuple[Callable[..., object], tuple[Tensor, ...]]

NO_GRADIENT = {
    "Normaliser": "abstract; RevIN and RunningNorm are its kinds",
    "Encoder": "abstract",
    "WindowEncoder": "abstract",
    "ContextNetwork": "abstract in use; actor, critic and value network are its kinds",
    "AttentionLayer": "a part of both stacks",
    "WindowSegments": "gives no gradient: training computes it once per bar",
    "turning_points_by_scan": "answers yes or no",
    "turning_points_in_parallel": "answers yes or no",
    "uniform_": "fills in place",
    "raised": "a cast",
    "identity": "the identity",
}


def x(*shape: int, seed: int = 0) -> Tensor:
    return noise(*shape, seed=seed, dtype=F64)


def of(
    module: nn.Module, *inputs: Tensor, call: Callable[..., object] | None = None, shake: bool = True
) -> Case:
    """Return a case whose arguments are the inputs, then every parameter; ``call`` takes (module, *inputs)."""
    module = shaken(module) if shake else module.double()
    names = [name for name, _ in module.named_parameters()]

    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *args: Tensor) -> object:
            return (call or (lambda m, *a: m(*a)))(self.inner, *args)

    calling = Calling()

    def run(*args: Tensor) -> object:
        given, params = args[: len(inputs)], args[len(inputs) :]
        weights = {f"inner.{name}": param for name, param in zip(names, params, strict=True)}
        return functional_call(calling, weights, given)

    return run, (*inputs, *(param.detach().clone() for param in module.parameters()))


def stack(**changes: object) -> StackConfig:
    sizes = {
        "width": 5,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 3,
        "ff_multiple": 1,
        "activation": "silu",
    }
    return StackConfig(**(sizes | changes))


def attention(**changes: object) -> Case:
    return of(AttentionStack(stack(**changes)), x(2, 4, 5))


def cross(**changes: object) -> Case:
    module = CrossAttentionStack(stack(context_width=7, **changes))
    return of(module, x(2, 3, 5), x(2, 4, 7, seed=1), call=lambda m, q, c: m(q, m.prepare(c)))


def norm_case(module: nn.Module) -> Case:
    """Check normalise, its statistics, and the way back through linked statistics."""

    def call(m: nn.Module, window: Tensor, forecast: Tensor) -> tuple[Tensor, ...]:
        y, stats = m.normalise(window)
        return y, m.denormalise(forecast, stats), m.describe(stats)

    module.reference_std.fill_(1.0)
    return of(module, x(2, 4, 5), x(2, 3, 5, seed=1), call=call)


TPM = TpmWindowedConfig(
    bars=7, features=5, horizon=2, hidden=3, channels=4, filters=2, pool=3, score=2, plr_segments=2
)
STATEFUL = TpmStatefulConfig(bars=4, features=5, horizon=2, hidden=3, plr_segments=2)
POLICY = PolicyConfig(account=5, hidden=3, stack=stack(layers=1))
CRITIC = CriticConfig(account=5, action=6, reward=2, hidden=3, stack=stack(layers=1))


def stateful_case() -> Case:
    def call(m: nn.Module, windows: Tensor, static: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        output, after = m(windows, TpmState(*state), static)
        return output.latent, *after

    states = [x(2, 3, seed=k) for k in range(4)]
    return of(TpmStateful(STATEFUL, NAMES), x(2, 3, 4, 5), x(2, 3, 6, seed=9), *states, call=call)


def log_prob(head: GaussianHead, mean: Tensor, logvar: Tensor, raw: Tensor) -> Tensor:
    return head.log_prob(GaussianOutput(mean, logvar, raw, raw))


def critic_call(m: nn.Module, account: Tensor, action: Tensor, context: Tensor) -> object:
    return m(account, action, m.prepare(context))


FROM_KINKS = x(2, 3, 12, seed=2).cumsum(2)  # turning points of threshold 0.7 stay where they are within 1e-2
CASES: dict[str, Callable[[], Case]] = {
    "Dense": lambda: of(Dense(5, 3, "silu"), x(2, 5)),
    "Dense transposed input, no bias": lambda: of(Dense(5, 3, bias=False), x(5, 2).T),
    "SeriesConv window 4 step 2": lambda: of(SeriesConv(5, 3, 4, 2), x(2, 5, 10)),
    "SeriesConv window 2 step 4": lambda: of(SeriesConv(5, 3, 2, 4), x(2, 5, 10)),
    "SeriesConv shared, no bias": lambda: of(SeriesConv(5, 3, 4, 2, shared=True, bias=False), x(2, 10, 5).transpose(1, 2)),
    "Cscm": lambda: of(Cscm(2, 5), x(3, 2, 5)),
    "Cscm shared": lambda: of(Cscm(2, 5, shared=True), x(3, 5, 2).transpose(1, 2)),
    "LstmCell": lambda: of(LstmCell(5, 3), x(2, 5), x(2, 3, seed=1), x(2, 3, seed=2)),
    "lstm_step": lambda: (lstm_step, (x(2, 12), x(2, 3, seed=1))),
    "RevIN": lambda: norm_case(RevIN(5)),
    "RunningNorm": lambda: norm_case(RunningNorm(5, positions=4).eval()),
    "AttentionStack": attention,
    "AttentionStack causal, shared": lambda: attention(mask="causal", layers_per_kv=2, norm_affine=True),
    "AttentionStack feed-forward first": lambda: attention(order="feed_forward_first", kv_heads=1),
    "CrossAttentionStack": cross,
    "CrossAttentionStack shared": lambda: cross(layers_per_kv=2, order="feed_forward_first"),
    "Plr": lambda: (Plr(0.7, 4, differentiable=True), (FROM_KINKS,)),
    "fit_segments": lambda: (
        lambda s: fit_segments(s, turning_points_by_scan(FROM_KINKS[0], 0.7), 4), (FROM_KINKS[0],)
    ),
    "linear_skip": lambda: (linear_skip, (x(5, 3, 4), x(2, 4, 5, seed=1))),
    "ForecastHead": lambda: of(ForecastHead(3, 2, 5, skip_bars=4), x(2, 3), x(2, 4, 5, seed=1)),
    "AdditiveAttention": lambda: of(
        AdditiveAttention(5, 3, 2), x(2, 5), x(2, 7, 3, seed=1), call=lambda m, q, k: m(q, m.u(k))
    ),
    "ShortFeatures": lambda: of(ShortFeatures(TPM), x(2, 7, 5)),
    "Decoder": lambda: of(Decoder(3, 4), x(2, 3), x(2, 4, seed=1), x(2, 3, seed=2), x(2, 3, seed=3)),
    "TpmWindowed": lambda: of(
        TpmWindowed(TPM, NAMES), x(2, 7, 5), x(2, 6, seed=1), call=lambda m, w, s: m(w, s).latent
    ),
    "TpmStateful": stateful_case,
    "Stnn": lambda: of(
        Stnn(StnnConfig(bars=4, features=5, horizon=2, columns=(3, 1), stack=stack(layers=1, mask="causal", order="feed_forward_first")), NAMES),
        x(2, 4, 5), call=lambda m, w: m(w).latent,
    ),
    "AttentionEncoder": lambda: of(
        AttentionEncoder(AttentionConfig(bars=4, features=5, horizon=2, stack=stack(layers=1, mask="causal")), NAMES),
        x(2, 4, 5), call=lambda m, w: m(w).latent,
    ),
    "GaussianHead": lambda: of(GaussianHead(3 * (0.0,), (1.0, 2.0, 3.0)), x(2, 6), x(2, 3, seed=1), call=lambda m, *a: tuple(m(*a))),
    "GaussianHead log-probability": lambda: of(GaussianHead(3 * (0.0,), (1.0, 2.0, 3.0)), x(2, 3), x(2, 3, seed=1), x(2, 3, seed=2), call=log_prob),
    "GaussianHead inverse": lambda: of(GaussianHead(3 * (0.0,), (1.0, 2.0, 3.0)), x(2, 3).sigmoid(), call=lambda m, a: m.inverse(a)),
    "kl_to_standard_normal": lambda: (kl_to_standard_normal, (x(2, 3), x(2, 3, seed=1))),
    "net_sides": lambda: (net_sides, (x(5, 6),)),
    "fredf_loss": lambda: (lambda a, b: tuple(fredf_loss(a, b)), (x(2, 6, 5), x(2, 6, 5, seed=1))),
    "fredf_loss weighted": lambda: (
        lambda a, b, w: fredf_loss(a, b, 0.3, w, "ortho").total, (x(2, 7, 5), x(2, 7, 5, seed=1), x(5).exp())
    ),
    "Actor": lambda: of(
        Actor(POLICY, 7), x(2, 3, 5), x(2, 4, 7, seed=1), x(2, 3, 6, seed=2),
        call=lambda m, a, c, n: tuple(m(a, m.prepare(c), n)),
    ),
    "Critic": lambda: of(Critic(CRITIC, 7), x(2, 3, 5), x(2, 3, 6, seed=1), x(2, 4, 7, seed=2), call=critic_call),
    "CriticEnsemble": lambda: of(
        CriticEnsemble(replace(CRITIC, use_account=False), 7), x(2, 3, 5), x(2, 3, 6, seed=1), x(2, 4, 7, seed=2), call=critic_call
    ),
    "ValueNet": lambda: of(ValueNet(CRITIC, 7), x(2, 3, 5), x(2, 4, 7, seed=1), call=lambda m, a, c: m(a, m.prepare(c))),
}  # fmt: skip


def public_layers() -> set[str]:
    """Return the names of the package's modules, and of its functions from tensors to tensors."""
    found: set[str] = set()
    for info in pkgutil.iter_modules(halfstep.nn.__path__):
        module = importlib.import_module(f"halfstep.nn.{info.name}")
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value) and issubclass(value, nn.Module):
                found.add(name)
            elif inspect.isfunction(value):
                first = next(iter(inspect.signature(value).parameters.values()), None)
                if first is not None and (first.annotation is Tensor or "Tensor" in repr(first.annotation)):
                    found.add(name)
    return found


def test_every_layer_has_a_case() -> None:
    layers = public_layers()
    assert "TpmWindowed" in layers
    assert "fredf_loss" in layers
    assert layers - {name.split()[0] for name in CASES} == set(NO_GRADIENT)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.pitfall("C1", "C5", "C10", "N5", "N13", "N15", "N16", "N18", "N19", "N20")
def test_gradcheck_of_every_layer(name: str) -> None:
    run, arguments = CASES[name]()
    arguments = tuple(argument.detach().requires_grad_() for argument in arguments)
    # whole networks have too many parameters to move one by one: their gradients along random directions
    is_large = sum(argument.numel() for argument in arguments) > 300
    assert torch.autograd.gradcheck(run, arguments, fast_mode=is_large, check_undefined_grad=False)


def test_gradient_of_the_whole_policy() -> None:
    """Encoder, actor and a fixed critic in a chain; 50 single parameters against central differences."""
    encoder = shaken(TpmWindowed(TPM, NAMES))
    encoder.norm.reference_std.fill_(1.0)
    actor, critic = (
        shaken(Actor(POLICY, 4), scale=0.1),
        shaken(Critic(CRITIC, 4), seed=1).requires_grad_(False),
    )
    windows, account, drawn = x(2, 7, 5), x(2, 3, 5, seed=1), x(2, 3, 6, seed=2)
    static = encoder.static(windows)

    def value() -> Tensor:
        output = encoder(windows, static)
        context = encoder.to_context(output)
        action = actor(account, actor.prepare(context), drawn).action
        return critic(account, action, critic.prepare(context)).sum()

    value().backward()
    params = [*encoder.parameters(), *actor.parameters()]
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        param = params[int(torch.randint(len(params), (), generator=random))]
        at = int(torch.randint(param.numel(), (), generator=random))
        flat, old = param.detach().view(-1), param.detach().view(-1)[at].item()
        sides = []
        for step in (1e-5, -1e-5):
            flat[at] = old + step
            with torch.no_grad():
                sides.append(value().item())
        flat[at] = old
        assert param.grad is not None
        expected = (sides[0] - sides[1]) / 2e-5
        assert param.grad.view(-1)[at].item() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_statistics_are_part_of_the_gradient() -> None:
    """The window's own mean and deviation are differentiated, not held fixed."""
    norm = RevIN(1).double()
    window = x(1, 4, 1).requires_grad_()
    y, stats = norm.normalise(window)
    assert isinstance(stats, InstanceStats)
    (gradient,) = torch.autograd.grad(y[0, 0, 0], window)
    assert abs(gradient.sum().item()) < 1e-12  # a common level has no influence
