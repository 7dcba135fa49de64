"""States travel between AdamMini, torch's AdamW and the published adam-mini package, and training goes on."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from halfstep.optim.blocks import by_row
from halfstep.optim.interop import adamw_state_dict, published_state_dict
from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Partition, partition_model
from halfstep.optim.rules import Rule, head


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = self.num_key_value_heads = 4
        self.head_dim = 4
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [f(x).unflatten(-1, (4, 4)).transpose(0, 1) for f in (self.q_proj, self.k_proj, self.v_proj)]
        out: torch.Tensor = self.o_proj(
            nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1)
        )
        return out


class Llama(nn.Module):
    """Names as in Llama, so that the published package finds its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 16)
        self.self_attn = Attention()
        self.norm = nn.LayerNorm(16, bias=False)
        self.mlp = nn.Linear(16, 16)
        self.lm_head = nn.Linear(16, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        x = x + self.self_attn(self.norm(x))
        out: torch.Tensor = self.lm_head(x + self.mlp(x).tanh())
        return out


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    tokens = torch.arange(11)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        optimizer.step()


def published(model: nn.Module, **options: Any) -> Any:
    """Return the published package's optimizer, which looks into a private name of torch when it is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.distributed\._tensor`|.*_tensor.*deprecated")
        adam_mini = pytest.importorskip("adam_mini", reason="the published adam-mini is not installed")
    defaults = {"lr": 1e-2, "weight_decay": 0.1, "dim": 16, "n_heads": 4, "verbose": False}
    return adam_mini.Adam_mini(model.named_parameters(), **(defaults | options))


def twins() -> tuple[Llama, Llama]:
    torch.manual_seed(0)
    model = Llama()
    return model, copy.deepcopy(model)


def assert_equal(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def grown(*pairs: tuple[str, Any]) -> nn.Module:
    """Return a module with parameters of these names and shapes."""
    model = nn.Module()
    for name, shape in pairs:
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    return model


def step_once(optimizer: torch.optim.Optimizer) -> None:
    """Make a step with gradients 1, 2, 3, ... over each parameter."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = (
                torch.arange(1.0, param.numel() + 1).reshape(param.shape) if param.requires_grad else None
            )
    optimizer.step()


def test_published_package_agrees() -> None:
    """Its decay hangs on the names `norm`, `ln` and `bias`; here that gives the groups of `for_model`."""
    ours, theirs = twins()
    train(ours, AdamMini.for_model(ours, lr=1e-2, weight_decay=0.1), 50)
    train(theirs, published(theirs), 50)
    assert_equal(ours, theirs, 1e-6)


def test_published_state_goes_in_and_out() -> None:
    ours, theirs = twins()
    their_optimizer = published(theirs)
    train(theirs, their_optimizer, 5)
    ours.load_state_dict(theirs.state_dict())
    optimizer = AdamMini.for_model(ours, lr=1e-2, weight_decay=0.1)
    optimizer.load_state_dict(their_optimizer.state_dict())
    assert {state["exp_avg"].shape == param.shape for param, state in optimizer.state.items()} == {True}
    train(ours, optimizer, 5)
    train(theirs, their_optimizer, 5)
    assert_equal(ours, theirs, 1e-6)
    third = copy.deepcopy(ours)
    back = published(third, lr=0.5)  # the state brings the rate along
    back.load_state_dict(published_state_dict(optimizer, back))
    train(ours, optimizer, 5)
    train(third, back, 5)
    assert_equal(ours, third, 1e-6)


def test_published_state_in_one_group_without_names() -> None:
    """By order, and with rates of our own."""
    ours, theirs = twins()
    their_optimizer = published(theirs, weight_decay=0.0)
    train(theirs, their_optimizer, 5)
    ours.load_state_dict(theirs.state_dict())
    optimizer = AdamMini(ours.parameters(), lr=1e-2, weight_decay=0.0, partition=partition_model(ours))
    optimizer.load_state_dict(their_optimizer.state_dict())
    assert "param_names" not in optimizer.param_groups[0]
    train(ours, optimizer, 5)
    train(theirs, their_optimizer, 5)
    assert_equal(ours, theirs, 1e-6)


