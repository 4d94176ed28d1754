"""Finding the projections of an attention by their usual names."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.utils.compiled import submodule
from lit_credit.utils.private_names import own_submodules

__all__ = [
    "Projections",
    "find_output",
    "find_projections",
    "is_attention",
    "projection_names",
    "split_into_heads",
]

_APART = (
    ("q", "k", "v", "o"),
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("query", "key", "value", "out"),
    ("query", "key", "value", "output"),
    ("query", "key", "value", "proj"),
    ("W_q", "W_k", "W_v", "W_o"),
    ("W_Q", "W_K", "W_V", "W_O"),
    ("w_q", "w_k", "w_v", "w_o"),
    ("wq", "wk", "wv", "wo"),
    ("to_q", "to_k", "to_v", "to_out"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("self.query", "self.key", "self.value", "output.dense"),  # Hugging Face's BERT
)
# `query_key_value` is missing: GPT-NeoX, BLOOM and Falcon put q, k and v of one head together.
_FUSED = (
    ("c_attn", "c_proj"),
    ("qkv", "proj"),
    ("qkv", "out"),
    ("qkv", "o"),
    ("qkv_proj", "o_proj"),
    ("to_qkv", "to_out"),
    ("Wqkv", "out_proj"),
)
_HEADS = ("num_heads", "n_heads", "heads", "n_head", "num_attention_heads", "nhead", "nheads")
_HEAD_SIZE = ("head_dim", "d_head", "dim_head", "head_size", "attention_head_size")


class _Affine(NamedTuple):
    """y = x weight^T + bias, as in a Linear."""

    weight: Tensor  # (out, in)
    bias: Tensor | None


class Projections(NamedTuple):
    """The projections of an attention.

    Attributes:
        owner: the submodule that has the sizes, most often the attention itself.
        qkv: three entries, or one if q, k and v are fused; its rows are then q, k, v in this order.
            Inside each of q, k and v, the heads follow one after the other.
        output: columns are the heads one after the other.
    """

    owner: nn.Module
    qkv: tuple[_Affine, ...]
    output: _Affine


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention whose projections have known names."""
    return isinstance(module, nn.MultiheadAttention) or _named(module) is not None


def find_projections(attention: nn.Module) -> Projections:
    """Find the projections of an attention.

    Raises:
        ValueError: if no projections have known names, or the keys or values of an
            ``nn.MultiheadAttention`` have a width of their own.
    """
    if isinstance(attention, nn.MultiheadAttention):
        return _of_multihead_attention(attention)
    found = _named(attention)
    if found is None:
        raise ValueError("it has no projections of known names")
    return found


def projection_names(attention: nn.Module) -> tuple[str, ...] | None:
    """Names, below the attention, of the Linears that make q, k and v (one, if fused) and output.

    None if they are not known, or do not run as modules of their own (nn.MultiheadAttention).
    """
    for names in (*_APART, *_FUSED):
        if all(_affine(attention, name) is not None for name in names):
            found = ((name, submodule(attention, name)) for name in names)
            return tuple(f"{n}.0" if isinstance(child, nn.Sequential) else n for n, child in found)
    return None


def find_output(attention: nn.Module) -> str | None:
    """Name, below the attention, of the Linear whose columns are the heads; None if not known."""
    names = projection_names(attention)
    return None if names is None else names[-1]


def _named(module: nn.Module) -> Projections | None:
    if len(own_submodules(module)) < 2:  # most submodules of a net
        return None
    for names in (*_APART, *_FUSED):
        found: list[_Affine] = []
        for name in names:
            if (affine := _affine(module, name)) is None:
                break
            found.append(affine)
        else:
            *qkv, output = found
            owner = submodule(module, names[0].rpartition(".")[0])
            return Projections(owner, tuple(qkv), output)
    return None


def _of_multihead_attention(module: nn.MultiheadAttention) -> Projections:
    if module.in_proj_weight is None:
        raise ValueError(
            f"`kdim` is {module.kdim} and `vdim` {module.vdim}, other than `embed_dim`, "
            f"{module.embed_dim}, so that keys and values are read from another stream"
        )
    packed = _Affine(module.in_proj_weight, module.in_proj_bias)
    output = _Affine(module.out_proj.weight, module.out_proj.bias)
    return Projections(module, (packed,), output)


