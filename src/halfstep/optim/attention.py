"""How the output units of an attention projection divide into heads.

A projection is a dense layer inside an attention module. Its *role* says what it makes: queries ``q``, keys ``k``,
values ``v``, or several of them fused into one weight (``qkv``, ``kv``, ``qk``). Head counts and sizes come from
attributes of the attention module, then from a ``config`` that hangs on it or on a module around it. The roles of
separate projections cannot be told apart by structure: there, and only there, the name of the child module decides.

Queries and keys are cut by head, values by output unit (Zhang et al., arXiv 2406.16793, section 2).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from halfstep.optim.blocks import Kind, Section

ValueRule = Literal["row", "tensor"]
Path = tuple[tuple[str, nn.Module], ...]
"""Attribute names and modules from the model, whose name is empty, down to a layer."""

_HEADS = (
    "num_heads", "num_attention_heads", "n_head", "n_heads", "nhead", "nheads", "num_head", "heads",
    "num_attention_heads_per_partition",
)  # fmt: skip
_KEY_HEADS = (
    "num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "kv_n_heads", "kv_heads", "num_query_groups",
    "num_query_groups_per_partition", "num_multi_query_groups_per_partition",
)  # fmt: skip
_HEAD_DIM = (
    "qk_head_dim",  # before head_dim, which may be the rotary part alone where attention is latent
    "head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "d_kv", "dim_head", "d_head",
    "hidden_size_per_attention_head",
)  # fmt: skip
_WIDTH = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "width")
_CONFIGS = ("config", "cfg", "args", "hparams")

_LETTERS = {
    **dict.fromkeys(("q", "wq", "query", "queries"), "q"),
    **dict.fromkeys(("k", "wk", "key", "keys"), "k"),
    **dict.fromkeys(("v", "wv", "value", "values"), "v"),
    **{name: name.removeprefix("w") for name in ("qkv", "wqkv", "kv", "wkv", "qk", "wqk")},
}
_LOW_RANK = {"a", "b", "down", "up", "nope", "rope", "lora", "latent", "compress", "mqa"}
_LABEL = {"q": "query projection", "k": "key projection", "qk": "queries and keys in one"}
_NO_PROJECTION = {"norm", "layernorm", "gate", "embed", "embedding", "embeddings", "head"}
_KNOWN: dict[tuple[str, str], tuple[str, int | None]] = {
    ("CodeGenAttention", "qkv_proj"): ("qvk", 4),
    ("DisentangledSelfAttention", "in_proj"): ("qkv", None),  # DeBERTa
    ("InternLM2Attention", "wqkv"): ("qkv", None),
    ("MiniMaxLightningAttention", "qkv_proj"): ("qkv", None),
}
"""Fused weights whose storage nothing tells, by class and child: the order inside a group, and the number of groups; None: one
for each key head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Consecutive runs of output units of one projection, and why."""

    sections: tuple[Section, ...]
    kind: Kind
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Heads:
    """What an attention module and the configurations around it state; None: nothing."""

    count: int | None = None
    key_count: int | None = None
    dim: int | None = None
    dim_is_own: bool = False
    """Whether the module itself states the size, so that a contradiction is a mistake and no misreading."""


def projection_layout(path: Path, rows: int, *, name: str, value: ValueRule) -> Layout | None:
    """Return the runs of an attention projection's output units, or None if the layer is no such projection.

    Args:
        path: down to the layer, whose last name gives the role.
        rows: output units of the layer.
        name: of the parameter, for messages.
        value: values by output unit, or as one block.

    Raises:
        ValueError: the attention module states a head size that does not divide its queries or keys.
    """
    path = _without_wrappers(path)
    if len(path) < 2:
        return None
    child, owner = path[-1][0], path[-2][1]
    if _letters(child) and _LOW_RANK.intersection(_words(child)):
        return _by_unit(rows, "low-rank projection of attention")
    is_fused = _known(path) is not None or _is_fused_by_shape(path, rows)
    role = role_of(child) or ("qkv" if is_fused else "")
    if "q" in role and len(role) > 1 and next(_rows_of("q", owner), None):
        role = role.replace("q", "")  # cross attention: its queries have a layer of their own
    if len(role) > 1:
        return _fused(role, path, rows, value=value)
    if not role or not _is_attention(owner):
        return None
    if role == "v":
        return _by_value(rows, value)
    return _query_or_key(role, path, rows, name=name)


def role_of(child: str) -> str:
    """Return what a child of an attention module makes, by its name: a subset of ``"qkv"``, or nothing."""
    words = _words(child)
    if words == ["c", "attn"]:
        return "qkv"
    if words in (["q", "head"], ["k", "head"], ["v", "head"]):  # of Funnel Transformer: they are projections
        return words[0]
    return "" if (_LOW_RANK | _NO_PROJECTION).intersection(words) else _letters(child)


def tensor_layout(
    module: nn.Module, own: str, shape: tuple[int, ...], *, value: ValueRule
) -> tuple[tuple[int, ...], Layout] | None:
    """Return the axes of an attention tensor that count its output units, and their runs; None: it is no such tensor.

    Modules written for ``einsum`` keep their projections as tensors of their own, with an axis for heads.

    Args:
        module: the attention module; it, or its configuration, states its width, its heads and their size.
        own: the tensor's name in it, whose first word gives the role: queries, keys, values, ``o`` or ``wo`` for outputs, which go
            back to the width, ``r`` for relative positions.
        shape: of the tensor: width, heads and head size in any order that keeps heads before their size.
        value: values by output unit, or as one block.
    """
    role = role_of(own)
    is_output = _words(own)[:1] in (["o"], ["wo"], ["out"], ["output"])
    if len(shape) != 3 or len(role) > 1 or not (role or is_output or _words(own)[:1] == ["r"]):
        return None
    sources = (module, *(peek(module, name) for name in _CONFIGS))
    width, dim = (next(filter(None, (stated(s, names) for s in sources)), 0) for names in (_WIDTH, _HEAD_DIM))
    count = {stated(s, names) for s in sources for names in (_HEADS, _KEY_HEADS)}.intersection(shape)
    orders = (shape[k] == width and [n for j, n in enumerate(shape) if j != k][1] == dim for k in range(3))
    axis_of_width = next((k for k, fits in enumerate(orders) if fits), None)
    if axis_of_width is None or not count.intersection(shape[k] for k in range(3) if k != axis_of_width):
        return None
    if is_output:
        return (axis_of_width,), _by_unit(width, "output projection of attention")
    axes = tuple(k for k in range(3) if k != axis_of_width)
    rows = math.prod(shape[k] for k in axes)
    if role in ("q", "k"):
        return axes, _by_head(role, rows, dim)
    return axes, _by_value(rows, value) if role else _by_unit(rows, "projection of attention")


def is_adapter(name: str) -> bool:
    """Whether an attribute holds a low-rank factor, in the form of peft, torchtune or loralib."""
    return name.lower() in ("lora_a", "lora_b", "lora_embedding_a", "lora_embedding_b")


def stated(source: object, names: tuple[str, ...]) -> int | None:
    """Return the first of these attributes or keys that is a positive whole number."""
    for name in names:
        found = peek(source, name)
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None


def peek(source: object, name: str) -> object:
    """Return an attribute or key of anything, or None where there is none or it refuses to be read."""
    try:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    except Exception:  # configurations raise errors of their own for what differs between layers
        return None


def _query_or_key(role: str, path: Path, rows: int, *, name: str) -> Layout:
    """Cut a query or key projection by head."""
    owner, heads = path[-2][1], _heads(path)
    label = _LABEL[role]
    if heads.dim_is_own and heads.dim and rows % heads.dim:
        raise ValueError(
            f"{name}: {rows} output units, but its {type(owner).__name__} states heads of {heads.dim}, which do "
            f"not divide them. Correct the module, or say the blocks: Rule({name!r}, head(head_dim=...))."
        )
    count = heads.count if role == "q" else heads.key_count or heads.count
    queries = rows if role == "q" else next(_rows_of("q", owner), None)  # None: they are no dense layer here
    queries_dim = queries // heads.count if queries and heads.count and queries % heads.count == 0 else None
    candidates = (
        heads.dim if heads.dim_is_own or (heads.dim and count and heads.dim * count == rows) else None,
        queries_dim,
        rows // count if count and rows % count == 0 else None,
        heads.dim,
        norm if (norm := _size_of_norm(owner, role)) != rows else None,  # not one over the whole width
    )
    dim = next((dim for dim in candidates if dim and rows % dim == 0), None)
    if dim is None:
        why = f"{heads.count} heads do not divide it" if heads.count else "nothing says the head size"
        return _by_unit(rows, f"{label}, {why} (a rule with head(...) may)")
    return _by_head(role, rows, dim)


def _fused(role: str, path: Path, rows: int, *, value: ValueRule) -> Layout:
    """Cut a fused projection: queries and keys by head, values by output unit, in the order they are stored.

    In sections, all queries come first, then all keys, then all values. Interleaved, each key head forms a group:
    its queries, its key, its value.
    """
    child, owner = path[-1][0], path[-2][1]
    label = f"fused {', '.join(role)}"
    heads = _heads(path)
    if role == "qk" and heads.count and heads.dim and rows == heads.count * heads.dim:  # of Reformer
        return _by_head(role, rows, heads.dim)
    found = _linear_attention(owner, rows) or _solve(role, rows, heads)
    if found is None:
        return _by_unit(rows, f"{label}, nothing says the heads (a rule with sections(...) may)")
    units, key_count, dim = found
    order, groups = role, key_count if _is_interleaved(child, owner) else 1
    if known := _known(path):
        order, groups = known[0], known[1] or key_count
    sections = []
    for letter in order:
        size = units[letter] // groups
        sections.append((size, dim if letter != "v" else size if value == "tensor" else 1))
    how = "in sections" if groups == 1 else f"interleaved in {groups} groups"
    values = (
        ("one block" if groups == 1 else "one block per group") if value == "tensor" else "by output unit"
    )
    parts = f"{' and '.join(role.replace('v', ''))} by head of {dim}"
    return Layout(
        sections=tuple(sections) * groups,
        kind="head",
        reason=f"{label} {how}: {parts}" + (f", v {values}" if "v" in role else ""),
    )


def _by_head(role: str, rows: int, dim: int) -> Layout:
    return Layout(sections=((rows, dim),), kind="head", reason=f"{_LABEL[role]}: by head of {dim}")


def _by_value(rows: int, value: ValueRule) -> Layout:
    if value == "row":
        return _by_unit(rows, "value projection")
    return Layout(sections=((rows, rows),), kind="tensor", reason="value projection: one block, as asked")


def _by_unit(rows: int, what: str) -> Layout:
    return Layout(sections=((rows, 1),), kind="row", reason=f"{what}: by output unit")


_Units = tuple[dict[str, int], int, int]
"""Output units of queries, keys and values; key heads; head size of queries and keys."""


def _solve(role: str, rows: int, heads: _Heads) -> _Units | None:
    """Return the parts of a fused projection with rows = (query heads + n key heads) head size, or None.

    n is 2 with values and 1 without. Where the size is stated, unstated counts follow from it; otherwise the size
    follows from the counts.
    """
    n, count, key_count, dim = len(role.replace("q", "")), heads.count, heads.key_count, heads.dim
    pairs: list[tuple[int | None, int | None]] = []  # query heads and key heads, the best founded first
    if "q" not in role:
        pairs = [(0, key_count), (0, count), (0, rows // (n * dim) if dim else None)]
    elif dim:
        total = rows // dim
        pairs = [
            (count, key_count),
            (count, (total - count) // n if count else None),
            (total - n * key_count if key_count else None, key_count),
        ]
        if not count:
            pairs.append((total // (n + 1), total // (n + 1)))
    sizes = [(q, k, dim) for q, k in pairs if dim]
    if count and not heads.dim_is_own:
        sizes += [
            (count if "q" in role else 0, k, rows // (("q" in role) * count + n * k))
            for k in (key_count, count, 1)
            if k
        ]
    for q, k, size in sizes:
        if q is None or k is None or q < ("q" in role) or k < 1 or size < 1:
            continue
        if (q + n * k) * size == rows and q % k == 0:
            return {"q": q * size, "k": k * size, "v": k * size}, k, size
    return None


def _linear_attention(owner: nn.Module, rows: int) -> _Units | None:
    """Return the parts of a fused projection of linear attention, whose values have heads of their own."""
    count, dim = stated(owner, ("num_k_heads",)), stated(owner, ("head_k_dim",))
    if not count or not dim or rows <= 2 * count * dim:
        return None
    return {"q": count * dim, "k": count * dim, "v": rows - 2 * count * dim}, count, dim


def _known(path: Path) -> tuple[str, int | None] | None:
    """Return what is known of a fused weight by the class of its module, or of one that it was made from."""
    child, owner = path[-1][0], path[-2][1]
    known = (_KNOWN.get((cls.__name__, child)) for cls in type(owner).__mro__)
    return next(filter(None, known), None)


def _is_interleaved(child: str, owner: nn.Module) -> bool:
    """Whether a fused weight is stored key head by key head, as Megatron does; its heirs spell out what they make."""
    if peek(owner, "multi_query_attention") is True:
        return False  # ChatGLM with grouped keys
    is_heir = any(peek(owner, name) is not None for name in ("multi_query", "num_query_groups_per_partition"))
    return is_heir or {"key", "value"} <= set(_words(child))


def _is_attention(owner: nn.Module) -> bool:
    if stated(owner, _HEADS) or stated(owner, _HEAD_DIM):
        return True
    return all(next(_rows_of(role, owner), None) for role in "qk")


def _is_fused_by_shape(path: Path, rows: int) -> bool:
    """Whether the one other dense layer of an attention module takes as much as these heads would give."""
    child, owner = path[-1][0], path[-2][1]
    heads = _stated_by(owner)
    dense = {
        name: weight for name, layer in owner.named_children() if (weight := _dense_weight(layer)) is not None
    }
    if not heads.count or len(dense) != 2 or child not in dense:
        return False
    (other,) = dense.keys() - {child}
    if role_of(other):
        return False
    inputs = dense[other].numel() // max(_output_units(owner.get_submodule(other)), 1)
    dim = heads.dim or inputs // heads.count
    return inputs == heads.count * dim and rows == (heads.count + 2 * (heads.key_count or heads.count)) * dim


def _heads(path: Path) -> _Heads:
    """Return what the attention module states, and where it is silent, the nearest configuration that has heads."""
    own = _stated_by(path[-2][1])
    around = next(
        (found for _, module in reversed(path[:-1]) if (found := _configured(module, path))), _Heads()
    )
    return _Heads(
        count=own.count or around.count,
        key_count=own.key_count or around.key_count,
        dim=own.dim or around.dim,
        dim_is_own=own.dim is not None,
    )


def _stated_by(source: object) -> _Heads:
    return _Heads(
        count=stated(source, _HEADS), key_count=stated(source, _KEY_HEADS), dim=stated(source, _HEAD_DIM)
    )


def _configured(module: nn.Module, path: Path) -> _Heads | None:
    """Return the heads of a module's configuration, or of one nested in it, best of the layer's own width."""
    for name in _CONFIGS:
        config = peek(module, name)
        if config is None or isinstance(config, nn.Module):
            continue
        if stated(config, _HEADS):
            return _stated_by(config)
        members = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
        nested = [member for member in members.values() if stated(member, _HEADS)]
        if nested:
            weight = peek(path[-1][1], "weight")
            widths = set(weight.shape) if isinstance(weight, Tensor) else set()
            # that of another part of the model would give the wrong heads
            fitting = (c for c in nested if stated(c, _WIDTH) in {None, *widths})
            return next(map(_stated_by, fitting), None)
    return None


def _rows_of(role: str, owner: nn.Module) -> Iterator[int]:
    """Yield the output units of the dense children that have this role."""
    for name, child in owner.named_children():
        if role_of(name) == role and (units := _output_units(child)):
            yield units


def _dense_weight(layer: nn.Module) -> Tensor | None:
    """Return the matrix of a dense layer, also inside an adapter."""
    weight = peek(getattr(layer, "base_layer", layer), "weight")
    return weight if isinstance(weight, Tensor) and weight.dim() == 2 else None


def _output_units(layer: nn.Module) -> int:
    """Return the output units of a dense layer, or 0 for another layer."""
    weight = _dense_weight(layer)
    if weight is None:
        return 0
    return int(weight.shape[1 if stated(getattr(layer, "base_layer", layer), ("nf",)) else 0])


def _size_of_norm(owner: nn.Module, role: str) -> int | None:
    """Return the width of a norm over each head of this role, such as ``q_norm``."""
    for name, child in owner.named_children():
        weight = peek(child, "weight")
        if _letters(name) == role and isinstance(weight, Tensor) and weight.dim() == 1:
            return int(weight.numel())
    return None


def _without_wrappers(path: Path) -> Path:
    """Cut modules off the end that only wrap one layer, if that leads to a name with a role."""
    while len(path) > 2 and (path[-1][0] == "base_layer" or _is_adapted(path[-2][1])):
        path = path[:-1]
    cut = path
    while len(cut) > 2 and not role_of(cut[-1][0]):
        wrapper = cut[-2][1]
        filled = [child for child in wrapper.children() if next(child.parameters(), None) is not None]
        if len(filled) > 1 or next(wrapper.parameters(recurse=False), None) is not None:
            return path
        cut = cut[:-1]
    return cut if role_of(cut[-1][0]) else path


def _is_adapted(module: nn.Module) -> bool:
    parts = (*module.named_children(), *module.named_parameters(recurse=False))
    return any(is_adapter(name) for name, _ in parts)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _letters(name: str) -> str:
    found = {letter for word in _words(name) for letter in _LETTERS.get(word, "")}
    return "".join(letter for letter in "qkv" if letter in found)
