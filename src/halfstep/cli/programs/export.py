"""`halfstep export`: a run's policy for MetaTrader 5, or its weights, or its trajectories, for other programs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halfstep import files
from halfstep.cli.flags import ExportFlags
from halfstep.cli.programs.market import Market, load_market
from halfstep.cli.programs.models import load_actor, load_encoder, model_file, needed_model
from halfstep.cli.run_folder import RunFolder
from halfstep.errors import ConfigError, MissingInputError, OutputExistsError
from halfstep.export.graph import Decoding, PolicyInputs, TerminalPolicy
from halfstep.export.onnx_file import ExportCheck
from halfstep.export.package import PolicyFacts, export_policy
from halfstep.training.policy import weights_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        source: folder of the networks.
        chosen: why it was this one; empty where the run has one policy.
        files: written, with their sizes in bytes.
        check: what reading the ONNX file back gave; None for other files.
    """

    source: Path
    chosen: str
    files: dict[str, int]
    check: ExportCheck | None

    def as_json(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "source": str(self.source), "chosen": self.chosen, "files": self.files,
            "check": None if self.check is None else asdict(self.check),
        }  # fmt: skip

    def lines(self) -> str:
        """Return the same for people."""
        found = [f"policy of {self.source}" + (f" ({self.chosen})" if self.chosen else "")]
        found += [f"  {name}  {size:,} bytes" for name, size in self.files.items()]
        if self.check is not None:
            c = self.check
            found.append(
                f"read back: opset {c.opset}, IR {c.ir_version}; {c.windows:,} decisions, action within "
                f"{c.action_error:.1e} of torch, forecast within {c.forecast_error:.1e}"
            )
        return "\n".join(found)


def export(flags: ExportFlags) -> Exported:
    """Write what was asked for.

    Raises:
        MissingInputError: the folder holds no run, or no policy.
        OutputExistsError: a file of that name exists.
        CheckpointError, ConfigError: the networks do not fit the run, or cannot be exported.
    """
    config = RunFolder.config_of(flags.run)
    source, chosen = _policy_folder(flags.run, flags.arm)
    folder = flags.out or flags.run / "export"
    name = flags.name or _identifier(f"{flags.run.resolve().name}_{source.name if chosen else ''}")
    names = (
        [f"{name}.{kind}.safetensors" for kind in ("encoder", "actor")]
        if flags.what == "safetensors"
        else [f"{name}.onnx", f"{name}.vector.csv", f"{name}.mq5"]
    )
    for each in names:
        if (folder / each).exists():
            raise OutputExistsError(f"{folder / each} exists. Choose another --out or --name.")
    check = None
    if flags.what == "safetensors":
        for kind in ("encoder", "actor"):
            files.write_bytes(folder / f"{name}.{kind}.safetensors", needed_model(source, kind).read_bytes())
    else:
        market = load_market(config)
        encoder = load_encoder(source, config, market)
        actor = load_actor(source, config, weights_hash(encoder))
        policy = TerminalPolicy(encoder, actor, Decoding.of(market.rules, market.instrument))
        facts = _facts(market, weights_hash(encoder), weights_hash(actor))
        check = export_policy(policy, facts, _last_decision(market, policy), folder, name)
    sizes = {each: (folder / each).stat().st_size for each in names}
    return Exported(
        source=source, chosen=chosen, files={str(folder / n): s for n, s in sizes.items()}, check=check
    )


def _policy_folder(run: Path, arm: str | None) -> tuple[Path, str]:
    """Return the folder with the networks, and why it is this one of several."""
    if arm is None and model_file(run, "actor").is_file():
        return run, ""
    arms = sorted(path.parent.parent for path in (run / "50-arms").glob("*/models/actor.safetensors"))
    if not arms:
        needed_model(run, "actor")
    names = [path.name for path in arms]
    if arm is not None:
        if arm not in names:
            raise MissingInputError(
                f"arm: {arm!r} is not in {run}, must be one of {', '.join(names) or 'none'}."
            )
        return run / "50-arms" / arm, "--arm"
    grown = {path: _validation_growth(path) for path in arms}
    best = max(arms, key=lambda path: grown[path])
    return best, (
        f"the greatest log growth of {len(arms)} arms on the validation span, {grown[best]:+.4f}: another than the "
        "report's figures over all seeds; --arm chooses"
    )


def _validation_growth(arm: Path) -> float:
    record: dict[str, Any] = json.loads((arm / "arm.json").read_text(encoding="utf-8"))
    return float(record["study"]["log_growth"])


def _facts(market: Market, encoder_hash: str, actor_hash: str) -> PolicyFacts:
    spans = ", ".join(
        f"{name} {getattr(market.split, name)[0]} to {getattr(market.split, name)[1]}"
        for name in ("train", "validation", "test")
    )
    return PolicyFacts(
        symbol=market.bars.symbol, timeframe=market.bars.timeframe.name,
        bar_seconds=market.bars.timeframe.seconds, digits=market.bars.digits,
        feature_set=market.features.set_id, settled=market.features.settled, encoder_hash=encoder_hash,
        actor_hash=actor_hash, bars_hash=market.bars.hash, spans=spans, delay_bars=market.rules.delay_bars,
        hold_band_steps=market.rules.hold_band_steps,
    )  # fmt: skip


def _last_decision(market: Market, policy: TerminalPolicy) -> PolicyInputs:
    """Return what a flat account sees at the last bar of the validation span."""
    last = market.spans.validation[1]
    deposit = market.rules.deposit
    window = market.features.values[last - policy.encoder.config.bars : last]
    account = np.array([[deposit, deposit, 0, 0, 0, 0, 0]], np.float32)
    return PolicyInputs(
        torch.from_numpy(window.copy())[None], torch.from_numpy(account), torch.from_numpy(account[:, :2].copy()),
        torch.tensor([int(market.bars.server_time[last - 1])]),
    )  # fmt: skip


def _identifier(text: str) -> str:
    """Return a name that MQL5 takes as an identifier."""
    found = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text).strip("_")
    if not found:
        raise ConfigError(f"name: {text!r} has no letters. Give one with --name.")
    return found if found[0].isalpha() else f"policy_{found}"
