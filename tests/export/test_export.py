"""Exported policies: the file a terminal loads, the numbers it gives, and the source beside it."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from halfstep.broker.engine import BatchedAccounts
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import market_table
from halfstep.errors import CheckpointError, ConfigError
from halfstep.export.graph import ACCOUNT, STATES, Decoding, PolicyInputs, TerminalPolicy, random_inputs
from halfstep.export.onnx_file import check_onnx, input_names, output_names, write_onnx
from halfstep.export.package import FORMULAS, INDICATORS, PolicyFacts, advisor_text, export_policy
from halfstep.market.bars import Bars
from halfstep.market.features import compute_features, feature_set
from halfstep.market.instruments import instrument
from halfstep.market.state import account_vector
from halfstep.market.synthetic import random_bars
from halfstep.nn.build import build_actor, build_encoder
from halfstep.nn.config import ModelConfig, TpmStatefulConfig
from halfstep.nn.presets import preset
from halfstep.training.policy import NeuralPolicy, encode_contexts

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

NAMES = feature_set("robust9").names
EURUSD = instrument("EURUSD")
FACTS = PolicyFacts(
    symbol="EURUSD", timeframe="H1", bar_seconds=3600, digits=5, feature_set="robust9/1", settled=500,
    encoder_hash="e" * 64, actor_hash="a" * 64, bars_hash="b" * 64, spans="made up",
)  # fmt: skip


def lively(config: ModelConfig, rules: AccountRules | None = None) -> TerminalPolicy:
    """Return a policy whose actions differ from bar to bar, unlike those of an untrained actor."""
    encoder = build_encoder(config, feature_names=NAMES, seed=1)
    encoder.norm.reference_mean.copy_(torch.linspace(-1, 1, len(NAMES)))
    encoder.norm.reference_std.copy_(torch.linspace(0.5, 4, len(NAMES)))
    actor = build_actor(config, seed=2)
    with torch.no_grad():
        actor.out.weight.mul_(4000)
    return TerminalPolicy(encoder, actor, Decoding.of(rules or AccountRules(), EURUSD))


def recurrent() -> ModelConfig:
    tiny = preset("tiny")
    return replace(
        tiny,
        encoder=TpmStatefulConfig(
            bars=24, hidden=8, plr_segments=4, burn_in=5, path_features=("gap", "body")
        ),
    )


@pytest.fixture(scope="module")
def bars() -> Bars:
    return random_bars(900, seed=3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TerminalPolicy, Path]:
    folder = tmp_path_factory.mktemp("exported")
    policy = lively(preset("tiny", context_bars=2))
    inputs = PolicyInputs(*random_inputs(policy, np.random.default_rng(5))[:4])
    check = export_policy(policy, FACTS, inputs, folder, "eurusd_h1")
    assert check.windows == 1000
    return policy, folder


@pytest.mark.pitfall("T32")
def test_export_is_what_the_terminal_loads(exported: tuple[TerminalPolicy, Path]) -> None:
    policy, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "eurusd_h1.mq5",
        "eurusd_h1.onnx",
        "eurusd_h1.vector.csv",
    ]
    model = onnx.load(folder / "eurusd_h1.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")] == [18]
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    assert model.ir_version == 8
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "features": [1, 120, 9], "account": [1, 7], "previous": [1, 2], "seconds": [1],
        "order": [1, 6], "action": [1, 6], "forecast": [1, 24, 9],
    }  # fmt: skip
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["feature_names"] == ",".join(NAMES)
    assert facts["account_names"] == ",".join(ACCOUNT)
    assert facts["bars_hash"] == "b" * 64
    check = check_onnx(folder / "eurusd_h1.onnx", policy, windows=1000, seed=7)
    assert check.action_error <= 1e-5
    assert check.forecast_error <= 1e-5
    session = onnxruntime.InferenceSession(str(folder / "eurusd_h1.onnx"), providers=["CPUExecutionProvider"])
    actions = [run(session, policy, random_inputs(policy, np.random.default_rng(s)))[1] for s in range(20)]
    assert (
        np.ptp(np.concatenate(actions)[:, [0, 3]], axis=0).min() > 0.1
    )  # both sides are traded: equality says something


def run(
    session: "onnxruntime.InferenceSession", policy: TerminalPolicy, inputs: tuple[torch.Tensor, ...]
) -> list[np.ndarray]:
    named = zip(input_names(policy), inputs, strict=True)
    found: list[np.ndarray] = session.run(
        list(output_names(policy)), {name: part.numpy() for name, part in named}
    )
    return found


def test_the_vector_file_repeats(exported: tuple[TerminalPolicy, Path]) -> None:
    policy, folder = exported
    lines = (folder / "eurusd_h1.vector.csv").read_text().splitlines()[1:]
    values: dict[str, list[float]] = {}
    for line in lines:
        name, index, value = line.split(",")
        assert int(index) == len(values.setdefault(name, []))
        values[name].append(float(value))
    inputs = (
        torch.tensor(values["features"]).view(1, 120, 9), torch.tensor(values["account"])[None],
        torch.tensor(values["previous"])[None], torch.tensor(values["seconds"], dtype=torch.float64).long(),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(folder / "eurusd_h1.onnx"), providers=["CPUExecutionProvider"])
    for name, found in zip(output_names(policy), run(session, policy, inputs), strict=True):
        np.testing.assert_allclose(found.ravel(), values[name], atol=1e-5)


def test_the_graph_trades_as_the_test_does(bars: Bars) -> None:
    """Bar by bar through the broker: the graph's action is the policy's, and its order what the broker executes."""
    rules = AccountRules(deposit=10_000)
    policy = lively(preset("tiny"), rules)
    features = compute_features(bars)
    contexts = encode_contexts(
        policy.encoder, torch.from_numpy(features.values), 700, settled=features.settled
    )
    reference = NeuralPolicy(policy.actor, contexts)
    accounts = BatchedAccounts(market_table(bars, EURUSD, rules), rules, 1)
    accounts.reset(first=700, stop=780)
    now = previous = accounts.numbers()
    prepared = reference.prepare(700, 780)
    filled = 0
    for bar in range(700, 780):
        wanted = reference.act(account_vector(now, previous, floor=rules.floor), prepared, bar - 700, None)
        inputs = (
            torch.from_numpy(features.values[bar - 119 : bar + 1].copy())[None],
            torch.from_numpy(now[:, :7].astype(np.float32)),
            torch.from_numpy(previous[:, :2].astype(np.float32)),
            torch.tensor([int(now[0, 7])]),
        )
        with torch.no_grad():
            order, action, forecast = policy(*inputs)
        np.testing.assert_allclose(action.numpy(), wanted, atol=1e-5)
        with torch.no_grad():
            np.testing.assert_allclose(
                forecast, policy.encoder.to_units(policy.encoder(inputs[0])), atol=1e-5
            )
        previous = now
        result = accounts.step(action.double().numpy())
        now = accounts.numbers()
        if result.outcome[0] == 0 and result.executed[0, [0, 3]].any():
            filled += 1
            np.testing.assert_allclose(result.executed[0, [0, 3]], order[0, [0, 3]], atol=1e-6)
    assert filled > 20


def test_orders_are_on_the_grid() -> None:
    """0.29 and 0.57 lots keep their step, 0.004 is no order, 2.5 is capped; fractions become points, half up."""
    policy = lively(preset("tiny"))
    asked = torch.tensor(
        [
            [0.29, 0.0554, 0.0205, 0, 0.5, 0.25],
            [0, 0.1, 0.1, 0.57, 0.0556, 1.0],
            [0.004, 0.1, 0.1, 0, 0.1, 0.1],
            [0, 0.1, 0.1, 2.5, 0.1, 0.1],
        ]
    )
    order = policy._order(asked, torch.full((4,), 10_000.0))
    expected = [
        [0.29, 55, 21, 0, 500, 250],
        [0, 100, 100, 0.57, 56, 1000],
        [0, 100, 100, 0, 100, 100],
        [0, 100, 100, 1.0, 100, 100],
    ]
    np.testing.assert_allclose(order, expected, atol=1e-6)


def test_volume_per_ten_thousand() -> None:
    policy = lively(preset("tiny"), AccountRules(volume_unit="lots_per_10k"))
    order = policy._order(torch.tensor([[0.20, 0.1, 0.1, 0, 0.1, 0.1]]), torch.tensor([25_000.0]))
    np.testing.assert_allclose(order[0, 0], 0.5, atol=1e-6)


def test_a_recurrent_encoder_carries_its_state(tmp_path: Path, bars: Bars) -> None:
    policy = lively(recurrent())
    check = write_onnx(policy, tmp_path / "r.onnx", metadata={}, windows=50)
    assert max(check.action_error, check.forecast_error) <= 1e-5
    features = torch.from_numpy(compute_features(bars).values)[500:]
    first = policy.encoder.first_row
    contexts = policy.encoder.encode_table(features, first, first + 10)
    session = onnxruntime.InferenceSession(str(tmp_path / "r.onnx"), providers=["CPUExecutionProvider"])
    states = [np.zeros((1, policy.state_size), np.float32) for _ in STATES]
    account, previous = torch.tensor([[10_000.0, 10_000, 0, 0, 0, 0, 0]]), torch.tensor([[10_000.0, 10_000]])
    seconds = torch.tensor([1_700_000_000])
    for last in range(23, first + 10):
        window = features[None, last - 23 : last + 1]
        found = run(session, policy, (window, account, previous, seconds, *map(torch.from_numpy, states)))
        states = found[3:]
        if last >= first:
            with torch.no_grad():
                prepared = policy.actor.prepare(contexts[last - first][None])
                wanted = policy.actor(policy._vector(account, previous, seconds)[:, None], prepared).action[
                    :, 0
                ]
            np.testing.assert_allclose(found[1], wanted, atol=1e-5)


def test_a_file_of_other_weights_is_refused(exported: tuple[TerminalPolicy, Path], tmp_path: Path) -> None:
    _, folder = exported
    other = lively(preset("tiny"))
    with torch.no_grad():
        other.actor.out.bias.add_(0.1)
    with pytest.raises(CheckpointError, match=r"(order|differs from torch)"):
        check_onnx(folder / "eurusd_h1.onnx", other, windows=5)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_the_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = lively(preset("tiny"))
    inputs = PolicyInputs(*random_inputs(policy, np.random.default_rng(5))[:4])
    with pytest.raises(ConfigError, match="name: 'my policy', must be letters"):
        export_policy(policy, FACTS, inputs, tmp_path, "my policy")
    with pytest.raises(ConfigError, match="delay_bars: 1 cannot be exported"):
        export_policy(policy, replace(FACTS, delay_bars=1), inputs, tmp_path, "p")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed.*pip install 'halfstep\[export\]'"):
        write_onnx(policy, tmp_path / "p.onnx", metadata={})
    assert not list(tmp_path.iterdir())


def test_an_untrained_encoder_is_refused() -> None:
    config = preset("tiny")
    encoder = build_encoder(config, feature_names=NAMES, seed=1)
    with pytest.raises(ConfigError, match="no statistics of a training span"):
        TerminalPolicy(encoder, build_actor(config, seed=1), Decoding.of(AccountRules(), EURUSD))
    running = replace(config, encoder=replace(config.encoder, norm="running"))
    with pytest.raises(ConfigError, match="norm: 'running' cannot be exported"):
        TerminalPolicy(
            build_encoder(running, feature_names=NAMES, seed=1), build_actor(config, seed=1), Decoding.of(AccountRules(), EURUSD)
        )  # fmt: skip


@pytest.mark.parametrize("name", ["robust9", "published9"])
def test_formulas_of_the_advisor_are_the_features(name: str, bars: Bars) -> None:
    """The expressions in MQL5, read as Python, give the columns; the terminal's indicators are ours (market tests)."""
    features = compute_features(bars, name)
    raw = {
        column: compute_features(bars, "published9").values[:, i]
        for i, column in enumerate(feature_set("published9").names)
    }
    rates = [
        type("Rate", (), {"open": o, "high": h, "low": low, "close": c, "tick_volume": v})
        for o, h, low, c, v in zip(bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True)
    ]
    scope = {
        "MathLog": np.log, "rates": rates, **{key: raw[key] for key in ("rsi", "cci", "atr", "macd", "macd_signal")},
        "MedianVolumeBefore": lambda rates, i: np.median([rates[i - 120 + k].tick_volume for k in range(120)]),
    }  # fmt: skip
    for column, values in zip(features.names, features.values.T, strict=True):
        formula = INDICATORS[name].get(column) or FORMULAS[column]
        found = [eval(formula, scope | {"i": i}) for i in range(700, 720)]
        np.testing.assert_allclose(found, values[700:720], rtol=2e-4, atol=1e-7)


def test_the_advisor_names_what_it_cannot_compute() -> None:
    policy = lively(preset("tiny"))
    text = advisor_text(policy, FACTS, "mine")
    assert "NOT COMPILED" in text
    assert "INIT_FAILED" in text
    assert "has no formula in MQL5" not in text
    assert re.findall(r"features\[row\]\[(\d)\]", text) == [str(i) for i in range(9)]
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")
    foreign = advisor_text(policy, replace(FACTS, feature_set="mine/1"), "mine")
    for column in ("rsi", "cci", "atr", "macd"):
        assert f"Feature '{column}' has no formula in MQL5" in foreign
    assert "state_h" in advisor_text(lively(recurrent()), FACTS, "mine")
