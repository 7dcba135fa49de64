"""The blocks of one parameter, decided from the layer that holds it.

`STRUCTURES` is an ordered list of functions, one per structure; the first that knows the parameter decides. Each
returns the blocks with a reason that stands in the printed table, or None. To teach the partition a new structure,
write such a function and put it into the list before the first one that would claim its parameters.

Every scheme follows the output unit: a row is all weights that feed one unit, however the layer stores them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from halfstep.optim.attention import (
    Layout,
    Path,
    ValueRule,
    is_adapter,
    peek,
    projection_layout,
    stated,
    tensor_layout,
)
from halfstep.optim.blocks import BlockSpec, by_element, by_row, by_sections, by_tensor

NormRule = Literal["tensor", "element"]

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_EPS = ("eps", "epsilon", "variance_epsilon", "norm_eps")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "n_experts")
_OUTPUTS = ("out_features", "out_channels", "output_size", "output_dim", "out_dim", "nf", *_EXPERTS)
_INPUTS = ("in_features", "in_channels", "input_size", "input_dim", "in_dim", "nx")
_WIDTHS = ("hidden_size", "d_model", "embed_dim", "dim", "hidden_dim")
_TABLES = {
    "embed", "embedding", "embeddings", "pos", "position", "positional", "token", "tokens", "cls", "mask", "query",
    "queries", "latent", "latents", "prompt", "probe",
}  # fmt: skip
_WEIGHTS = {"weight", "weights", "kernel", "matrix", "proj", "projection"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where a parameter stands.

    Attributes:
        name: its full name in the model.
        own: its name in the layer that holds it, such as ``"weight"``.
        param: the parameter.
        path: from the model down to that layer.
        value, norm: choices that hold for the whole model; see `partition_model`.
    """

    name: str
    own: str
    param: Tensor
    path: Path
    value: ValueRule
    norm: NormRule

    @property
    def module(self) -> nn.Module:
        """The layer that holds the parameter."""
        return self.path[-1][1]

    @property
    def kind(self) -> str:
        """The layer's class, by name."""
        return type(self.module).__name__

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return tuple(self.param.shape)

    @property
    def is_leaf(self) -> bool:
        """Whether the layer has no layers with parameters inside."""
        return all(next(child.parameters(), None) is None for child in self.module.children())


def sites_of(model: nn.Module, *, value: ValueRule = "row", norm: NormRule = "tensor") -> Iterator[Site]:
    """Yield every parameter of a model, under every name it has; a parametrized weight belongs to its layer."""

    def site(name: str, own: str, param: Tensor, path: Path) -> Site:
        return Site(name=name, own=own, param=param, path=path, value=value, norm=norm)

    def descend(path: Path, prefix: str) -> Iterator[Site]:
        module = path[-1][1]
        for own, param in module.named_parameters(recurse=False, remove_duplicate=False):
            yield site(f"{prefix}{own}", own, param, path)
        for name, child in module.named_children():
            if name == "parametrizations" and isinstance(child, nn.ModuleDict):
                for own, steps in child.named_children():
                    for part, param in steps.named_parameters():
                        yield site(f"{prefix}{name}.{own}.{part}", own, param, path)
            else:
                yield from descend((*path, (name, child)), f"{prefix}{name}.")

    yield from descend((("", model),), "")


def decide(site: Site) -> BlockSpec:
    """Return the blocks of a parameter by the first structure that knows it."""
    found = (structure(site) for structure in STRUCTURES)
    return next(spec for spec in found if spec is not None)


def is_bias(site: Site) -> bool:
    """Whether this is a bias: a vector called so, or those of stacked layers or heads (``bias_k``, ``up_proj_bias``)."""
    words = site.own.replace("biases", "bias").split("_")
    last = words[-1] if len(words[-1]) > 1 else words[max(len(words) - 2, 0)]
    return last == "bias" or ("bias" in words and site.param.dim() < 2)


def is_norm(site: Site) -> bool:
    """Whether the layer is a normalisation: torch's, or one with an eps and nothing but vectors (or a telling class)."""
    module = site.module
    if isinstance(module, _NORMS):
        return True
    if not site.is_leaf or not any(isinstance(peek(module, name), float) for name in _EPS):
        return False
    return "norm" in site.kind.lower() or all(p.dim() < 2 for p in module.parameters(recurse=False))


def bias(site: Site) -> BlockSpec | None:
    """A bias: each of its elements feeds another unit."""
    return by_element(site.shape, "bias: by element, as AdamW") if is_bias(site) else None


def gain(site: Site) -> BlockSpec | None:
    """The gain of a normalisation, of any shape."""
    return _vector(site, f"gain of {site.kind}") if is_norm(site) else None