def test_published_hyper_parameters_come_where_groups_are_alike() -> None:
    model = grown(("MLP", (2, 3)), ("bias", (3,)))  # it writes the name in lower case
    theirs = published(model, lr=0.3, betas=(0.5, 0.75))
    step_once(theirs)
    optimizer = AdamMini([{"params": [pair]} for pair in model.named_parameters()])
    optimizer.load_state_dict(theirs.state_dict())
    for group, decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.3, (0.5, 0.75), decay)
        assert not {"name", "beta1", "beta2"} & set(group)
    assert optimizer.param_groups[0]["param_names"] == ["MLP"]
    assert published_state_dict(optimizer, theirs)["param_groups"] == [
        {**group, "params": [k]} for k, group in enumerate(theirs.param_groups)
    ]


def test_published_rows_across_ours_are_averaged() -> None:
    """The package counts rows along the first axis; a weight stored [in, out] has them along the second."""
    model = grown(("mlp", (3, 3)))
    theirs = published(model)
    step_once(theirs)
    columns = Partition({"mlp": by_row((3, 3), "stored [in, out]", axes=(1,))}, {"mlp": model.mlp})
    optimizer = AdamMini(model.named_parameters(), partition=columns)
    optimizer.load_state_dict(theirs.state_dict())
    mean = sum(k * k for k in range(1, 10)) / 9
    torch.testing.assert_close(optimizer.state[model.mlp]["exp_avg_sq"], torch.full((1, 3), 1e-3 * mean))


def test_to_the_published_package_blocks_follow_its_names() -> None:
    model = grown(("mlp", (2, 3)), ("mystery", (2, 3)), ("k_proj", (4, 4)), ("mlp_bias", (3,)))
    optimizer = AdamMini(model.named_parameters(), lr=0.25, betas=(0.5, 0.75), eps=1e-5, weight_decay=0.0)
    step_once(optimizer)
    theirs = published(model, dim=4, n_heads=2)
    state = published_state_dict(optimizer, theirs)
    rows = torch.tensor([14.0, 77.0]) / 3  # 1 + 4 + 9, 16 + 25 + 36
    expected = {"mlp": rows[:, None], "mystery": rows.mean(), "k_proj": None, "mlp_bias": None}
    for k, (name, value) in enumerate(expected.items()):
        if value is not None:
            torch.testing.assert_close(state["state"][k]["vmean"], value * 0.25, msg=name)
    assert state["state"][2]["m"].shape == (2, 8)
    assert state["state"][3]["v"].tolist() == [0.25, 1.0, 2.25]
    assert state["param_groups"][0] == {
        "params": [0], "name": "mlp", "lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 1e-5, "weight_decay": 0.0,
    }  # fmt: skip
    theirs.load_state_dict(state)
    step_once(theirs)


def test_states_the_published_package_cannot_have_are_refused() -> None:
    def given(model: nn.Module, other: nn.Module | None = None, **options: Any) -> None:
        optimizer = AdamMini(options.pop("params", None) or model.named_parameters(), **options)
        step_once(optimizer)
        published_state_dict(optimizer, published(other or model))

    matrix = grown(("mlp", (2, 3)))
    with pytest.raises(ValueError, match="param_names: absent"):
        given(matrix, params=list(matrix.parameters()))
    with pytest.raises(ValueError, match="maximize: True"):
        given(matrix, maximize=True)
    with pytest.raises(ValueError, match="other: a parameter of one of the two optimizers only"):
        given(matrix, grown(("mlp", (2, 3)), ("other", (2,))))
    with pytest.raises(ValueError, match="bias: a parameter of one of the two optimizers only"):
        given(matrix, grown(("bias", (2, 3))))
    with pytest.raises(
        ValueError, match=r"mlp: shape \(3, 2, 2\), and the published package steps only matrices"
    ):
        given(grown(("mlp", (3, 2, 2))))
    with pytest.raises(ValueError, match=r"k_proj: 6 numbers of shape \(2, 3\) in heads of 64"):
        given(grown(("k_proj", (2, 3))))


