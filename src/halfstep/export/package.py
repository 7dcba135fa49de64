"""What a trader copies into MetaTrader 5: the ONNX file, a test vector, and the skeleton of an expert advisor.

NAME.onnx           the network
NAME.vector.csv     one decision: every input and every output, to check a loaded network with
NAME.mq5            expert advisor, generated, not compiled here
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from halfstep import files
from halfstep._version import __version__
from halfstep.errors import ConfigError
from halfstep.export.graph import ACCOUNT, ORDER, STATES, PolicyInputs, TerminalPolicy
from halfstep.export.onnx_file import ExportCheck, input_names, output_names, write_onnx

# How MQL5 computes a column of the feature sets from closed bar `i` of `rates` (0 = oldest) and from the terminal's
# own indicators, whose formulas these are.
FORMULAS: Mapping[str, str] = {
    "gap": "1e4 * MathLog(rates[i].open / rates[i - 1].close)",
    "body": "1e4 * MathLog(rates[i].close / rates[i].open)",
    "upper": "1e4 * MathLog(rates[i].high / rates[i].open)",
    "lower": "1e4 * MathLog(rates[i].low / rates[i].open)",
    "relative_volume": "MathLog((1.0 + rates[i].tick_volume) / (1.0 + MedianVolumeBefore(rates, i)))",
    "close_open": "rates[i].close - rates[i].open",
    "high_open": "rates[i].high - rates[i].open",
    "low_open": "rates[i].low - rates[i].open",
    "volume": "rates[i].tick_volume / 1000.0",
}
INDICATORS: Mapping[str, Mapping[str, str]] = {
    "robust9": {
        "rsi": "rsi[i] / 50.0 - 1.0", "cci": "cci[i] / 100.0", "atr": "1e4 * atr[i] / rates[i].close",
        "macd": "1e4 * macd[i] / rates[i].close",
    },
    "published9": {
        "rsi": "rsi[i]", "cci": "cci[i]", "atr": "atr[i]", "macd": "macd[i]", "macd_signal": "macd_signal[i]",
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyFacts:
    """What a user of the exported policy must know.

    Attributes:
        symbol, timeframe: of the bars it was trained on, such as ``EURUSD`` and ``H1``.
        bar_seconds: length of a bar.
        digits: decimals of a price.
        feature_set: name and version, such as ``robust9/1``.
        settled: earlier bars that the features need.
        encoder_hash, actor_hash, bars_hash: of the weights and of the bars.
        spans: training, validation and test span as text.
        delay_bars, hold_band_steps: rules of the account that the graph does not hold.
    """

    symbol: str
    timeframe: str
    bar_seconds: int
    digits: int
    feature_set: str
    settled: int
    encoder_hash: str
    actor_hash: str
    bars_hash: str
    spans: str
    delay_bars: int = 0
    hold_band_steps: int = 0


def export_policy(
    policy: TerminalPolicy, facts: PolicyFacts, inputs: PolicyInputs, folder: Path, name: str
) -> ExportCheck:
    """Write the three files of a policy; the ONNX file last, when everything else stands.

    Args:
        inputs: of a real decision, for the test vector.
        name: of the files, letters, digits and underscores: MQL5 makes an identifier of it.

    Raises:
        ConfigError: the name, or an account rule that MetaTrader's side cannot keep.
    """
    if not name.isidentifier() or not name.isascii():
        raise ConfigError(
            f"name: {name!r}, must be letters, digits and underscores: it names MQL5's resource."
        )
    for rule in ("delay_bars", "hold_band_steps"):
        if getattr(facts, rule):
            raise ConfigError(
                f"{rule}: {getattr(facts, rule)} cannot be exported, the advisor has no such rule. Train with 0."
            )
    states = [torch.zeros(1, policy.state_size) for _ in range(len(STATES) if policy.state_size else 0)]
    given = (*inputs, *states)
    with torch.no_grad():
        outputs = policy(*given)
    vector = {
        **dict(zip(input_names(policy), given, strict=True)),
        **dict(zip(output_names(policy), outputs, strict=True)),
    }
    files.write_text(folder / f"{name}.vector.csv", vector_text(vector))
    files.write_text(folder / f"{name}.mq5", advisor_text(policy, facts, name))
    return write_onnx(policy, folder / f"{name}.onnx", metadata=metadata(policy, facts))


def metadata(policy: TerminalPolicy, facts: PolicyFacts) -> dict[str, str]:
    """Return what is written into the ONNX file: names and order of inputs, and how numbers become orders."""
    rules = {f"decoding.{key}": f"{value:g}" for key, value in asdict(policy.decoding).items()}
    return {
        "halfstep": __version__,
        **{key: str(value) for key, value in asdict(facts).items()},
        "feature_names": ",".join(policy.encoder.feature_names),
        "account_names": ",".join(ACCOUNT),
        "order_names": ",".join(ORDER),
        "bars": str(policy.encoder.config.bars),
        "horizon": str(policy.encoder.config.horizon),
        "burn_in": str(getattr(policy.encoder, "burn_in", 0)),
        **rules,
        "notice": "Not financial advice. Orders are executed at the open of the bar after the newest closed one.",
    }


def vector_text(vector: Mapping[str, Tensor]) -> str:
    """Return tensors as lines ``name,index,value``, flat in row order; every float32 is written to the last bit."""
    lines = ["name,index,value"]
    for name, tensor in vector.items():
        values: npt.NDArray[np.generic] = tensor.numpy().ravel()
        lines += [f"{name},{i},{value.item()!r}" for i, value in enumerate(values)]
    return "\n".join(lines) + "\n"


def advisor_text(policy: TerminalPolicy, facts: PolicyFacts, name: str) -> str:
    """Return the source of an MQL5 expert advisor for a policy.

    Columns without a formula in MQL5 stop the advisor's start with their name.
    """
    set_name = facts.feature_set.partition("/")[0]
    formulas: dict[str, str | None] = {
        column: INDICATORS.get(set_name, {}).get(column) or FORMULAS.get(column)
        for column in policy.encoder.feature_names
    }
    environment = Environment(
        loader=PackageLoader("halfstep.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False, keep_trailing_newline=True,
    )  # fmt: skip  # MQL5, not HTML
    config = policy.encoder.config
    return environment.get_template("expert.mq5.j2").render(
        name=name, facts=facts, formulas=formulas, version=__version__, bars=config.bars,
        missing=[column for column, formula in formulas.items() if formula is None],
        uses={key: any(f"{key}[i]" in (formula or "") for formula in formulas.values()) for key in HANDLES},
        handles=HANDLES, features=config.features, horizon=config.horizon,
        columns=len(range(config.features)[policy.encoder.columns])
        if isinstance(policy.encoder.columns, slice) else len(policy.encoder.columns),
        state_size=policy.state_size, states=STATES if policy.state_size else (),
        burn_in=getattr(policy.encoder, "burn_in", 0), decoding=policy.decoding,
        history=facts.settled + config.bars + getattr(policy.encoder, "burn_in", 0),
        lot_digits=max(0, math.ceil(-math.log10(policy.decoding.lot_step) - 1e-9)),
    )  # fmt: skip


# Indicator buffers: the call that makes the terminal's handle, and the buffer number.
HANDLES: Mapping[str, tuple[str, int]] = {
    "rsi": ("iRSI(_Symbol, PERIOD, 14, PRICE_CLOSE)", 0),
    "cci": ("iCCI(_Symbol, PERIOD, 14, PRICE_TYPICAL)", 0),
    "atr": ("iATR(_Symbol, PERIOD, 14)", 0),
    "macd": ("iMACD(_Symbol, PERIOD, 12, 26, 9, PRICE_CLOSE)", 0),
    "macd_signal": ("iMACD(_Symbol, PERIOD, 12, 26, 9, PRICE_CLOSE)", 1),
}