def vector(site: Site) -> BlockSpec | None:
    """Other vectors and scalars."""
    if site.param.dim() == 0:
        return by_tensor((), f"scalar of {site.kind}")
    return _vector(site, f"vector of {site.kind}") if site.param.dim() == 1 else None


def series_convolution(site: Site) -> BlockSpec | None:
    """A convolution with its own filters for each variable [variable, filter, window], in heads of filters."""
    if (
        stated(site.module, ("variables",)) is None
        or not hasattr(site.module, "heads")
        or site.param.dim() != 3
    ):
        return None
    (variables, filters, _), heads = site.shape, stated(site.module, ("heads",))
    if heads is None:
        return by_row(site.shape, "convolution of series: by variable and filter", axes=(0, 1))
    if filters % heads:
        raise ValueError(
            f"{site.name}: shape {site.shape} has {filters} filters, which {heads} heads do not divide. "
            "Choose heads that do."
        )
    size = filters // heads
    return by_sections(
        site.shape,
        f"convolution of series: by variable and head of {size} filters",
        sections=((variables * filters, size),),
        name=site.name,
        axes=(0, 1),
    )


def adapter(site: Site) -> BlockSpec | None:
    """A low-rank factor (LoRA): A makes `rank` units; B feeds the units of the layer it adapts, and is cut alike."""
    depth = next((k for k, (name, _) in enumerate(site.path) if is_adapter(name)), len(site.path))
    name = site.own if depth == len(site.path) else site.path[depth][0]
    if not is_adapter(name):
        return None
    if name.lower() != "lora_b" or site.param.dim() != 2:
        return by_row(site.shape, f"low-rank factor {name}: by row")
    layout = projection_layout(site.path[:depth], site.shape[0], name=site.name, value=site.value)
    if layout is None or layout.kind == "tensor":
        return by_row(site.shape, f"low-rank factor {name}: by output unit")
    return _by_layout(site, layout, f"low-rank factor {name} of {layout.reason}")


def torch_attention(site: Site) -> BlockSpec | None:
    """The input projections of ``nn.MultiheadAttention``, fused or separate."""
    module = site.module
    if not isinstance(module, nn.MultiheadAttention) or not site.own.endswith("proj_weight"):
        return None
    role = "qkv" if site.own == "in_proj_weight" else site.own.removesuffix("_weight")
    path = (*site.path, (role, module))
    layout = projection_layout(path, site.shape[0], name=site.name, value=site.value)
    return None if layout is None else _by_layout(site, layout, layout.reason)


def recurrent(site: Site) -> BlockSpec | None:
    """A recurrent layer [gates x hidden, in]."""
    if not isinstance(site.module, nn.RNNBase | nn.RNNCellBase) and not (
        peek(site.module, "weight_ih") is not None and peek(site.module, "weight_hh") is not None
    ):
        return None
    return by_row(site.shape, "recurrent layer: by gate and unit")


def convolution(site: Site) -> BlockSpec | None:
    """A convolution [out, in / groups, window ...], also of an unknown class that has a ``kernel_size``."""
    module = site.module
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # [in, out / groups, window ...]
        if module.groups == 1 and site.shape[1] == module.out_channels:
            return by_row(site.shape, "transposed convolution: by output channel", axes=(1,))
        # no block may span two output channels, and those of one group repeat along the second axis
        return by_row(
            site.shape, "transposed convolution in groups: by input and output channel", axes=(0, 1)
        )
    has_window = site.param.dim() > 2 and peek(module, "kernel_size") is not None
    if isinstance(module, nn.modules.conv._ConvNd) or has_window:
        return by_row(site.shape, "convolution: by output channel")
    return None


def embedding(site: Site) -> BlockSpec | None:
    """An embedding [tokens, width]."""
    if not isinstance(site.module, nn.Embedding | nn.EmbeddingBag):
        return None
    return by_row(site.shape, "embedding: by token")


def experts(site: Site) -> BlockSpec | None:
    """Stacked experts [experts, out, in], or [experts, in, out] where they are used as ``x @ weight[expert]``."""
    module = site.module
    if site.param.dim() != 3 or isinstance(module, nn.ParameterList | nn.ParameterDict):
        return None
    stack = [p for p in module.parameters(recurse=False) if p.dim() == 3]
    if stated(module, _EXPERTS) != site.shape[0] and not (site.is_leaf and len(stack) > 1):
        return None
    transposed = _are_transposed(module, stack)
    if transposed is None:
        return by_row(
            site.shape, "stacked experts, storage not recognised: taken as [expert, out, in]", axes=(0, 1)
        )
    order = "[expert, in, out]" if transposed else "[expert, out, in]"
    return by_row(
        site.shape,
        f"stacked experts {order}: by expert and output unit",
        axes=(0, 2) if transposed else (0, 1),
    )