def test_adamw_state_goes_in_and_out() -> None:
    ours, theirs = twins()
    elements = partition_model(ours, rules=[Rule("*", "element")])
    theirs_optimizer = torch.optim.AdamW(theirs.named_parameters(), lr=1e-2)
    train(theirs, theirs_optimizer, 5)
    ours.load_state_dict(theirs.state_dict())
    named = list(ours.named_parameters())
    optimizer = AdamMini(
        [{"params": named[3:]}, {"params": named[:3]}], lr=1e-2, partition=elements
    )  # other groups: by name
    optimizer.load_state_dict(theirs_optimizer.state_dict())
    train(ours, optimizer, 5)
    train(theirs, theirs_optimizer, 5)
    assert_equal(ours, theirs, 1e-6)
    third = copy.deepcopy(ours)
    named = list(third.named_parameters())
    back = torch.optim.AdamW([{"params": named[3:]}, {"params": named[:3]}], lr=1e-2)
    back.load_state_dict(adamw_state_dict(optimizer))
    train(ours, optimizer, 5)
    train(third, back, 5)
    assert_equal(ours, third, 1e-6)


def test_second_moments_are_spread_over_their_blocks() -> None:
    layer = nn.Linear(3, 4, bias=False)
    optimizer = AdamMini(
        layer.named_parameters(), partition=partition_model(layer, rules=[Rule("*", head(2))])
    )
    layer.weight.grad = torch.tensor([[1.0] * 3, [3.0] * 3, [0.0] * 3, [2.0] * 3])
    optimizer.step()
    spread = adamw_state_dict(optimizer)["state"][0]["exp_avg_sq"]
    torch.testing.assert_close(spread, torch.tensor([[5e-3] * 3] * 2 + [[2e-3] * 3] * 2))
    assert spread.is_contiguous()


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}])
def test_adamw_continues_in_each_of_its_ways(options: dict[str, Any]) -> None:
    model, _ = twins()
    optimizer = AdamMini.for_model(model, lr=1e-2)
    train(model, optimizer, 3)
    before = copy.deepcopy(optimizer.state_dict())
    saved = adamw_state_dict(optimizer, **options)
    twin = copy.deepcopy(model)
    named = dict(twin.named_parameters())
    adamw = torch.optim.AdamW(
        [{"params": [(n, named[n]) for n in group["param_names"]]} for group in optimizer.param_groups],
    )
    adamw.load_state_dict(saved)
    for group, ours in zip(adamw.param_groups, optimizer.param_groups, strict=True):
        assert {key: group[key] for key in options} == options
        assert (group["lr"], group["weight_decay"]) == (ours["lr"], ours["weight_decay"])
    train(twin, adamw, 3)
    assert all(float(state["step"]) == 6 for state in adamw.state.values())
    for k, state in before["state"].items():  # nothing was shared
        assert all(
            torch.equal(value, optimizer.state_dict()["state"][k][key]) for key, value in state.items()
        )