def _affine(module: nn.Module, path: str) -> _Affine | None:
    """A Linear or Hugging Face's Conv1D, which may be the first module of a Sequential."""
    child = module
    for part in path.split("."):  # five times as fast as `get_submodule`
        below = own_submodules(child).get(part)
        if below is None:
            return None
        child = below
    if isinstance(child, nn.Sequential) and len(child):
        child = child[0]
    if isinstance(child, nn.Linear):
        return _Affine(child.weight, child.bias)
    # By name, since transformers need not be installed.
    if any(parent.__name__ == "Conv1D" for parent in type(child).__mro__):
        return _Affine(child.weight.T, child.bias)  # type: ignore[arg-type]
    return None


def split_into_heads(projections: Projections) -> AttentionHeads:
    """Split projections into heads: views of the weights (copies if shared), without a graph.

    Raises:
        ValueError: if the sizes of the heads are not known or do not fit the weights.
    """
    owner, qkv, (output, output_bias) = projections
    inner = output.shape[1]
    heads, size = _sizes(owner, inner)
    if len(qkv) == 1:
        qkv = tuple(_unfused(qkv[0], inner))
    (query, query_bias), (key, key_bias), (value, value_bias) = (
        _per_head(affine, heads, size) for affine in qkv
    )
    factor = _scaling(owner, size) * math.sqrt(size)
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        query = query * factor
        query_bias = None if query_bias is None else query_bias * factor
    return AttentionHeads(
        query=query,
        key=key,
        value=value,
        output=torch.unflatten(output.detach(), 1, (heads, size)).transpose(0, 1),
        query_bias=query_bias,
        key_bias=key_bias,
        value_bias=value_bias,
        output_bias=None if output_bias is None else output_bias.detach(),
    )


def _sizes(owner: nn.Module, inner: int) -> tuple[int, int]:
    """The numbers H and d_head, with H d_head = inner."""
    heads, size = _whole_number(owner, _HEADS), _whole_number(owner, _HEAD_SIZE)
    if heads is None and size is None:
        names = ", ".join(f"`{name}`" for name in (*_HEADS, *_HEAD_SIZE))
        raise ValueError(f"it has none of {names} that says how many heads there are")
    heads = heads or inner // (size or inner)
    size = size or inner // heads
    if heads * size != inner:
        raise ValueError(f"it has {heads} heads of {size} features, but an output of {inner}")
    return heads, size


def _whole_number(owner: nn.Module, names: Sequence[str]) -> int | None:
    for place in (owner, getattr(owner, "config", None)):
        for name in names:
            value = getattr(place, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _scaling(owner: nn.Module, size: int) -> float:
    """The factor on scores. An attribute `scale` is not read: it may be a divisor in other code."""
    value = getattr(owner, "scaling", None)
    return value if isinstance(value, float) else size**-0.5


def _unfused(affine: _Affine, inner: int) -> Iterator[_Affine]:
    """Rows of q, k and v; k and v have fewer rows if queries share them."""
    rows = len(affine.weight)
    shared, rest = divmod(rows - inner, 2)
    if rest or shared <= 0:
        raise ValueError(f"its fused projection has {rows} rows, which are no q, k, v for {inner}")
    sizes = [inner, shared, shared]
    biases: Sequence[Tensor | None] = [None] * 3
    if affine.bias is not None:
        biases = torch.split(affine.bias, sizes)
    yield from map(_Affine, torch.split(affine.weight, sizes), biases)


def _per_head(affine: _Affine, heads: int, size: int) -> tuple[Tensor, Tensor | None]:
    """Weight (H, d_model, d_head), and bias (H, d_head) or None."""
    rows = len(affine.weight)
    own = rows // size
    if own * size != rows or own == 0 or heads % own:
        raise ValueError(
            f"a projection has {rows} rows, which are no heads of {size} features that "
            f"{heads} query heads could share"
        )
    share = heads // own
    weight = torch.unflatten(affine.weight.detach(), 0, (own, size)).transpose(1, 2)
    bias = (
        affine.bias
        if affine.bias is None
        else torch.unflatten(affine.bias.detach(), 0, (own, size))
    )
    if share > 1:
        weight = weight.repeat_interleave(share, 0)
        bias = None if bias is None else bias.repeat_interleave(share, 0)
    return weight, bias