def dense(site: Site) -> BlockSpec | None:
    """A dense layer [out, in], or [in, out] where the layer's stated sizes say so; attention projections by head."""
    axis = _output_axis(site)
    if axis is None:
        return None
    if isinstance(site.module, nn.Linear) and site.shape[0] != site.module.out_features:
        return by_row(site.shape, "packed dense layer: by row")  # quantised to fewer bits, and frozen
    stored = " stored [in, out]" if axis else ""
    layout = projection_layout(site.path, site.shape[axis], name=site.name, value=site.value)
    if layout is None:
        return by_row(site.shape, f"dense layer{stored}: by output unit", axes=(axis,))
    return _by_layout(site, layout, f"{layout.reason}{stored and ','}{stored}", axes=(axis,))


def attention_tensor(site: Site) -> BlockSpec | None:
    """A projection of attention with an axis for heads, as ``einsum`` takes it."""
    found = tensor_layout(site.module, site.own, site.shape, value=site.value)
    if found is None:
        return None
    axes, layout = found
    return _by_layout(site, layout, layout.reason, axes=axes)


def free(site: Site) -> BlockSpec | None:
    """A position table, a token or another free tensor of a larger module; its last axis is a unit's width."""
    words = site.own.lower().split("_")
    is_table = 1 in site.shape[:-1] or not _TABLES.isdisjoint(words)
    if not is_table and (site.is_leaf or words[-1] in _WEIGHTS):
        return None  # the weight of a layer nobody knows
    axes = tuple(range(site.param.dim() - 1))
    return by_row(site.shape, f"free parameter of {site.kind}: by row along its last axis", axes=axes)


def unknown(site: Site) -> BlockSpec:
    """Anything else is cut finely, and the table says so."""
    axes = tuple(range(site.param.dim() - 1))
    return by_row(
        site.shape, f"{site.kind} not recognised: by row along the last axis; a rule may say more", axes=axes
    )


STRUCTURES: tuple[Callable[[Site], BlockSpec | None], ...] = (
    bias,
    gain,
    vector,
    series_convolution,
    adapter,
    torch_attention,
    recurrent,
    convolution,
    embedding,
    attention_tensor,
    experts,
    dense,
    free,
    unknown,
)


def _vector(site: Site, reason: str) -> BlockSpec:
    if site.norm == "element":
        return by_element(site.shape, f"{reason}: by element, as asked")
    return by_tensor(site.shape, f"{reason}: one block")


def _by_layout(site: Site, layout: Layout, reason: str, *, axes: tuple[int, ...] = (0,)) -> BlockSpec:
    if layout.kind == "tensor":
        return by_tensor(site.shape, reason)
    if layout.kind == "row":
        return by_row(site.shape, reason, axes=axes)
    return by_sections(site.shape, reason, sections=layout.sections, name=site.name, axes=axes)


def _output_axis(site: Site) -> int | None:
    """Return the axis of a dense weight that counts output units, or None if this is no dense layer."""
    if isinstance(site.module, nn.Linear | nn.Bilinear):
        return 0
    if site.param.dim() != 2 or not (site.is_leaf or site.own == "weight"):
        return None
    if stated(site.module, ("nf",)):
        return 1  # Conv1D of GPT-2, also where it is square
    transposed = _stated_order(site.module, *site.shape)
    return None if transposed is None else int(transposed)


def _stated_order(module: nn.Module, first: int, second: int) -> bool | None:
    """Whether a layer's stated sizes say that a weight is [in, out]; square counts as [out, in]; None: unknown."""
    sources = (module, peek(module, "config"))
    outputs, inputs, widths = (
        {stated(source, (name,)) for source in sources for name in names}
        for names in (_OUTPUTS, _INPUTS, _WIDTHS)
    )
    if first in outputs and second in inputs | widths:
        return False
    if second in outputs and first in inputs | widths:
        return True
    for sizes, is_transposed in ((outputs, second in outputs), (inputs, first in inputs)):
        if (first in sizes) != (second in sizes):
            return is_transposed  # only one size is stated, and only one axis has it
    return None


def _are_transposed(module: nn.Module, stack: list[nn.Parameter]) -> bool | None:
    """Whether stacked experts are [expert, in, out]; None: unknown.

    They say so themselves, or state the sizes of inputs and outputs. Else the width that goes into the first layer
    and comes out of the last tells, or a gated first layer with twice the units that the last one takes.
    """
    marked = peek(module, "is_transposed")
    if isinstance(marked, bool):
        return marked
    (_, a, b), (_, c, d) = stack[0].shape, stack[-1].shape
    if len(stack) == 1:
        return _stated_order(module, a, b)
    width = stated(module, _WIDTHS)
    if width is not None and a != b and width in (a, b):
        return width == a
    first_wide, second_wide = b == c and a == 2 * d, a == d and b == 2 * c
    return second_wide if first_wide != second_wide else None
