"""The networks of a run: which file of its folder holds which, and what each must agree with.

    models/encoder.safetensors      of `halfstep study-encoder`; carried on by every later program
    models/context.safetensors      every bar encoded once, kept for the encoder and the bars that it names
    models/actor.safetensors        of `halfstep study`, for the encoder that it names
    models/critic.safetensors

A network is loaded only where its sizes, its features and the hashes it carries are those of the configuration and the
market at hand.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from halfstep import files
from halfstep.cli.programs.market import Market
from halfstep.config.tables import Config
from halfstep.errors import ConfigError, MissingInputError
from halfstep.experience.policy import NoisePolicy
from halfstep.nn.build import build_actor, build_critic, build_encoder
from halfstep.nn.checkpoint import load_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.encoder import Encoder
from halfstep.nn.policy import Actor, Critic
from halfstep.nn.presets import preset
from halfstep.training.encoder import encoder_facts
from halfstep.training.optimizers import optimizer_names
from halfstep.training.policy import Contexts, encode_contexts, weights_hash
from halfstep.training.windows import EncoderData

CONTEXT_FORMAT = "halfstep-contexts/1"


def model_config(config: Config) -> ModelConfig:
    """Return the sizes of the networks."""
    return preset(
        config.model.preset, lot_cap=config.broker.lot_cap, level_floor=config.model.level_floor,
        context_bars=config.model.context_bars,
    )  # fmt: skip


def check_optimizer(config: Config) -> None:
    """Refuse an unknown optimizer before anything is written.

    Raises:
        ConfigError: names those that exist.
    """
    if config.run.optimizer not in optimizer_names():
        raise ConfigError(
            f"run.optimizer: {config.run.optimizer!r}, must be one of {', '.join(optimizer_names())}."
        )


def noise_policy(config: Config) -> NoisePolicy:
    """Return what collects the first trajectories, within the bounds of the actor."""
    return NoisePolicy(config.broker.lot_cap, config.model.level_floor)


def encoder_data(market: Market) -> EncoderData:
    """Return what encoder training reads of a market."""
    return EncoderData(
        values=torch.from_numpy(market.features.values),
        names=market.features.names,
        train=market.spans.train,
        validation=market.spans.validation,
        settled=market.features.settled,
        data_hash=market.bars.hash,
    )


def model_file(folder: Path, kind: str) -> Path:
    """Return where a folder keeps a network: ``encoder``, ``actor``, ``critic``, or the ``context`` table."""
    return folder / "models" / f"{kind}.safetensors"


def needed_model(folder: Path, kind: str) -> Path:
    """Return the file of a network.

    Raises:
        MissingInputError: it is not there; names the command that makes it.
    """
    path = model_file(folder, kind)
    if not path.is_file():
        raise MissingInputError(f"no {kind} in {folder}: run {_maker(kind)} --out {folder}")
    return path


def load_encoder(folder: Path, config: Config, market: Market) -> Encoder:
    """Return a folder's encoder in evaluation mode.

    Raises:
        MissingInputError: it has none.
        CheckpointError: of other sizes or features, or trained on other bars or days.
    """
    data = encoder_data(market)
    encoder = build_encoder(model_config(config), feature_names=data.names, seed=0)
    path = needed_model(folder, "encoder")
    load_weights(encoder, path, kind="encoder", facts=encoder_facts(data), remedy=_maker("encoder"))
    return encoder.eval()


def load_actor(folder: Path, config: Config, encoder_hash: str) -> Actor:
    """Return a folder's actor in evaluation mode; it must have been trained with the encoder of that hash."""
    actor = build_actor(model_config(config), seed=0)
    path = needed_model(folder, "actor")
    load_weights(actor, path, kind="actor", facts={"encoder": encoder_hash}, remedy=_maker("actor"))
    return actor.eval()


def load_critic(folder: Path, config: Config, encoder_hash: str) -> Critic:
    """Return a folder's critic in evaluation mode; it must have been trained with the encoder of that hash."""
    critic = build_critic(model_config(config), seed=0)
    path = needed_model(folder, "critic")
    load_weights(critic, path, kind="critic", facts={"encoder": encoder_hash}, remedy=_maker("critic"))
    return critic.eval()


def contexts_of(encoder: Encoder, market: Market, folder: Path | None, *others: Path) -> Contexts:
    """Return the context of every bar from the training span on: from a folder's table, or encoded now.

    The table is a cache: one of another encoder, other bars or other features, or a damaged one, counts as none. A new
    table is kept in ``folder``, if one is given; the ``others``, folders of earlier programs, are only read.
    """
    key = {
        "format": CONTEXT_FORMAT, "encoder": weights_hash(encoder), "bars": market.bars.hash,
        "features": market.features.set_id, "first": market.spans.train[0],
    }  # fmt: skip
    for each in (*(() if folder is None else (folder,)), *others):
        found = _read_contexts(model_file(each, "context"), key)
        if found is not None:
            return found
    contexts = encode_contexts(
        encoder,
        torch.from_numpy(market.features.values),
        market.spans.train[0],
        settled=market.features.settled,
    )
    contexts = replace(contexts, rows=contexts.rows.clone(memory_format=torch.contiguous_format))
    if folder is not None:
        metadata = {"halfstep": json.dumps(key, sort_keys=True)}
        with files.replacing(model_file(folder, "context")) as temporary:
            save_file({"rows": contexts.rows}, temporary, metadata)
    return contexts


def carry_encoder(source: Path, folder: Path) -> None:
    """Copy a folder's encoder, so that the folder of a later stage is complete on its own."""
    if source.resolve() != folder.resolve():
        files.write_bytes(model_file(folder, "encoder"), needed_model(source, "encoder").read_bytes())


def _read_contexts(path: Path, key: dict[str, object]) -> Contexts | None:
    try:
        with safe_open(path, framework="pt") as stream:
            if json.loads((stream.metadata() or {}).get("halfstep", "{}")) != key:
                return None
            rows = stream.get_tensor(
                "rows"
            ).clone()  # aligned as torch allocates: sums round as those of new rows
    except (SafetensorError, OSError, ValueError):
        return None
    return Contexts(first=int(str(key["first"])), rows=rows, encoder_hash=str(key["encoder"]))


def _maker(kind: str) -> str:
    """Return the command that makes a network."""
    return "halfstep study-encoder" if kind == "encoder" else "halfstep study"