def test_adamw_groups_match_by_name() -> None:
    """The same parameters in groups of the same sizes, in the other order: each keeps its own decay."""
    layer = nn.Linear(3, 3)
    adamw = torch.optim.AdamW(
        [{"params": [("bias", layer.bias)], "weight_decay": 0.0}, {"params": [("weight", layer.weight)]}],
        lr=0.5,
    )
    step_once(adamw)
    optimizer = AdamMini.for_model(layer, lr=0.1, weight_decay=0.3)
    optimizer.load_state_dict(adamw.state_dict())
    assert [(g["param_names"], g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [
        (["weight"], 0.3, 0.1), (["bias"], 0.0, 0.1),
    ]  # fmt: skip
    for param, state in optimizer.state.items():
        torch.testing.assert_close(state["exp_avg"], adamw.state[param]["exp_avg"])


def test_frozen_parameters_need_no_state() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    everything = torch.optim.AdamW(model.named_parameters())
    step_once(everything)
    optimizer = AdamMini.for_model(model)
    optimizer.load_state_dict(everything.state_dict())
    assert len(optimizer.state) == 2
    wide = AdamMini(model.named_parameters())
    wide.load_state_dict(optimizer.state_dict())
    assert len(wide.state) == 2


def test_how_adamw_computed_stays_behind() -> None:
    layer = nn.Linear(3, 4)
    adamw = torch.optim.AdamW(layer.parameters(), lr=0.5, betas=(0.5, 0.75), fused=True, amsgrad=True)
    adamw.param_groups[0]["initial_lr"] = 0.7  # a scheduler's
    step_once(adamw)
    optimizer = AdamMini(layer.parameters(), fused=False)
    with pytest.warns(UserWarning, match="amsgrad: AdamMini does not use"):
        optimizer.load_state_dict(adamw.state_dict())
    (group,) = optimizer.param_groups
    assert not {"amsgrad", "foreach", "differentiable", "decoupled_weight_decay"} & set(group)
    assert (group["lr"], group["betas"], group["initial_lr"], group["fused"]) == (
        0.5,
        (0.5, 0.75),
        0.7,
        False,
    )


def test_decay_inside_the_gradient_is_not_taken_for_decoupled_decay() -> None:
    layer = nn.Linear(3, 4)
    adam = torch.optim.Adam(layer.parameters(), weight_decay=0.1)
    step_once(adam)
    optimizer = AdamMini(layer.parameters(), weight_decay=0.02)
    with pytest.warns(UserWarning, match=r"weight_decay: Adam added 0\.1 .* its own decoupled 0\.02"):
        optimizer.load_state_dict(adam.state_dict())
    assert optimizer.param_groups[0]["weight_decay"] == 0.02
    plain = torch.optim.Adam(layer.parameters())
    step_once(plain)
    optimizer.load_state_dict(plain.state_dict())  # no decay: nothing to say
    assert optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.pitfall("K13")
def test_second_moments_of_other_blocks_are_averaged() -> None:
    """Rows [1, 2, 3, 6] become heads [1.5, 4.5], one tensor 3, or elements of their row."""
    layer = nn.Linear(3, 4, bias=False)
    rows = AdamMini(layer.parameters())
    step_once(rows)
    saved = rows.state_dict()
    saved["state"][0]["exp_avg_sq"] = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
    for blocks, expected in (
        (head(2), [[1.5], [1.5], [4.5], [4.5]]), ("tensor", [[3.0]]), ("row", [[1.0], [2.0], [3.0], [6.0]]),
        ("element", [[1.0] * 3, [2.0] * 3, [3.0] * 3, [6.0] * 3]),
    ):  # fmt: skip
        partition = partition_model(layer, rules=[Rule("weight", blocks)])  # type: ignore[arg-type]
        optimizer = AdamMini(layer.parameters(), partition=partition)
        optimizer.load_state_dict(saved)
        assert optimizer.state[layer.weight]["exp_avg_sq"].tolist() == expected
        again = AdamMini(layer.parameters(), partition=partition)
        again.load_state_dict(optimizer.state_dict())
        assert again.state[layer.weight]["exp_avg_sq"].tolist() == expected


def test_own_heads_are_loaded_to_the_last_bit() -> None:
    """The mean of seven equal float32 numbers is not always that number."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 49, bias=False)
    partition = partition_model(layer, rules=[Rule("weight", head(7))])
    optimizer = AdamMini(layer.parameters(), partition=partition)
    layer.weight.grad = torch.randn(49, 5)
    optimizer.step()
    loaded = AdamMini(layer.parameters(), partition=partition)
    loaded.load_state_dict(optimizer.state_dict())
    key = "exp_avg_sq"
    assert torch.equal(loaded.state[layer.weight][key], optimizer.state[layer.weight][key])


def test_hooks_see_and_change_what_is_loaded() -> None:
    layer = nn.Linear(3, 4)
    optimizer = AdamMini(layer.parameters())
    step_once(optimizer)
    loaded = AdamMini(layer.parameters())
    steps_after = []

    def to_seven(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        entries = {key: entry | {"step": torch.tensor(7.0)} for key, entry in state["state"].items()}
        return state | {"state": entries}

    loaded.register_load_state_dict_pre_hook(to_seven)
    loaded.register_load_state_dict_post_hook(
        lambda o: steps_after.append(o.state[layer.weight]["step"].item())
    )
    loaded.load_state_dict(optimizer.state_dict())
    assert steps_after == [7.0]
    assert optimizer.state[layer.weight]["step"] == 1


def test_states_of_other_kinds_are_refused() -> None:
    layer = nn.Linear(3, 4)
    sgd = torch.optim.SGD(layer.named_parameters(), momentum=0.9)
    step_once(sgd)
    optimizer = AdamMini(layer.named_parameters())
    with pytest.raises(ValueError, match=r"weight: the state has no step, but momentum_buffer\."):
        optimizer.load_state_dict(sgd.state_dict())
    step_once(optimizer)
    state = optimizer.state_dict()
    state["state"][0]["step"] = torch.ones(4)
    with pytest.raises(ValueError, match=r"weight: step has shape \(4,\), must be one number"):
        optimizer.load_state_dict(state)
    bad = {"param_groups": [state["param_groups"][0] | {"lr": -1.0}]}
    with pytest.raises(ValueError, match=r"lr: -1\.0"):
        optimizer.load_state_dict({"state": {}} | bad)
    twice = grown(("A", (2,)), ("a", (2,)))
    theirs = published(twice)
    step_once(theirs)
    with pytest.raises(ValueError, match="a: the name of several parameters"):
        AdamMini.for_model(twice).load_state_dict(theirs.state_dict())
    half = published(grown(("mlp", (4, 3))))
    step_once(half)  # what a rank of two would have saved
    with pytest.raises(ValueError, match=r"mlp: m has shape \(4, 3\), must be \(8, 3\)"):
        AdamMini.for_model(grown(("mlp", (8, 3)))).load_state_dict(half.state_dict())
    adamw = torch.optim.AdamW(layer.named_parameters())
    step_once(adamw)
    only_weight = AdamMini([("weight", layer.weight)])
    with pytest.raises(ValueError, match="bias: in the saved state, but not in this optimizer"):
        only_weight.load_state_dict(adamw.state_dict())


def test_states_of_other_models_are_refused() -> None:
    layer = nn.Linear(3, 4)
    optimizer = AdamMini(layer.named_parameters())
    for param in layer.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="the state has 2 parameters, the optimizer 1"):
        AdamMini([layer.weight]).load_state_dict(state)
    other = {"param_groups": [state["param_groups"][0] | {"param_names": ["a", "b"]}]}
    with pytest.raises(ValueError, match="weight: not among the names of the saved state"):
        optimizer.load_state_dict(state | other)
    for key, shape in (
        ("exp_avg", r"\(5, 3\), must be \(4, 3\)"),
        ("exp_avg_sq", r"\(5, 3\), must be \(4, 1\)"),
    ):
        wrong = {"state": {0: state["state"][0] | {key: torch.ones(5, 3)}, 1: state["state"][1]}}
        with pytest.raises(ValueError, match=f"weight: {key} has shape {shape}"):
            optimizer.load_state_dict(state | wrong)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(
        torch.equal(before["state"][k][key], after["state"][k][key])
        for k in (0, 1)
        for key in before["state"][k]
    )


def test_hugging_face_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate, which the Trainer needs, is not installed")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config)
    examples = [{"input_ids": torch.arange(6), "labels": torch.arange(6)} for _ in range(4)]
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=1, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip

    def trainer() -> Any:
        chosen = (AdamMini, {"lr": 1e-2, "partition": partition_model(model)})
        return transformers.Trainer(model, settings, train_dataset=examples, optimizer_cls_and_kwargs=chosen)

    start = copy.deepcopy(model.state_dict())
    trainer().train()
    end = copy.deepcopy(model.state_dict())
    assert all(not torch.equal(value, end[name]) for name, value in start.items())
    model.load_state_dict(start)
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    optimizer = resumed.optimizer.optimizer
    assert isinstance(optimizer, AdamMini)
    assert optimizer.state[model.model.layers[0].self_attn.q_proj.weight]["step"] == 2
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, end[name], msg=name)


def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    ours, alone = twins()
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(ours, AdamMini.for_model(ours, lr=1e-2))
    reference = AdamMini.for_model(alone, lr=1e-2)
    tokens = torch.arange(11)
    for _ in range(2):
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(model(tokens), tokens.roll(1)))
        accelerator.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        reference.zero_grad()
        nn.functional.cross_entropy(alone(tokens), tokens.roll(1)).backward()
        reference.clip_grad_norm_(0.1)
        reference.step()
    assert_equal(ours, alone, 1e-6)
